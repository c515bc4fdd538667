"""Who keeps a store's disk on Xen: told where the guest is, replaced when he ends. And what he does for the guest."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from septum.v1.disk import DISK_DONE, DISK_FULL, DISK_READ, DISK_SYNC, DISK_WRITE, DiskOrder

from appliance.monitor.sandbox import seccomp
from appliance.monitor.spawn import Child
from appliance.monitor.xen import disk as module
from appliance.monitor.xen import keeping
from appliance.monitor.xen.disk import NOWHERE, DiskProcess, Place, place_of
from appliance.monitor.xen.keeping import Image, Session
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.grants import GrantError, Meeting
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from appliance.xen import evtchn, gntdev
from components.store.slots import IMAGE
from tests.unit.operated import until
from tests.unit.test_seccomp import allowed

# Says in its last words where the guest is, and ends when it may
STAND_IN = """
import json, os, time
description = os.pread(3, 65536, 0)
os.write(2, str(json.loads(description)["place"]).encode())
os.write(4, b"was here")
while os.fstat(4).st_size < 100:
    time.sleep(0.01)
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


def turned(disk: DiskProcess, now: float, done: Callable[[], bool]) -> None:
    def look() -> bool:
        disk.turn(now)
        return done()

    until(look)


def said(lines: list[str], place: Place) -> bool:
    return any(str(list(place)) in line for line in lines)


def test_it_is_started_for_the_guest_that_is_there_and_anew_if_it_ends(
    process: tuple[DiskProcess, list[str], Path],
) -> None:
    disk, lines, image = process
    first, second = Place(7, 8, 9), Place(10, 11, 12)
    disk.turn(0.0)
    assert disk._life is None  # there is nobody to keep it for
    disk.tell(first)
    disk.turn(0.0)
    until(lambda: image.read_bytes()[:8] == b"was here")
    os.truncate(image, 100)
    turned(disk, 0.0, lambda: bool(lines))
    assert said(lines, first) and "status 0" in lines[0]
    os.truncate(image, 0)
    disk.turn(0.5)
    assert disk._life is None  # not yet
    disk.turn(1.0)
    assert disk._life is not None
    os.truncate(image, 100)
    turned(disk, 2.0, lambda: len(lines) == 2)
    disk.turn(3.5)
    assert disk._life is None  # a longer rest each time
    disk.tell(second)
    disk.turn(3.5)
    assert disk._life is not None  # another guest has not to wait for what became of the one before


def test_it_ends_with_its_guest_and_nobody_waits_for_that(process: tuple[DiskProcess, list[str], Path]) -> None:
    disk, lines, _ = process
    disk.tell(Place(7, 8, 9))
    disk.turn(0.0)
    life = disk._life
    assert life is not None
    disk.tell(NOWHERE)
    turned(disk, 0.0, lambda: disk._life is None)
    assert not Path(f"/proc/{life.child.pid}").exists()
    disk.turn(0.0)
    assert disk._life is None and not lines
    disk.tell(Place(10, 11, 12))
    disk.turn(0.0)
    again = disk._life
    assert again is not None
    disk.tell(Place(13, 14, 15))  # which was not seen to be gone between the two
    turned(disk, 0.0, lambda: disk._life not in (None, again))
    assert disk._life is not None and disk._life.place == (13, 14, 15) and not lines


