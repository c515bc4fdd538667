"""The shell of black: a real socket on loopback, a guest made of lists."""

from __future__ import annotations

import base64
import select
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any, cast

import pytest
from septum.v1.handshakes import Handshake
from septum.v1.nonces import NonceReply

import components.net.black
from appliance.guest.ports import PeerClosed, PeerStalled
from appliance.vchan.messages import Datagrams
from appliance.vchan.ring import PeerViolation
from components.net.doorman import COOKIE_SECRET_TIME, RANDOM_BYTES
from components.net.udp import SOL_UDP, UDP_GRO, UDP_SEGMENT
from tests.unit.fake_guest import ROOT, FakeGuest
from tests.unit.net.test_doorman import PUBLIC, cookie_of, handshake

HERE = bytes((127, 0, 0, 1))


class Box:
    """Black with an IPv4 socket, and a peer's socket outside."""

    def __init__(self, decrypts: int = 1) -> None:
        self.device = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.device.setsockopt(SOL_UDP, UDP_GRO, 1)
        self.device.bind(("127.0.0.1", 0))
        self.outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.outside.bind(("127.0.0.1", 0))
        self.outside.settimeout(5)
        self.port = self.outside.getsockname()[1]
        settings = {"public_key": base64.b64encode(PUBLIC).decode(), "listen_port": 0, "fwmark": 0}
        self.guest = FakeGuest("net", "black", settings, {"udp4": self.device.dup().detach()}, spread=decrypts)
        self.guest.clients["nonces"].answer = lambda request: NonceReply(random=bytes(request.length))
        components.net.black.build(cast(Any, self.guest))

    def arrive(self, *datagrams: bytes, size: int = 0, now: float = 1.0) -> bool:
        """Sends from outside, each datagram on its own or all as one group of ``size``; gives black its turn."""
        target = self.device.getsockname()
        if size:
            options = [(SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]
            self.outside.sendmsg([b"".join(datagrams)], options, 0, target)
        else:
            for one in datagrams:
                self.outside.sendto(one, target)
        assert select.select([self.device], [], [], 5)[0]
        return cast(bool, self.guest.handlers["udp4"](now))

    def count(self, name: str) -> int:
        return self.guest.counters[name].value

    def close(self) -> None:
        self.device.close()
        self.outside.close()

    @property
    def arrived(self) -> list[Datagrams]:
        return self.guest.outs["arrived"].sent

    @property
    def handshakes(self) -> list[Handshake]:
        return self.guest.outs["handshakes_arrived"].sent


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    yield made
    made.close()


def transport(size: int, fill: int = 0) -> bytes:
    return b"\4\0\0\0" + bytes((fill,)) * (size - 4)


def test_a_group_of_transport_data_is_one_message(box: Box) -> None:
    group = [transport(1452, n) for n in range(43)] + [transport(100)]
    assert box.arrive(*group, size=1452) is False, "everything was read"
    assert box.arrived == [Datagrams(b"".join(group), 1452, HERE, box.port)]
    assert (box.count("groups_in"), box.count("datagrams_in")) == (1, 44)
    assert box.count("bytes_in") == 43 * 1452 + 100


def test_a_single_one_is_a_group_of_one(box: Box) -> None:
    box.arrive(transport(32), transport(1452))
    assert box.arrived == [
        Datagrams(transport(32), 32, HERE, box.port),
        Datagrams(transport(1452), 1452, HERE, box.port),
    ]


def test_a_mixed_group_is_taken_apart(box: Box) -> None:
    good = handshake(1)
    box.arrive(transport(148, 7), good, bytes(148), transport(148, 8), good[:-40] + bytes(40), size=148)
    assert [group.datagrams for group in box.arrived] == [transport(148, 7), transport(148, 8)]
    assert box.handshakes == [Handshake(datagram=good, address=HERE, port=box.port)]
    assert (box.count("malformed"), box.count("bad_mac1")) == (1, 1)


def test_a_short_tail_is_no_transport_data(box: Box) -> None:
    box.arrive(transport(100), transport(31), size=100)
    assert [group.datagrams for group in box.arrived] == [transport(100)]
    assert box.count("malformed") == 1


def test_handshakes_go_to_the_key_manager_one_by_one(box: Box) -> None:
    sent = [handshake(1), handshake(2), b"\3\0\0\0" + bytes(60)]
    box.arrive(*sent)
    assert [one.datagram for one in box.handshakes] == sent
    assert box.arrived == []


@pytest.mark.parametrize("junk", [b"", b"x", bytes(31), bytes(148), b"\5\0\0\0" + bytes(60), b"\4" + bytes(30)])
def test_junk_goes_nowhere(box: Box, junk: bytes) -> None:
    box.arrive(junk, transport(32))
    assert (len(box.arrived), box.handshakes, box.count("malformed")) == (1, [], 1)


def test_port_0_cannot_be_answered_and_is_dropped(box: Box) -> None:
    class PortZero:
        def recvmsg_into(self, buffers: list[memoryview], space: int) -> tuple[int, list[Any], int, tuple[str, int]]:
            if box.count("malformed"):
                raise BlockingIOError(11, "no more")
            buffers[0][:32] = transport(32)
            return 32, [], 0, ("127.0.0.1", 0)

    black = box.guest.handlers["departing"].__self__  # type: ignore[attr-defined]
    udp = black._sockets[4]
    real, udp._socket = udp._socket, PortZero()
    try:
        assert box.guest.handlers["udp4"](1.0) is False
    finally:
        udp._socket = real
    assert (box.arrived, box.count("malformed")) == ([], 1)


def test_one_turn_is_bounded_and_goes_on_in_the_next(box: Box) -> None:
    sent = [transport(32 + n) for n in range(40)]
    more = box.arrive(*sent)
    assert more is True
    while more:
        more = box.guest.handlers["udp4"](1.0)
    assert [group.datagrams for group in box.arrived] == sent


def test_a_full_ring_ends_the_turn(box: Box) -> None:
    """Whether it begins at all is for the loop to say, which counts a ring as stuck after a while."""
    arrived = box.guest.outs["arrived"]
    assert box.guest.into["udp4"] == [arrived]
    real, arrived.room = arrived.room, lambda: not arrived.sent  # type: ignore[method-assign]
    assert box.arrive(transport(32), transport(33)) is True
    assert len(box.arrived) == 1
    arrived.room = real  # type: ignore[method-assign]
    while box.guest.handlers["udp4"](1.0):
        pass
    assert len(box.arrived) == 2


@pytest.mark.parametrize("decrypts", [2, 3])
def test_several_decrypts_get_each_its_own(decrypts: int) -> None:
    box = Box(decrypts)
    indices = [7, 7, 3, 2**32 - 1, 4, 0, 8]
    mixed = [b"\4\0\0\0" + index.to_bytes(4, "little") + bytes((n,)) * 92 for n, index in enumerate(indices)]
    box.arrive(*mixed, mixed[0][:40], size=100)
    box.arrive(mixed[2] + b"odd")
    expected: list[list[Datagrams]] = [[] for _ in range(decrypts)]
    for number in range(decrypts):
        own = [
            one for index, one in zip([*indices, 7], [*mixed, mixed[0][:40]], strict=True) if index % decrypts == number
        ]
        if own:
            expected[number].append(Datagrams(b"".join(own), min(100, len(b"".join(own))), HERE, box.port))
    expected[3 % decrypts].append(Datagrams(mixed[2] + b"odd", 103, HERE, box.port))
    outs = box.guest.members["arrived"]
    assert [out.sent for out in outs] == expected
    assert box.guest.into["udp4"] == outs
    outs[1].is_full = True
    assert box.arrive(mixed[4]) is True, "the turn ends when any of them is full"
    assert box.count("sink_full") == (1 if 4 % decrypts == 1 else 0)
    box.close()


def test_a_stuck_ring_holds_up_no_handshake(box: Box) -> None:
    """A ring that stays full: every turn that the loop gives reads on, and comes to an end."""
    box.guest.outs["arrived"].is_full = True
    wanted = handshake(1)
    more, turns = box.arrive(transport(32), transport(33), wanted), 1
    while more and turns < 10:
        more, turns = box.guest.handlers["udp4"](1.0), turns + 1
    assert (more, turns) == (False, 4)
    assert [one.datagram for one in box.handshakes] == [wanted]
    assert (box.arrived, box.count("sink_full"), box.count("datagrams_in")) == ([], 2, 3)


def test_under_pressure_cookies_are_asked_for(box: Box) -> None:
    box.guest.turn(1.0)
    box.guest.outs["handshakes_arrived"].is_full = True
    asked = handshake()
    box.arrive(asked)
    assert box.count("cookies_sent") == 1
    cookie = cookie_of(box.outside.recv(200), asked)
    box.guest.outs["handshakes_arrived"].is_full = False
    answer = handshake(cookie=cookie)
    box.arrive(answer, now=1.1)
    assert [one.datagram for one in box.handshakes] == [answer]


def test_a_handshake_without_room_is_counted(box: Box) -> None:
    box.guest.outs["handshakes_arrived"].is_full = True
    box.arrive(b"\3\0\0\0" + bytes(60))
    assert box.count("sink_full") == 1


def test_departing_groups_go_out(box: Box) -> None:
    group = [transport(100, n) for n in range(10)] + [transport(50)]
    box.guest.handlers["departing"](Datagrams(memoryview(b"".join(group)), 100, HERE, box.port), 1.0)
    assert [box.outside.recv(200) for _ in group] == group
    assert (box.count("groups_out"), box.count("datagrams_out"), box.count("bytes_out")) == (1, 11, 1050)
    box.guest.handlers["handshakes_departing"](Handshake(datagram=bytes(92), address=HERE, port=box.port), 1.0)
    assert box.outside.recv(200) == bytes(92)


@pytest.mark.parametrize("address", [bytes(16), b"12345", bytes((255, 255, 255, 255))])
def test_where_nothing_can_be_sent_is_counted(box: Box, address: bytes) -> None:
    box.guest.handlers["departing"](Datagrams(transport(100), 50, address, 9), 1.0)
    assert (box.count("send_errors"), box.count("datagrams_out")) == (2, 0)


def test_the_cookie_secret_is_fetched_at_once_and_every_two_minutes(box: Box) -> None:
    client = box.guest.clients["nonces"]
    assert box.guest.turn(5.0) == 5.0 + COOKIE_SECRET_TIME
    assert [request.length for request in client.calls] == [RANDOM_BYTES]
    box.guest.turn(6.0)
    assert len(client.calls) == 1
    box.guest.turn(5.0 + COOKIE_SECRET_TIME)
    assert len(client.calls) == 2


@pytest.mark.parametrize(
    "answer", [PeerClosed("gone"), PeerStalled("slow"), lambda request: NonceReply(random=b"short")]
)
def test_without_randomness_it_goes_on_and_tries_again(box: Box, answer: Any) -> None:
    client = box.guest.clients["nonces"]
    client.answer = answer
    assert box.guest.turn(5.0) == 6.0
    assert box.guest.turn(5.5) == 6.0
    assert len(client.calls) == 1
    box.guest.turn(6.0)
    assert len(client.calls) == 2
    assert [event for event, _ in box.guest.warnings] == ["no-cookie-secret"], "said once"
    client.answer = lambda request: NonceReply(random=bytes(request.length))
    assert box.guest.turn(7.0) == 7.0 + COOKIE_SECRET_TIME


def test_an_rng_that_breaks_the_protocol_is_accused(box: Box) -> None:
    client, lie = box.guest.clients["nonces"], PeerViolation("a frame of 4 GiB")
    client.answer = PeerStalled("slow")
    box.guest.turn(5.0)
    assert not box.guest.accused, "slow is not wrong"
    client.answer = lie
    assert box.guest.turn(6.0) == 7.0
    assert box.guest.accused == [(client, lie)]


def test_a_device_without_segmentation_is_said_once(box: Box) -> None:
    black = box.guest.handlers["departing"].__self__  # type: ignore[attr-defined]
    black._sockets[4].segments = False
    box.guest.turn(1.0)
    box.guest.turn(2.0)
    assert [event for event, _ in box.guest.warnings] == ["no-segmentation"]


def test_nothing_is_imported_that_component_toml_does_not_declare() -> None:
    """In a fresh interpreter, behind the gate of a domain; and nothing more is imported by working."""
    declared = tomllib.loads((ROOT / "components/net/component.toml").read_text())["roles"]["black"]
    script = f"""
import sys
import appliance.guest.loop
from appliance.guest.imports import close_gate
close_gate("net", {declared["imports"]!r})
import importlib
importlib.import_module({declared["main"]!r})
import socket
inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
inside.bind(("127.0.0.1", 0))
from components.net.doorman import Doorman
from components.net.udp import UdpSocket
udp = UdpSocket(inside.detach())
loaded = set(sys.modules)
port = udp._socket.getsockname()[1]
assert udp.send(memoryview(bytes(100)), 50, bytes((127, 0, 0, 1)), port) == 2
while udp.receive() is not None:
    pass
doorman = Doorman(bytes(32))
doorman.renew(bytes(64), 0.0)
doorman.judge(memoryview(bytes({list(handshake(public=bytes(32)))!r})), bytes(4), 1, 0.0, True)
assert set(sys.modules) == loaded, set(sys.modules) - loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
