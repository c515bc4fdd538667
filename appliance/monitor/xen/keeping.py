"""Keeps the disk of a store that is a Xen guest: reads, writes and syncs one file of dom0 as the guest orders.

The guest grants the channel, as all do; this end maps it, asks what to do next, says what became of it (disk.proto).
What it reads and writes it does not look at. It is sealed before it sees the first byte of the guest: if the guest
breaks in here, it has got the file that is its own, and nothing else of dom0.

Whatever goes wrong ends it; the monitor starts another one, and tells that where the guest is now.
"""

from __future__ import annotations

import errno
import os
import select
import struct
from collections.abc import Mapping
from typing import Any, Final

from septum.v1.disk import DISK_DONE, DISK_FAILED, DISK_FULL, DISK_READ, DISK_WRITE, DiskDone, DiskOrder

from appliance.guest import lastwords
from appliance.monitor.sandbox.plan import SealPlan
from appliance.monitor.sandbox.seal import seal
from appliance.monitor.sandbox.xenguest import channel_rules
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.grants import ClientWire, Meeting
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema
from appliance.xen import gntdev

IMAGE_FD: Final = 4
NEWS_FD: Final = 5
_GRANTS_FD: Final = 3
_EVENTS_FD: Final = 6
_POLL_FD: Final = 7
KEPT: Final = (lastwords.LAST_WORDS_FD, _GRANTS_FD, IMAGE_FD, NEWS_FD, _EVENTS_FD, _POLL_FD)
"""All that it holds once it is sealed. It opens three of them itself: each gets the lowest number that is free
(open(2)), which is how whoever looks at it from outside can know them.
"""
FURTHER: Final = channel_rules(NEWS_FD, (_GRANTS_FD,))
NEWS: Final = struct.Struct("=III")
"""What the monitor writes: the guest's number, the reference of the ring's first page, the port. Zeros: it is gone."""

SYSCALLS: Final = ("pread64", "pwrite64", "fdatasync", "lseek")
_LARGEST_READ: Final = 32 << 10
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


class Keeper:
    """The loop's state: at most one guest. ``device`` is gntdev's descriptor."""

    def __init__(self, wire: ClientWire, image: Image) -> None:
        self._wire = wire
        self._image = image
        self.session: Session | None = None

    def hear(self, news: bytes) -> None:
        """Errors: GrantError if the guest does not offer what the monitor says; ValueError."""
        if len(news) != NEWS.size:
            raise ValueError(f"{len(news)} bytes are no news")
        domid, ring_ref, port = NEWS.unpack(news)
        self._wire.detach()
        self.session = None
        if domid:
            self._wire.accept(domid, Meeting(ring_ref, port))
            self.session = Session(Endpoint(self._wire, Side.CLIENT, schema("disk")), self._image)


def run(seal_plan: Mapping[str, Any]) -> None:
    """Never returns while the monitor lives. Last words on descriptor 2."""
    lastwords.install()
    try:
        _run(SealPlan.from_json(dict(seal_plan)))
    except BaseException as death:
        lastwords.last_words(death)
        lastwords.leave()


def _run(plan: SealPlan) -> None:
    device = gntdev.open_device()
    wire = ClientWire(device, schema("disk").orders)
    poll = select.epoll(2)
    poll.register(NEWS_FD, select.EPOLLIN)
    poll.register(wire.fileno(), select.EPOLLIN | select.EPOLLET)
    keeper = Keeper(wire, Image(IMAGE_FD))
    if (device, wire.fileno(), poll.fileno()) != (_GRANTS_FD, _EVENTS_FD, _POLL_FD):
        raise OSError(f"descriptors {device}, {wire.fileno()}, {poll.fileno()} are not those of the plan, {KEPT}")
    seal(plan, FURTHER)
    while True:
        session = keeper.session
        is_idle = session is None or session.endpoint.arm(space=False)
        for fd, _ in poll.poll(_LOOK if is_idle else 0.0):
            if fd == NEWS_FD:
                news = os.read(NEWS_FD, NEWS.size)
                if not news:
                    return  # the monitor has ended
                keeper.hear(news)
        if keeper.session is not None:
            keeper.session.endpoint.disarm()
            keeper.session.turn()
