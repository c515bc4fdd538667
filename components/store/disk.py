"""The store's image where it has no file of its own: ordered piece by piece of who keeps it (proto disk).

Whoever keeps it may say anything: what comes back is as long as it should be, and what is in it is for slots.py to
check, as of a disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from septum.v1.disk import DISK_DONE, DISK_FULL, DISK_READ, DISK_SYNC, DISK_WRITE, DiskDone, DiskOrder

from components.store.slots import SLOT, Image

PIECE: Final = 32 << 10  # bytes at a time, by the schema
HEAD: Final = 256  # bytes at the beginning of a slot: what is read of each when the store starts
HEADS: Final = PIECE // HEAD


class Disk:
    """An image by orders. ``order`` carries one out; its errors go through."""

    def __init__(self, order: Callable[[DiskOrder], DiskDone]) -> None:
        self._order = order
        self._heads: dict[int, bytes] = {}  # by offset, as long as nothing was written
        self._size = 0

    @property
    def image(self) -> Image:
        return Image(self.read, self.write, self.sync)

    def _done(self, order: DiskOrder, length: int = 0) -> bytes:
        untrusted = self._order(order)
        if untrusted.outcome != DISK_DONE:
            number = errno.ENOSPC if untrusted.outcome == DISK_FULL else errno.EIO
            raise OSError(number, f"the disk: {os.strerror(number)}")
        if len(untrusted.data) != length:
            raise OSError(errno.EIO, f"the disk gives {len(untrusted.data)} bytes for {length}")
        self._size = untrusted.size
        return bytes(untrusted.data)

    def read(self, offset: int, length: int) -> bytes:
        """Less than asked at the end of the image. Errors: OSError."""
        if length <= HEAD and offset % SLOT == 0:
            return self._head(offset)[:length]
        found = bytearray()
        while len(found) < length:
            size = min(PIECE, length - len(found))
            found += self._done(DiskOrder(act=DISK_READ, offset=offset + len(found), length=size, count=1), size)
        return bytes(found[: max(0, self._size - offset)])

    def _head(self, offset: int) -> bytes:
        """Of many slots at once: there are thousands, and each order is a way there and back."""
        if offset not in self._heads:
            order = DiskOrder(act=DISK_READ, offset=offset, length=HEAD, count=HEADS, every=SLOT)
            pieces = self._done(order, PIECE)
            self._heads.clear()
            for number in range(HEADS):
                start = offset + number * SLOT
                self._heads[start] = pieces[number * HEAD : (number + 1) * HEAD][: max(0, self._size - start)]
        return self._heads[offset]

    def write(self, offset: int, data: bytes) -> None:
        """Errors: OSError; ENOSPC if there is no room."""
        self._heads.clear()
        for start in range(0, len(data), PIECE):
            self._done(DiskOrder(act=DISK_WRITE, offset=offset + start, data=data[start : start + PIECE]))

    def sync(self) -> None:
        """What was written is on the disk. Errors: OSError."""
        self._done(DiskOrder(act=DISK_SYNC))