def test_one_that_cannot_be_started_leaves_no_descriptor_behind(
    process: tuple[DiskProcess, list[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, lines, _ = process
    disk.tell(Place(7, 8, 9))

    def fails(*_: object) -> None:
        raise OSError(errno.ENOMEM, "none left")

    for where, name in ((module, "spawn"), (module.ramdisk, "sealed"), (module, "last_words_pipe")):
        before = set(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fails)
            disk.turn(100.0 * (len(lines) + 1))
        assert set(os.listdir("/proc/self/fd")) == before, name
    assert len(lines) == 3 and "none left" in lines[0]


def test_a_place_is_one_when_both_are_written() -> None:
    assert place_of(5, (8, 3)) == (5, 8, 3)
    assert place_of(5, (None, 3)) == place_of(5, (8, None)) == place_of(5, (0, 3)) == NOWHERE


# what he does for the guest ------------------------------------------------------------------------------------------


class Channel:
    """Both ends of a channel of processes."""

    def __init__(self) -> None:
        shape = schema("disk")
        fds = memfd.create(shape.orders)
        self.client = memfd.attach(fds.memory_fd, fds.client_event_fd, fds.server_event_fd, shape.orders)
        self.server = Endpoint(
            memfd.attach(fds.memory_fd, fds.server_event_fd, fds.client_event_fd, shape.orders), Side.SERVER, shape
        )

    def session(self, image: int) -> Session:
        made = Session(Endpoint(self.client, Side.CLIENT, schema("disk")), Image(image))

        def opened() -> bool:
            made.turn()
            self.server.progress()
            return self.server.is_open

        until(opened)
        made.turn()
        return made


def test_it_asks_and_does_what_it_is_told(tmp_path: Path) -> None:
    channel = Channel()
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    for life in range(2):
        session = channel.session(fd)
        hello = channel.server.receive()
        assert (hello.outcome, hello.size) == (DISK_DONE, 5 * life)
        for order, data in (
            (DiskOrder(act=DISK_WRITE, offset=2, data=b"abc"), b""),
            (DiskOrder(act=DISK_SYNC), b""),
            (DiskOrder(act=DISK_READ, offset=1, length=3, count=2, every=2), b"\0abbc\0"),
        ):
            assert channel.server.send(order)
            channel.server.flush()
            session.turn()
            done = channel.server.receive()
            assert (done.outcome, done.size, bytes(done.data)) == (DISK_DONE, 5, data)
        memfd.zero_dead(channel.client.memory, Side.CLIENT)
        until(lambda: channel.server.progress() == "closed")
    os.close(fd)


def test_no_image_is_larger_than_a_store_has(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    image = Image(fd)
    assert image.carry_out(DiskOrder(act=DISK_WRITE, offset=IMAGE - 5, data=b"whole")).outcome == DISK_DONE
    assert image.carry_out(DiskOrder(act=DISK_WRITE, offset=IMAGE - 4, data=b"whole")).outcome == DISK_FULL
    assert os.fstat(fd).st_size == IMAGE
    os.close(fd)


@pytest.mark.parametrize("refuses", [False, True])
def test_once_it_has_met_its_guest_it_can_map_nothing_of_any_other(
    monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    device = os.open(os.devnull, os.O_RDWR)
    asked: list[object] = []

    class Wire:
        def __init__(self, fd: int, orders: object) -> None:
            assert fd == device

        def accept(self, domid: int, meeting: Meeting) -> None:
            os.fstat(device)
            asked.append((domid, meeting))
            if refuses:
                raise GrantError("nothing")

    monkeypatch.setattr(keeping, "ClientWire", Wire)
    monkeypatch.setattr(keeping.gntdev, "open_device", lambda: device)
    if refuses:
        with pytest.raises(GrantError):
            keeping.met([7, 8, 9])
    else:
        keeping.met([7, 8, 9])
    assert asked == [(7, Meeting(8, 9))]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(device)


def test_of_its_channel_it_keeps_the_right_to_wake_and_be_woken() -> None:
    code = seccomp.program(keeping.SYSCALLS, further=keeping.FURTHER)
    events = keeping.KEPT[-1]
    wake = {"ioctl": (events, evtchn.NOTIFY), "read": (events, 0, 4), "write": (events, 0, 4)}
    for call, arguments in wake.items():
        assert allowed(code, call, *arguments), call
        assert not allowed(code, call, events + 1, *arguments[1:]), call
    for request in (evtchn.BIND_INTERDOMAIN, evtchn.BIND_UNBOUND, evtchn.UNBIND, evtchn.RESET, gntdev.MAP):
        for fd in range(8):
            assert not allowed(code, "ioctl", fd, request)
    for fd in range(8):
        assert not allowed(code, "mmap", 0, 4096, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        assert not allowed(code, "mmap", 0, 4096, mmap.PROT_READ, mmap.MAP_SHARED | 0x10, fd, 0)
