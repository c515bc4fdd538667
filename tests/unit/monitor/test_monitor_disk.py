"""Who keeps a store's disk on Xen: told where the guest is, replaced when he ends. And what he does for the guest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from septum.v1.disk import DISK_DONE, DISK_READ, DISK_SYNC, DISK_WRITE, DiskOrder

from appliance.monitor.spawn import Child
from appliance.monitor.xen import disk as module
from appliance.monitor.xen.disk import NOWHERE, DiskProcess, Place, place_of
from appliance.monitor.xen.keeping import NEWS, Image, Keeper, Session
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.grants import GrantError, Meeting
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from tests.unit.operated import until

# Says what it hears in its last words, and ends at the third news
STAND_IN = """
import os
for _ in range(3):
    os.write(2, os.read(5, 12).hex().encode() + b" ")
os.write(4, b"was here")
"""


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[DiskProcess, list[str], Path]]:
    """A process of the stand-in, without the namespaces of the real one, which take root."""

    def spawn(descriptors: dict[int, int], program: Path) -> Child:
        fds = {number: fd for number, fd in descriptors.items() if number >= 2}
        moves = "".join(f"os.dup2({fd}, {number + 100});" for number, fd in fds.items())
        moves += "".join(f"os.dup2({number + 100}, {number});" for number in fds)
        code = f"import os;{moves}os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {STAND_IN!r}])"
        started = subprocess.Popen([sys.executable, "-c", code], pass_fds=list(fds.values()))
        started.returncode = 0  # it is reaped by its pidfd
        return Child(started.pid, os.pidfd_open(started.pid))

    monkeypatch.setattr(module, "spawn", spawn)
    lines: list[str] = []
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    made = DiskProcess(fd, None, lambda priority, text: lines.append(text))
    yield made, lines, tmp_path / "image"
    made.close()
    os.close(fd)


def hexed(*places: Place) -> str:
    return " ".join(NEWS.pack(*place).hex() for place in places)


def test_it_is_told_what_is_new_and_the_next_one_where_the_guest_is(
    process: tuple[DiskProcess, list[str], Path],
) -> None:
    disk, lines, image = process
    first, second = Place(7, 8, 9), Place(10, 11, 12)
    disk.tell(first)  # before there is anybody to be told
    disk.turn(0.0)
    for place in (first, NOWHERE, NOWHERE, second):
        disk.tell(place)

    def ended() -> bool:
        disk.turn(0.0)
        return bool(lines)

    until(ended)
    assert hexed(first, NOWHERE, second) in lines[0]
    assert image.read_bytes() == b"was here"
    disk.turn(0.5)
    assert disk._life is None  # not yet
    disk.turn(1.0)
    assert disk._life is not None
    for place in (NOWHERE, first):
        disk.tell(place)
    lines.clear()

    def ended_again() -> bool:
        disk.turn(2.0)
        return bool(lines)

    until(ended_again)
    assert hexed(second, NOWHERE, first) in lines[0]
    disk.turn(3.5)
    assert disk._life is None  # a longer rest each time


def test_one_that_reads_nothing_any_more_is_ended(process: tuple[DiskProcess, list[str], Path]) -> None:
    disk, lines, _ = process
    disk.turn(0.0)
    life = disk._life
    assert life is not None
    os.kill(life.child.pid, signal.SIGSTOP)
    for number in range(1, 10_000):
        disk.tell(Place(number, 1, 1))
        if module._has_ended(life.child.pidfd):
            break
        if number > 5000:
            time.sleep(0.001)
    disk.turn(0.0)
    assert lines and "status -9" in lines[0]


def test_a_place_is_one_when_both_are_written() -> None:
    assert place_of(5, (8, 3)) == (5, 8, 3)
    assert place_of(5, (None, 3)) == place_of(5, (8, None)) == place_of(5, (0, 3)) == NOWHERE


# what he does for the guest ------------------------------------------------------------------------------------------


class Wire:
    """The client's end of a channel of processes, as one over grants behaves: accepted, detached."""

    def __init__(self) -> None:
        shape = schema("disk")
        fds = memfd.create(shape.orders)
        self._wire = memfd.attach(fds.memory_fd, fds.client_event_fd, fds.server_event_fd, shape.orders)
        self.server = Endpoint(
            memfd.attach(fds.memory_fd, fds.server_event_fd, fds.client_event_fd, shape.orders), Side.SERVER, shape
        )
        self.memory = self._wire.memory
        self.met: list[tuple[int, Meeting]] = []
        self.refuses = False

    def accept(self, domid: int, meeting: Meeting) -> None:
        if self.refuses:
            raise GrantError("nothing")
        self.met.append((domid, meeting))

    def detach(self) -> None:
        memfd.zero_dead(self.memory, Side.CLIENT)

    def fileno(self) -> int:
        return self._wire.fileno()

    def notify(self) -> None:
        self._wire.notify()

    def hear(self) -> None:
        self._wire.hear()


def met(keeper: Keeper, wire: Wire) -> Session:
    keeper.hear(NEWS.pack(7, 8, 9))
    session = keeper.session
    assert session is not None

    def opened() -> bool:
        session.turn()
        wire.server.progress()
        return wire.server.is_open

    until(opened)
    session.turn()
    return session


def test_it_asks_and_does_what_it_is_told(tmp_path: Path) -> None:
    wire = Wire()
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    keeper = Keeper(wire, Image(fd))  # type: ignore[arg-type]
    for life in range(2):
        session = met(keeper, wire)
        assert wire.met[-1] == (7, Meeting(8, 9))
        hello = wire.server.receive()
        assert (hello.outcome, hello.size) == (DISK_DONE, 5 * life)
        for order, data in (
            (DiskOrder(act=DISK_WRITE, offset=2, data=b"abc"), b""),
            (DiskOrder(act=DISK_SYNC), b""),
            (DiskOrder(act=DISK_READ, offset=1, length=3, count=2, every=2), b"\0abbc\0"),
        ):
            assert wire.server.send(order)
            wire.server.flush()
            session.turn()
            done = wire.server.receive()
            assert (done.outcome, done.size, bytes(done.data)) == (DISK_DONE, 5, data)
        keeper.hear(NEWS.pack(*NOWHERE))
        assert keeper.session is None
        until(lambda: wire.server.progress() == "closed")
    os.close(fd)


def test_a_guest_that_offers_nothing_ends_it(tmp_path: Path) -> None:
    wire = Wire()
    wire.refuses = True
    with pytest.raises(GrantError):
        Keeper(wire, Image(0)).hear(NEWS.pack(7, 8, 9))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no news"):
        Keeper(wire, Image(0)).hear(b"x")  # type: ignore[arg-type]
