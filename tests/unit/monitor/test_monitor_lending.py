"""The operator's end of a channel: lent to one at a time, taken back when it goes, and a setting kept unread."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from septum.v1.filtering import AskTotals, FilteringReply, FilteringRequest, Taken

from appliance.guest import boot
from appliance.monitor import control, process
from appliance.monitor.control import Busy, ControlError, borrow
from appliance.monitor.process import ProcessBackend
from appliance.monitor.replaced import MOST as MOST_REPLACED
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from tests.unit import operated
from tests.unit.operated import NAME, Box, answering, until

ROOT = Path(__file__).parents[3]
FULL = (2**64 - 2).to_bytes(8, "little")  # as much as an eventfd holds
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
ASK = FilteringRequest(totals=AskTotals(most=1))
REPLY = FilteringReply(taken=Taken(bytes=7))


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Box]:
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(tmp_path))
    made = Box(tmp_path)
    yield made
    made.close()


def caller(loan: control.Loan) -> Endpoint:
    shape = schema(loan.schema)
    memory, wait, notify = loan.descriptors
    return Endpoint(memfd.attach(memory, wait, notify, shape.orders), Side.CLIENT, shape)


def opened(end: Endpoint) -> bool:
    end.progress()
    return end.is_open


def both(one: Endpoint, other: Endpoint) -> bool:
    return opened(one) & opened(other)


def sealed(content: bytes, seals: int = SEALS) -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def test_of_a_guest_the_place_is_told_and_it_is_lent_to_one_at_a_time_all_the_same(box: Box) -> None:
    box.backend.place = (7, 12)
    loan = borrow(NAME, "filter")
    assert (loan.schema, loan.domain, loan.descriptors, loan.place) == ("filtering", "filter", (), (7, 12))
    with pytest.raises(Busy):
        borrow(NAME, "filter")
    box.hang_up()
    until(loan.is_over)
    loan.close()
    borrow(NAME, "filter").close()


def test_who_is_being_built_is_not_lent(box: Box) -> None:
    box.backend.away = "filter is being built"
    with pytest.raises(control.Away, match="filter is being built"):
        borrow(NAME, "filter")
    box.backend.away = ""
    borrow(NAME, "filter").close()


def test_who_borrows_it_can_ask_and_the_domain_is_told_when_it_goes(box: Box) -> None:
    server = box.attach()
    loan = borrow(NAME, "filter")
    assert (loan.schema, loan.domain) == ("filtering", "filter")
    client = caller(loan)
    with answering(server, lambda request: REPLY) as asked:
        until(lambda: opened(client))
        assert client.send(ASK)
        client.flush()
        assert until(client.receive) == REPLY
        assert asked == [ASK]
    loan.close()
    assert until(lambda: server.progress() == "closed")


def test_it_is_lent_to_one_at_a_time(box: Box) -> None:
    first = borrow(NAME, "filter")
    with pytest.raises(Busy, match=rf"process {os.getpid()} \(.+\) has held operator.filter for \d+\.\d s"):
        borrow(NAME, "filter")
    first.close()
    second = until(_try)
    assert control.request(NAME, "status") == {}  # whoever only looks is answered meanwhile
    second.close()


def _try() -> control.Loan | None:
    try:
        return borrow(NAME, "filter")
    except Busy:
        return None


def test_a_tool_that_is_killed_holds_nothing(box: Box) -> None:
    server = box.attach()
    script = (
        "from tests.unit.monitor.test_monitor_lending import *\n"
        f"loan = borrow({NAME!r}, 'filter'); client = caller(loan)\n"
        "until(lambda: opened(client)); print('open', flush=True); time.sleep(60)"
    )
    tool = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: opened(server), 30)
        assert tool.stdout is not None and tool.stdout.readline() == "open\n"
        tool.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        with pytest.raises(Busy, match=f"process {tool.pid}"):
            borrow(NAME, "filter")
        assert server.progress() is None
    finally:
        tool.kill()
        tool.wait()
    assert until(lambda: server.progress() == "closed")
    loan = until(_try)
    client = caller(loan)
    until(lambda: both(server, client))
    loan.close()


def test_what_the_last_one_left_is_cleared(box: Box) -> None:
    server = box.attach()
    for _ in range(3):
        loan = until(_try)
        client = caller(loan)
        until(lambda c=client: both(server, c))
        assert client.send(ASK)  # never read: the next session begins with nothing in the ring
        for event in loan.descriptors[1:]:
            os.set_blocking(event, False)
            with contextlib.suppress(BlockingIOError):
                os.read(event, 8)
            os.write(event, FULL)
        loan.close()
        until(lambda: server.progress() == "closed")
    loan = until(_try)
    client = caller(loan)
    until(lambda: both(server, client))
    assert server.receive() is None


def test_an_end_that_is_taken_back(box: Box) -> None:
    server = box.attach()
    loan = borrow(NAME, "filter")
    client = caller(loan)
    until(lambda: both(server, client))
    assert not loan.is_over()
    box.hang_up()
    until(loan.is_over)
    assert until(lambda: server.progress() == "closed")
    until(_try).close()


def test_there_is_nothing_else_to_borrow(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ControlError, match="the operator has no such port; there are: filter"):
        borrow(NAME, "keymgr")
    without = tmp_path / "without"
    without.mkdir()
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(without))
    other = Box(without, joined=False)
    with pytest.raises(ControlError, match=r"this box joins operator\.filter to nothing"):
        borrow(NAME, "filter")
    other.close()


def _raw(tmp_path: Path, question: object, fds: list[int]) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(str(tmp_path / NAME / control.SOCKET))
        socket.send_fds(connection, [json.dumps(question).encode() + b"\n"], fds)
        return dict(json.loads(connection.recv(1 << 16)))


def test_only_who_holds_an_end_may_have_something_kept(box: Box, tmp_path: Path) -> None:
    fd = sealed(b"{}")
    for question in (
        {"op": "keep"},
        {"op": "borrow"},
        {"op": "borrow", "port": ["filter"]},
        {"op": "borrow", "port": "x"},
    ):
        before = len(os.listdir("/proc/self/fd"))
        assert "error" in _raw(tmp_path, question, [fd] * 5)
        until(lambda n=before: len(os.listdir("/proc/self/fd")) <= n)  # none of those that came is left
    assert box.backend.kept == []


def test_a_setting_is_kept(box: Box) -> None:
    loan = borrow(NAME, "filter")
    fd = sealed(b"{}")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        loan.keep(fd)
    assert [kept[:2] for kept in box.backend.kept] == [("filter", "ruleset")] * 3
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(box.lending.replaced) == ["settings.filter.ruleset"]
    assert any("settings.filter.ruleset is replaced" in line for line in box.lines)
    box.backend.refuses = ValueError("is no good")
    with pytest.raises(ControlError, match=r"what should replace settings\.filter\.ruleset is no good"):
        loan.keep(fd)
    box.backend.refuses = None
    loan.keep(fd)
    loan.close()


# what becomes of it


@pytest.fixture
def backend() -> Iterator[ProcessBackend]:
    made = ProcessBackend(operated.assembly(), {}, None)
    yield made
    made.close()


def description(backend: ProcessBackend, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the next life of the domain reads."""
    monkeypatch.setattr(boot, "BOOT_FD", os.dup(backend._blueprints["filter"].description))
    return boot._read_description()


