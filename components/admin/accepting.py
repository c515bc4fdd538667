"""accept4(2) of a connection that does not block: Python's own ``accept`` makes it so by another call that the seal
refuses (ioctl FIONBIO, which could as well change an event that peers share).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

_FLAGS: Final = 0o4000 | 0o2000000  # SOCK_NONBLOCK, SOCK_CLOEXEC
_AF_INET: Final = 2
_AF_INET6: Final = 10
_ADDRESS_BYTES: Final = 128  # struct sockaddr_storage

_libc: Final = ctypes.CDLL(None, use_errno=True)
_accept4: Final = _libc.accept4
_accept4.restype = ctypes.c_int
# Before the seal: the first call of a foreign function may still look something up
_buffer: Final = ctypes.create_string_buffer(_ADDRESS_BYTES)
_length: Final = ctypes.c_uint32(0)


class Accepted(NamedTuple):
    """A connection, and the address it comes from: 4 or 16 bytes."""

    fd: int
    address: bytes


def accept(listener: int) -> Accepted | None:
    """The next connection; None if none waits. Errors: OSError, also of one that ended before it was accepted."""
    _length.value = _ADDRESS_BYTES
    fd: int = _accept4(listener, ctypes.byref(_buffer), ctypes.byref(_length), _FLAGS)
    if fd < 0:
        number = ctypes.get_errno()
        if number == errno.EAGAIN:
            return None
        raise OSError(number, os.strerror(number))
    raw = _buffer.raw
    (family,) = struct.unpack_from("=H", raw)
    if family == _AF_INET:
        return Accepted(fd, raw[4:8])
    return Accepted(fd, raw[8:24] if family == _AF_INET6 else bytes(4))
