"""/dev/xen/gntdev: pages of other domains that they have granted to this one.

Source: Linux, include/uapi/xen/gntdev.h and drivers/xen/gntdev.c. A mapped page stays what it is for as long as it is
mapped, even if the domain that granted it is destroyed: Xen keeps it, and what is left of that domain, until then.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from appliance.xen.gntalloc import CLEAR_BYTE, SEND_EVENT, UNMAP_NOTIFY
from appliance.xen.ioctl import request

DEVICE: Final = "/dev/xen/gntdev"

MAP: Final = request("G", 0, 24)
UNMAP: Final = request("G", 1, 16)
SET_UNMAP_NOTIFY: Final = request("G", 7, 16)

_MAP: Final = struct.Struct("=I4xQ")  # count; out: index. Pairs of domain and grant reference follow
_UNMAP: Final = struct.Struct("=QI4x")


class Borrowed(NamedTuple):
    """Pages that were named together: where they are mmapped, which is when Xen is asked for them."""

    offset: int
    pages: int


def open_device() -> int:
    """A descriptor whose pages are let go with it. Errors: OSError."""
    return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)


def borrow(fd: int, domid: int, references: Sequence[int]) -> Borrowed:
    """Names the pages that ``domid`` granted by ``references``. Errors: OSError."""
    pairs = [number for reference in references for number in (domid, reference)]
    argument = bytearray(_MAP.pack(len(references), 0) + struct.pack(f"={len(pairs)}I", *pairs))
    fcntl.ioctl(fd, MAP, argument)
    return Borrowed(_MAP.unpack_from(argument)[1], len(references))


def give_back(fd: int, borrowed: Borrowed) -> None:
    """Lets the pages go, once they are no longer mmapped. Errors: OSError."""
    fcntl.ioctl(fd, UNMAP, bytearray(_UNMAP.pack(*borrowed)))


def clear_at_end(fd: int, borrowed: Borrowed, byte: int, port: int) -> None:
    """Has the kernel store 0 at ``byte`` and notify by ``port`` when the pages cease to be mapped here, however."""
    argument = UNMAP_NOTIFY.pack(borrowed.offset + byte, CLEAR_BYTE | SEND_EVENT, port)
    fcntl.ioctl(fd, SET_UNMAP_NOTIFY, bytearray(argument))