def test_later_lives_get_it_and_nothing_else_has_changed(
    backend: ProcessBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = description(backend, monkeypatch)
    assert first["settings"] == {"ruleset": {}}
    for value in ({"rules": ["\0", '"}, "seal": {}']}, {"rules": [1] * 500_000}, {"short": 1}):
        backend.replace_setting("filter", "ruleset", sealed(json.dumps(value).encode()))
        assert description(backend, monkeypatch) == {**first, "settings": {"ruleset": value}}
    assert fcntl.fcntl(backend._blueprints["filter"].description, fcntl.F_GET_SEALS) == process._SEALED


def test_what_could_be_more_than_the_setting_is_not(backend: ProcessBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    first = description(backend, monkeypatch)
    backend.replace_setting("filter", "ruleset", sealed(b'{}\0imports\0["os"]'))
    with pytest.raises(ValueError, match="Extra data"):  # it does not start; the box stays shut, and nothing is gained
        description(backend, monkeypatch)
    assert first["imports"] == ["tests"]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: sealed(b""), "has 0 bytes"),
        (lambda: sealed(bytes(MOST_REPLACED + 1)), f"not 1 to {MOST_REPLACED}"),
        (lambda: sealed(b"{}", fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW), "could still change"),
        (lambda: sealed(b"{}", fcntl.F_SEAL_WRITE), "could still change"),
        (lambda: os.open("/etc/hostname", os.O_RDONLY), "not a memfd"),
        (lambda: os.pipe()[0], "not a memfd"),
        (lambda: os.eventfd(0), "not a memfd"),
    ],
)
def test_what_is_not_kept(backend: ProcessBackend, make: object, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=why):
        backend.replace_setting("filter", "ruleset", make())  # type: ignore[operator]
    assert description(backend, monkeypatch)["settings"] == {"ruleset": {}}
