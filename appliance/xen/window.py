"""A window: a piece of address space that stays where it is while what is to be seen in it changes.

Shared pages come and go with a peer, and whoever looks at them must never look at nothing: a page that is unmapped
under a reader kills it. So a window is reserved once. It shows pages of a device, or, while there are none, zeros of
this process's own. The ``memory`` that was handed out stays good throughout.

``mmap`` of the standard library can map at no fixed place, and takes one more descriptor for each mapping, which a
sealed domain does not get: hence the C library's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

PAGE: Final = mmap.PAGESIZE
_MAP_FIXED: Final = 0x10
_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE
_FAILED: Final = ctypes.c_void_p(-1).value

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)


def _map(address: int | None, size: int, flags: int, fd: int, offset: int, protection: int = _READ_WRITE) -> int:
    result = _libc.mmap(address, size, protection, flags, fd, offset)
    if result == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap: {os.strerror(number)}")
    assert isinstance(result, int)
    return result


class Window:
    """``size`` bytes, whole pages, that show zeros at first. It is never unmapped. Errors: OSError, ValueError."""

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE:
            raise ValueError(f"{size} bytes are not whole pages")
        self._size = size
        self._address = _map(None, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        self.memory: memoryview = memoryview((ctypes.c_ubyte * size).from_address(self._address)).cast("B")

    def show(self, fd: int, offset: int, is_writable: bool = True) -> None:
        """Shows what ``fd`` has at ``offset``. Errors: OSError if it does not; the window then shows zeros."""
        protection = _READ_WRITE if is_writable else mmap.PROT_READ
        try:
            _map(self._address, self._size, mmap.MAP_SHARED | _MAP_FIXED, fd, offset, protection)
        except OSError:
            self.blank()  # what was there is gone whether or not something took its place
            raise

    def blank(self) -> None:
        """Shows zeros, and lets go of what was there."""
        _map(self._address, self._size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED, -1, 0)
