"""/dev/xen/gntalloc: pages of this domain, zeroed, that one other domain may map.

Source: Linux, include/uapi/xen/gntalloc.h, drivers/xen/gntalloc.c and drivers/xen/grant-table.c. Pages that the other
domain still maps when they are given up stay allocated until it lets go: nobody can take a page away under its hands,
and a domain that holds on to them costs us that memory and no more. Until Linux finds such a page unmapped its grant
stays good, for that domain alone: Linux looks once a second, at ten pages, or at all with
``grant_table.free_per_iteration=0``, which our guests boot with. The module's parameter ``limit`` (1024 pages) counts
what is lent, not what was given up and is still held; that is bounded by what the other domain can map
(``max_maptrack_frames``) and by our own ``max_grant_frames``.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final, NamedTuple

from appliance.xen.ioctl import request

DEVICE: Final = "/dev/xen/gntalloc"

ALLOC: Final = request("G", 5, 24)
DEALLOC: Final = request("G", 6, 16)
SET_UNMAP_NOTIFY: Final = request("G", 7, 16)

_ALLOC: Final = struct.Struct("=HHIQ")  # domid, flags, count; out: index. The grant references follow
_DEALLOC: Final = struct.Struct("=QI4x")
UNMAP_NOTIFY: Final = struct.Struct("=QII")  # index of the byte, action, port; gntdev's is the same
CLEAR_BYTE: Final = 1
SEND_EVENT: Final = 2
_WRITABLE: Final = 1
_MOST: Final = 4096  # pages in one call; the module's own limit is what bounds them


class Lent(NamedTuple):
    """Pages that were allocated together: where they are mmapped, and the grant reference of each."""

    offset: int
    references: tuple[int, ...]


def open_device() -> int:
    """A descriptor whose pages are given up with it. Errors: OSError."""
    return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)


def lend(fd: int, domid: int, count: int) -> Lent:
    """``count`` new pages for ``domid``, writable for it. Errors: OSError; ENOSPC if they are more than the limit."""
    if not 0 < count <= _MOST:
        raise ValueError(f"{count} pages: must be 1 to {_MOST}")
    argument = bytearray(_ALLOC.pack(domid, _WRITABLE, count, 0) + bytes(4 * max(count, 2)))
    fcntl.ioctl(fd, ALLOC, argument)
    index = _ALLOC.unpack_from(argument)[3]
    return Lent(index, struct.unpack_from(f"={count}I", argument, _ALLOC.size))


def take_back(fd: int, lent: Lent) -> None:
    """Gives the pages up, once they are unmapped here too. Errors: OSError."""
    fcntl.ioctl(fd, DEALLOC, bytearray(_DEALLOC.pack(lent.offset, len(lent.references))))


def clear_at_end(fd: int, lent: Lent, byte: int, port: int) -> None:
    """Has the kernel store 0 at ``byte`` and notify by ``port`` when the page ceases to be held here, however."""
    argument = UNMAP_NOTIFY.pack(lent.offset + byte, CLEAR_BYTE | SEND_EVENT, port)
    fcntl.ioctl(fd, SET_UNMAP_NOTIFY, bytearray(argument))
