"""Nothing is left lying: bursts at random moments come out whole and in order, though nobody looks twice.

The domain runs in a thread, and its backstop, which looks everywhere twice a second, is taken away: an event that is
overlooked stays so.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final

import pytest

from appliance.guest import loop
from components.net import virtio
from tests.budgets.domain import Domain
from tests.unit.short import roles
from tests.unit.short.test_hostile import empty
from tests.unit.short.twins import Counted

BURSTS: Final = 150
MOMENT: Final = 5.0  # seconds, on a machine that has much else to do


@contextmanager
def running(domain: Domain) -> Iterator[None]:
    is_over = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not is_over.is_set():
                domain.turn()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        domain.wake()
        thread.join(MOMENT)
    assert not thread.is_alive() and not failures, failures


@pytest.fixture(autouse=True)
def no_backstop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HEARTBEAT", 60.0)


def burst(rng: Random) -> int:
    return rng.choice((1, 1, 1, *range(2, 11)))


def pause(rng: Random) -> None:
    time.sleep(rng.choice((0, 0, 1e-5, 1e-4, 1e-3, 4e-3)))


def flow(seed: str, give: Callable[[list[Any]], None], make: Callable[[], Any], take: Callable[[], list[bytes]]) -> int:
    """Gives bursts of what is made, and waits until as much has come; how many those were."""
    rng = Random(seed)
    given: list[Any] = []
    came: list[bytes] = []
    for _ in range(BURSTS):
        some = [make() for _ in range(burst(rng))]
        given += some
        give(some)
        pause(rng)
        if rng.random() < 0.5:  # often all of it, and it sleeps again
            await_all(given, came, take)
        else:
            came += take()
    await_all(given, came, take)
    time.sleep(0.02)
    assert take() == []
    assert came == [body(one) for one in given]
    return len(given)


def await_all(given: list[Any], came: list[bytes], take: Callable[[], list[bytes]]) -> None:
    until = time.monotonic() + MOMENT
    while len(came) < len(given):
        assert time.monotonic() < until, f"{len(given) - len(came)} of {len(given)} are left lying"
        came += take()
        time.sleep(0)


def body(one: Any) -> bytes:
    return one if isinstance(one, bytes) else bytes(one[0])


def items(groups: list[Any]) -> list[bytes]:
    return [bytes(blob[at : at + size]) for blob, size, *_ in groups for at in range(0, len(blob), size)]


def sizes(rng: Random) -> int:
    return rng.choice((64, 64, 64, rng.randrange(20, 1300), 1300, 1900))


def test_from_the_tun() -> None:
    rng = Random(1)
    lan, tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    domain = Domain("net", "red", {"mtu": 2000}, {"tun": tun.detach()}, kind=Counted)
    with running(domain):
        flow(
            "tun",
            lambda some: [lan.send(virtio.PLAIN + one) for one in some] and None,
            lambda: roles.udp_packet(True, sizes(rng)),
            lambda: items(domain.take("plain_out")),
        )
    assert domain.near["plain_out"].shortly > BURSTS // 10  # type: ignore[attr-defined]


@pytest.mark.parametrize("has_gro", [False, True])
def test_from_the_socket(has_gro: bool) -> None:
    rng, counter = Random(2), iter(range(1 << 30))
    wan, udp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    udp.setsockopt(socket.SOL_UDP, 104, has_gro)  # UDP_GRO
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    udp.bind(("127.0.0.1", 0))
    wan.connect(udp.getsockname())
    domain = Domain("net", "black", {"public_key": roles.KEY}, {"udp4": udp.detach()}, kind=Counted)
    with running(domain):
        flow(
            "socket",
            lambda some: [wan.send(one) for one in some] and None,
            lambda: b"\4\0\0\0" + next(counter).to_bytes(12, "little") + bytes(16 + sizes(rng)),
            lambda: items(domain.take("arrived")),
        )
    assert domain.near["arrived"].shortly > BURSTS // 10  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", roles.ROLES)
def test_from_a_channel(name: str) -> None:
    role = roles.ROLES[name]()
    domain = role.pair.short

    def take() -> list[bytes]:
        if role.inward == "plain_in":
            return [read[len(virtio.PLAIN) :] for read in empty(role.devices[0])]
        if role.inward == "departing":
            return empty(role.devices[0])
        found = items(domain.take(role.outward))
        return [counter_of(one) for one in found] if name == "encrypt" else found

    def give(some: list[Any]) -> None:
        domain.give(role.inward, [getattr(one, "message", one) for one in some])

    numbers = iter(range(1 << 30))

    def make() -> Any:
        message = next(role.messages)
        if name == "encrypt":
            return _Sealed(message, next(numbers).to_bytes(8, "little"))
        if name == "decrypt":
            number = next(numbers)
            return _Sealed(message, roles.udp_packet(False, 20 + number % 100))
        return message

    with running(domain):
        flow(name, give, make, take)
    assert domain.near[role.inward].shortly > BURSTS // 10  # type: ignore[attr-defined]


def counter_of(datagram: bytes) -> bytes:
    return datagram[8:16]


class _Sealed(tuple[bytes]):
    """A message, and what is to come of it."""

    message: Any

    def __new__(cls, message: Any, out: bytes) -> _Sealed:
        made = super().__new__(cls, (out,))
        made.message = message
        return made
