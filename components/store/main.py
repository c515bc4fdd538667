"""Keeps opaque, versioned, sealed blobs, each for the consumer that put it."""

from __future__ import annotations

import errno
import os
from typing import Final

from septum.v1.blobs import BLOB_ABSENT, BLOB_FULL, BLOB_OK, BLOB_STALE, BlobReply, BlobRequest

from appliance.guest.loop import Guest
from appliance.guest.ordering import Orderer
from components.store.disk import Disk
from components.store.slots import Full, Image, Stale, Store

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def file_image(fd: int) -> Image:
    """An image in a regular file."""

    def read(offset: int, length: int) -> bytes:
        return os.pread(fd, length, offset)

    def write(offset: int, data: bytes) -> None:
        while data:
            written = os.pwrite(fd, data, offset)
            data, offset = data[written:], offset + written

    return Image(read, write, lambda: os.fdatasync(fd))


class Shell:
    """Requests in, replies out. The image is read at the first request, or the first turn: nothing before the seal.

    Where somebody else keeps the disk (a domain of Xen), requests wait while he is not there, and an order that he does
    not finish ends this domain: it is old or new on the disk then, as after any crash.
    """

    def __init__(self, guest: Guest) -> None:
        self._keeper = guest.drive("disk", Orderer) if guest.is_joined("disk") else None
        if self._keeper is not None:
            self._image = Disk(self._keeper.order).image
        else:
            self._image = file_image(guest.devices["store"])
        self._session = 0
        self._store: Store | None = None
        self._torn = 0
        self._is_changed = False
        self._log = guest.log
        self._gets = guest.counter("gets")
        self._puts = guest.counter("puts")
        self._stale = guest.counter("stale")
        self._blobs = guest.counter("blobs")
        self._bytes = guest.counter("bytes")

    def is_ready(self) -> bool:
        """Whether the image can be had now."""
        return self._keeper is None or self._keeper.is_ready

    def _opened(self) -> Store:
        if self._keeper is not None and self._keeper.sessions != self._session:
            self._session = self._keeper.sessions
            self._store = None  # what another one has of it is read anew
        if self._store is None:
            self._store = Store(self._image)
            self._count(self._store)
        return self._store

    def _count(self, store: Store) -> None:
        self._blobs.set(store.count)
        self._bytes.set(store.size)

    def _look(self, store: Store) -> None:
        """Says so if slots were found since the last time that are not what they were."""
        if store.torn != self._torn:
            self._torn = store.torn
            self._log.warning("torn", f"{store.torn} slots hold nothing whole: a crash, or decay")

    def tick(self, now: float) -> None:
        if not self.is_ready():
            return
        store = self._opened()
        self._look(store)
        if self._is_changed:
            self._is_changed = False
            self._count(store)

    def serve(self, consumer: str, request: BlobRequest) -> BlobReply:
        store = self._opened()
        if not request.blob:
            self._gets.add(1)
            found = store.get(consumer, request.name)
            if request.version:  # neither a get nor a put, which has a blob
                return BlobReply(status=BLOB_STALE, version=found[0] if found else 0)
            if found is None:
                return BlobReply(status=BLOB_ABSENT)
            return BlobReply(status=BLOB_OK, version=found[0], blob=found[1])
        try:
            store.put(consumer, request.name, request.version, request.blob, request.lazy)
        except Stale as stale:
            self._stale.add(1)
            return BlobReply(status=BLOB_STALE, version=stale.version)
        except (Full, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_SPACE:
                raise
            return BlobReply(status=BLOB_FULL)
        self._puts.add(1)
        self._is_changed = True
        return BlobReply(status=BLOB_OK, version=request.version)


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    shell = Shell(guest)
    guest.serve("blobs", shell.serve, when=shell.is_ready)
    guest.timer(shell.tick)
