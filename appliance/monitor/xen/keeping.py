"""Keeps the disk of a store that is a Xen guest: reads, writes and syncs one file of dom0 as the guest orders.

The guest grants the channel, as all do; this end maps it, asks what to do next, says what became of it (disk.proto).
What it reads and writes it does not look at. It meets one guest, once: gntdev, by which any page could be mapped that
any guest grants to dom0 (netback's packets among them), is given up as soon as the ring is mapped. Then it is sealed,
before it sees the first order: if the guest breaks in here, it has got the file that is its own, and nothing else of
dom0.

Whatever goes wrong ends it, and the end of the guest does: the monitor starts another one, for the guest that is there
then.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Mapping, Sequence
from typing import Any, Final

from septum.v1.disk import DISK_DONE, DISK_FAILED, DISK_FULL, DISK_READ, DISK_WRITE, DiskDone, DiskOrder

from appliance.guest import lastwords
from appliance.monitor.sandbox.allowlist import INT, LONG, Match, Rule
from appliance.monitor.sandbox.plan import SealPlan
from appliance.monitor.sandbox.seal import seal
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.grants import ClientWire, Meeting
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from appliance.xen import evtchn, gntdev

IMAGE_FD: Final = 4
_POLL_FD: Final = 3
_EVENTS_FD: Final = 5
KEPT: Final = (lastwords.LAST_WORDS_FD, _POLL_FD, IMAGE_FD, _EVENTS_FD)
"""All that it holds once it is sealed. It opens two of them itself: each gets the lowest number that is free (open(2)),
which is how whoever looks at it from outside can know them.
"""
_OF_THE_EVENT: Final = (Match(0, INT, (_EVENTS_FD,)), Match(2, LONG, (evtchn.PORT.size,)))
FURTHER: Final[Mapping[str, Rule]] = {
    "ioctl": ((Match(0, INT, (_EVENTS_FD,)), Match(1, INT, (evtchn.NOTIFY,))),),
    "read": (_OF_THE_EVENT,),
    "write": (_OF_THE_EVENT,),
}
"""What the channel takes once it is met, as ``allowlist.rules``: to wake the guest, and to be woken."""

SYSCALLS: Final = ("pread64", "pwrite64", "fdatasync", "lseek")
_LARGEST_READ: Final = 32 << 10
_LARGEST_IMAGE: Final = 272 << 20
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LOOK: Final = 0.5  # seconds: the longest sleep, the backstop behind a lost wake


class Image:
    """The file, as orders have it. They come from the guest, and have passed the schema."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def hello(self) -> DiskDone:
        """What is said when nothing was ordered yet."""
        return DiskDone(outcome=DISK_DONE, size=self._size())

    def carry_out(self, untrusted: DiskOrder) -> DiskDone:
        """Does what is ordered, or nothing of it, or (a write that fails) anything of it: old or new is the store's to
        see to.
        """
        data = b""
        try:
            if untrusted.act == DISK_READ:
                data = self._read(untrusted.offset, untrusted.length, untrusted.count, untrusted.every)
            elif untrusted.act == DISK_WRITE:
                self._write(untrusted.offset, untrusted.data)
            else:
                os.fdatasync(self._fd)
        except OSError as error:
            return DiskDone(outcome=DISK_FULL if error.errno in _NO_SPACE else DISK_FAILED, size=self._size())
        return DiskDone(outcome=DISK_DONE, size=self._size(), data=data)

    def _size(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_END)

    def _read(self, offset: int, length: int, count: int, every: int) -> bytes:
        if length * count > _LARGEST_READ:
            raise OSError(errno.EINVAL, "more than fits into an answer")
        pieces = (os.pread(self._fd, length, offset + number * every) for number in range(count))
        return b"".join(piece.ljust(length, b"\0") for piece in pieces)

    def _write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > _LARGEST_IMAGE:
            raise OSError(errno.EFBIG, "more than an image holds")
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            rest, offset = rest[written:], offset + written


class Session:
    """The end of one channel: orders in, what became of them out."""

    def __init__(self, endpoint: Endpoint, image: Image) -> None:
        self.endpoint = endpoint
        self._image = image

    def turn(self) -> None:
        """All that there is to do now. Errors: PeerViolation."""
        if self.endpoint.progress() == "opened":
            self.endpoint.send(self._image.hello())
        while (order := self.endpoint.receive()) is not None:
            self.endpoint.send(self._image.carry_out(order))
        self.endpoint.flush()


def met(place: Sequence[int]) -> ClientWire:
    """The wire to the guest: its number, the reference of the ring's first page, the port. Nothing else can be mapped
    any more, nor can this be met anew: gntdev is closed, and lets the pages go when they are unmapped.

    Errors: OSError; GrantError if the guest does not offer that.
    """
    domid, ring_ref, port = place
    device = gntdev.open_device()
    try:
        wire = ClientWire(device, schema("disk").orders)
        wire.accept(domid, Meeting(ring_ref, port))
    finally:
        os.close(device)
    return wire


def run(seal_plan: Mapping[str, Any], place: Sequence[int]) -> None:
    """Never returns. Last words on descriptor 2."""
    lastwords.install()
    try:
        _run(SealPlan.from_json(dict(seal_plan)), place)
    except BaseException as death:
        lastwords.last_words(death)
        lastwords.leave()


def _run(plan: SealPlan, place: Sequence[int]) -> None:
    wire = met(place)
    poll = select.epoll(1)
    poll.register(wire.fileno(), select.EPOLLIN | select.EPOLLET)
    if (wire.fileno(), poll.fileno()) != (_EVENTS_FD, _POLL_FD):
        raise OSError(0, f"descriptors {wire.fileno()} and {poll.fileno()} are not those of the plan, {KEPT}")
    session = Session(Endpoint(wire, Side.CLIENT, schema("disk")), Image(IMAGE_FD))
    seal(plan, FURTHER)
    while True:
        session.turn()
        if session.endpoint.arm(space=False):
            poll.poll(_LOOK)
        session.endpoint.disarm()
