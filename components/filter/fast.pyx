# cython: language_level=3, boundscheck=True, wraparound=False
"""The compiled twin of uniform.py's `run`: the same answer, from one walk over the packets.

Whole ranges are read only by `_same`, which checks them before it takes a pointer, and keeps none.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

cdef enum:
    MOST = 64
    SYN_FIN_RST_ACK = 0x17
    ACK = 0x10


cdef int _same(const uint8_t[::1] blob, Py_ssize_t one, Py_ssize_t other, Py_ssize_t length) except -1:
    """Errors: IndexError for a range that is not all there."""
    if not 0 <= one <= other or not 0 < length <= blob.shape[0] - other:
        raise IndexError(f"{length} bytes at {one} and {other} of {blob.shape[0]}")
    return memcmp(&blob[one], &blob[other], length) == 0


def run(const uint8_t[::1] blob not None, Py_ssize_t start, Py_ssize_t size, bint is_tcp):
    """See uniform.py."""
    cdef Py_ssize_t at = start
    cdef Py_ssize_t count = 1
    cdef Py_ssize_t most, flags
    cdef bint is_4
    if start < 0 or size < 24 or size & 3 or start & 3 or blob.shape[0] - start < 2 * size:
        return 1
    is_4 = blob[start] >> 4 == 4
    flags = 33 if is_4 else 53
    if size <= flags if is_tcp else not is_4 and size < 44:
        return 1
    most = min(<Py_ssize_t> MOST, (blob.shape[0] - start) // size)
    while count < most:
        at += size
        if is_4:
            if not (
                _same(blob, start, at, 4)
                and _same(blob, start + 6, at + 6, 4)
                and _same(blob, start + 12, at + 12, 12)
            ):
                break
        elif not _same(blob, start, at, 44):
            break
        if is_tcp and (
            blob[at + flags - 1] != blob[start + flags - 1] or blob[at + flags] & SYN_FIN_RST_ACK != ACK
        ):
            break
        count += 1
    return count
