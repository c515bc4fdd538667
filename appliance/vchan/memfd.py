"""The process transport: the pages of a vchan in a sealed memfd, an eventfd each way.

The monitor creates, hands each domain the memory, the event it waits on and the event it wakes the peer with, and
stores a dead domain's last byte for it. Sealing fixes the size: a peer that could truncate the memory would kill us
with SIGBUS.

An eventfd's O_NONBLOCK belongs to both who hold it: domains must not be able to change it (fcntl F_SETFL, ioctl
FIONBIO are none of their system calls), or a peer could make ``notify`` block.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from typing import Final, NamedTuple

from appliance.vchan import layout
from appliance.vchan.layout import Orders
from appliance.vchan.ring import Side
from appliance.vchan.wire import Wire

MFD_NOEXEC_SEAL: Final = 0x8  # linux/memfd.h, since 6.3; the os module of 3.11 does not know it
SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_ONE: Final = (1).to_bytes(8, "little")


class Fds(NamedTuple):
    """The descriptors of one channel. The server waits on ``server_event_fd``, where the client notifies it."""

    memory_fd: int
    server_event_fd: int
    client_event_fd: int


class MemfdWire(NamedTuple):
    """A Wire over descriptors that this process was given."""

    memory: memoryview
    wait_fd: int
    notify_fd: int

    def fileno(self) -> int:
        return self.wait_fd

    def notify(self) -> None:
        # No room in the counter: somebody who holds this event has filled it, against the peer or against itself. The
        # peer still wakes by its own clock, and the monitor empties the counter when either end dies.
        try:  # noqa: SIM105 - on the path of every packet
            os.write(self.notify_fd, _ONE)
        except BlockingIOError:
            pass

    def hear(self) -> None:
        """Nothing: an eventfd that was written is an edge, read or not."""


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("vchan", flags | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("vchan", flags)  # before Linux 6.3


def create(orders: Orders) -> Fds:
    """The memory and events of a new channel, all pages allocated and zero, both sides closed.

    Errors: ValueError for impossible orders; OSError if the kernel refuses memory, seals or descriptors.
    """
    size = layout.size(orders)
    memory_fd = _memfd()
    try:
        # Pages that are missing later would be a SIGBUS in a domain: have them now, or fail here.
        os.posix_fallocate(memory_fd, 0, size)
        os.pwrite(memory_fd, struct.pack("<HH", *orders), layout.LEFT_ORDER)
        fcntl.fcntl(memory_fd, fcntl.F_ADD_SEALS, SEALS)
        server_event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            return Fds(memory_fd, server_event_fd, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        except OSError:
            os.close(server_event_fd)
            raise
    except OSError:
        os.close(memory_fd)
        raise


def map_memory(memory_fd: int, orders: Orders) -> memoryview:
    """The shared pages of a channel, mapped; for ``attach``, and for the monitor's hooks below.

    Errors: ValueError if the memory is not that of a channel of these ``orders``, or could still change its size.
    """
    expected = layout.size(orders)
    actual = os.fstat(memory_fd).st_size
    if actual != expected:
        raise ValueError(f"rings {orders} take {expected} bytes, the memory has {actual}")
    missing = SEALS & ~fcntl.fcntl(memory_fd, fcntl.F_GET_SEALS)
    if missing:
        raise ValueError(f"the memory could change its size under us: seals {missing:#x} are missing")
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    return memoryview(mmap.mmap(memory_fd, expected, flags, mmap.PROT_READ | mmap.PROT_WRITE))


def attach(memory_fd: int, wait_fd: int, notify_fd: int, orders: Orders) -> Wire:
    """This process's end of a channel. The descriptors stay the caller's and must stay open (``mmap`` keeps one more).

    Errors: ValueError as ``map_memory``; OSError if the kernel refuses.
    """
    return MemfdWire(map_memory(memory_fd, orders), wait_fd, notify_fd)


# The monitor's part in the restart of one domain (docs/architecture.md). ``dead`` is always the side that died.


def mark_dead(memory: memoryview, dead: Side) -> None:
    """Stores the dead side's last byte, so that the survivor sees it close. Then wake the survivor by its event."""
    memory[dead.live] = layout.CLOSED


def survivor_waits(memory: memoryview, dead: Side) -> bool:
    """Whether the *other* side has dropped the session that the dead one was in."""
    return memory[dead.other.live] == layout.WAITING


def zero_dead(memory: memoryview, dead: Side) -> None:
    """Clears what the dead side left in the header, before its replacement starts: indices and wishes."""
    mark_dead(memory, dead)
    words = memory[: layout.GRANTS].cast("I")
    words[dead.cons // 4] = 0
    words[dead.prod // 4] = 0
    memory[dead.wants] = 0


__all__ = [
    "Fds",
    "MemfdWire",
    "Wire",
    "attach",
    "create",
    "map_memory",
    "mark_dead",
    "survivor_waits",
    "zero_dead",
]
