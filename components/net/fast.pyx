# cython: language_level=3, boundscheck=True, wraparound=False
"""The compiled twin of loops.py: the same functions, the same bytes, about twenty times as fast.

Every access is checked. Single bytes are read and written through memoryviews, whose bounds Cython checks; whole ranges
only by `_sum`, `_copy` and `_same`, each of which checks the range before it takes a pointer, and keeps none.
"""

import sys

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

if sys.byteorder != "little":
    raise ImportError("the sums are written for little-endian machines")

cdef enum:
    MODULUS = 0xFFFF
    TCP = 6
    UDP = 17
    TCP_CHECK = 16  # offset of the checksum in a TCP header
    UDP_CHECK = 6
    FIN_PSH = 0x09
    CWR = 0x80


# Ranges --------------------------------------------------------------------------------------------------------------


cdef int _check(Py_ssize_t start, Py_ssize_t length, Py_ssize_t bytes_) except -1:
    """Errors: IndexError unless ``length`` bytes from ``start`` on lie within ``bytes_``."""
    if start < 0 or length < 0 or length > bytes_ or start > bytes_ - length:
        raise IndexError(f"{length} bytes at {start} of {bytes_}")
    return 0


cdef uint64_t _sum(const uint8_t[::1] data, Py_ssize_t start, Py_ssize_t length) except? 0xFFFF:
    """The one's complement sum of a range in big-endian words, modulo 65535: see checksum.py.

    Added up as 32-bit words in 64 bits: 2^32, too, leaves 1 when divided by 65535, and 2^32 words would fit.
    """
    cdef uint64_t sum_ = 0
    cdef uint32_t word
    cdef uint16_t half
    cdef Py_ssize_t at = 0
    cdef const uint8_t *p
    _check(start, length, data.shape[0])
    if length == 0:
        return 0
    p = &data[start]
    while at + 4 <= length:
        memcpy(&word, p + at, 4)  # a load that need not be aligned
        sum_ += word
        at += 4
    if at + 2 <= length:
        memcpy(&half, p + at, 2)
        sum_ += half
        at += 2
    if at < length:
        sum_ += p[at]
    return (sum_ % MODULUS << 8) % MODULUS  # times 2^8 swaps the bytes of a word, modulo 65535


cdef int _copy(uint8_t[::1] out, Py_ssize_t to, const uint8_t[::1] data, Py_ssize_t start, Py_ssize_t length) except -1:
    """Copies a range of ``data`` to ``to``; the two do not overlap."""
    _check(to, length, out.shape[0])
    _check(start, length, data.shape[0])
    if length:
        memcpy(&out[to], &data[start], length)
    return 0


cdef int _same(const uint8_t[::1] data, Py_ssize_t one, Py_ssize_t other, Py_ssize_t start, Py_ssize_t stop) except -1:
    """Whether the bytes from ``start`` to ``stop`` are the same in the packets at ``one`` and at ``other``."""
    _check(one + start, stop - start, data.shape[0])
    _check(other + start, stop - start, data.shape[0])
    return start == stop or memcmp(&data[one + start], &data[other + start], stop - start) == 0


# Fields, in network byte order ---------------------------------------------------------------------------------------


cdef uint64_t _get16(const uint8_t[::1] data, Py_ssize_t at) except? 0xFFFF:
    return data[at] << 8 | data[at + 1]


cdef uint64_t _get32(const uint8_t[::1] data, Py_ssize_t at) except? 0xFFFF:
    return _get16(data, at) << 16 | _get16(data, at + 2)


cdef int _put16(uint8_t[::1] out, Py_ssize_t at, uint64_t value) except -1:
    out[at] = value >> 8 & 0xFF
    out[at + 1] = value & 0xFF
    return 0


cdef int _put32(uint8_t[::1] out, Py_ssize_t at, uint64_t value) except -1:
    _put16(out, at, value >> 16 & 0xFFFF)
    _put16(out, at + 2, value & 0xFFFF)
    return 0


cdef uint64_t _negative(uint64_t sum_):
    """What makes ``sum_`` a multiple of 65535, below it."""
    return (MODULUS - sum_ % MODULUS) % MODULUS


# The loops -----------------------------------------------------------------------------------------------------------


def total(const uint8_t[::1] data not None):
    """See checksum.py."""
    return _sum(data, 0, data.shape[0])


def tcp_segments(const uint8_t[::1] packet not None, Py_ssize_t start, Py_ssize_t payload, Py_ssize_t mss):
    """See loops.py."""
    if start < 0 or payload < 0 or payload - start < 20 or (payload - start) % 4:
        raise ValueError("no TCP header")
    return _segments(packet, start, payload, mss, TCP)


def udp_segments(const uint8_t[::1] packet not None, Py_ssize_t start, Py_ssize_t mss):
    """See loops.py."""
    # Nothing is added to a number that may be any; a payload at 0 is refused
    return _segments(packet, start, start + 8 if start <= packet.shape[0] else 0, mss, UDP)


cdef bytes _segments(const uint8_t[::1] packet, Py_ssize_t start, Py_ssize_t payload, Py_ssize_t mss, int protocol):
    cdef Py_ssize_t end = packet.shape[0]
    cdef int version = packet[0] >> 4
    cdef bint is_ip4 = version == 4
    if not (
        version in (4, 6)
        and (20 if is_ip4 else 40) <= start < payload < end <= 0xFFFF
        and 0 < mss <= end - payload
    ):
        raise ValueError(f"{end} bytes with headers of {start} and {payload} bytes, in segments of {mss}")
    cdef Py_ssize_t count = (end - payload + mss - 1) // mss
    cdef bytes result = PyBytes_FromStringAndSize(NULL, end + (count - 1) * payload)
    cdef uint8_t[::1] out = <uint8_t[:end + (count - 1) * payload]> <uint8_t *> PyBytes_AS_STRING(result)

    cdef Py_ssize_t field = start + (TCP_CHECK if protocol == TCP else UDP_CHECK)
    cdef uint64_t ident = _get16(packet, 4)
    cdef uint64_t sequence = _get32(packet, start + 4)
    cdef uint64_t partial = _get16(packet, field)
    cdef uint8_t flags = packet[start + 13] if protocol == TCP else 0
    cdef uint8_t clear
    cdef Py_ssize_t i, data, length, at = 0
    cdef uint64_t check
    for i in range(count):
        data = min(mss, end - payload - i * mss)
        length = payload - start + data  # of the segment, without the IP header
        _copy(out, at, packet, 0, payload)
        _copy(out, at + payload, packet, payload + i * mss, data)
        if is_ip4:
            _put16(out, at + 2, start + length)
            _put16(out, at + 4, (ident + i) & 0xFFFF)
            _put16(out, at + 10, 0)
            _put16(out, at + 10, _negative(_sum(out, at, start)))
        else:
            _put16(out, at + 4, start - 40 + length)
        if protocol == TCP:
            clear = 0 if i == count - 1 else FIN_PSH  # only the last segment has them,
            if i:
                clear |= CWR  # and only the first one this
            _put32(out, at + start + 4, (sequence + i * mss) & 0xFFFFFFFF)
            out[at + start + 13] = flags & ~clear
        else:
            _put16(out, at + start + 4, length)
        # The field holds the pseudo-header's sum for the length of the whole (2 * MODULUS keeps it positive)
        _put16(out, at + field, 0)
        check = _negative(_sum(out, at + start, length) + partial + 2 * MODULUS - (end - start) + length)
        if protocol == UDP and check == 0:
            check = MODULUS  # zero would say "no checksum" (RFC 768)
        _put16(out, at + field, check)
        at += start + length
    return result


def follow(
    const uint8_t[::1] blob not None,
    Py_ssize_t at,
    Py_ssize_t size,
    int protocol,
    Py_ssize_t start,
    Py_ssize_t header,
    int ident,
    Py_ssize_t most,
):
    """See loops.py."""
    if start not in (20, 40) or protocol not in (TCP, UDP) or ident not in (0, 1):
        raise ValueError(f"not a kind of flow: protocol {protocol} behind {start} bytes")
    if (header < start + 20 if protocol == TCP else header != start + 8) or size <= header or at < size:
        raise ValueError(f"headers of {header} bytes in packets of {size}, at {at}")
    cdef Py_ssize_t first = at
    while most > 0 and at <= blob.shape[0] - size and _follows(blob, at, size, protocol, start, header, ident):
        at += size
        most -= 1
    if at == first:
        return b""
    cdef Py_ssize_t count = (at - first) // size
    cdef Py_ssize_t each = size - header
    cdef bytes result = PyBytes_FromStringAndSize(NULL, count * each)
    cdef uint8_t[::1] out = <uint8_t[:count * each]> <uint8_t *> PyBytes_AS_STRING(result)
    cdef Py_ssize_t i
    for i in range(count):
        _copy(out, i * each, blob, first + i * size + header, each)
    return result


cdef int _follows(
    const uint8_t[::1] blob,
    Py_ssize_t at,
    Py_ssize_t size,
    int protocol,
    Py_ssize_t start,
    Py_ssize_t header,
    int ident,
) except -1:
    """Whether the packet at ``at`` continues the one before it, and its checksums are right.

    Of its headers, all but the checksums are the same or one step on. A step that overflows its field ends the run.
    """
    cdef Py_ssize_t before = at - size
    if start == 20:
        if not (
            _same(blob, before, at, 0, 4)
            and _get16(blob, before + 4) + ident == _get16(blob, at + 4)
            and _same(blob, before, at, 6, 10)
            and _same(blob, before, at, 12, start + 4)
            and _sum(blob, at, 20) == 0
        ):
            return False
    elif not _same(blob, before, at, 0, start + 4):
        return False
    if protocol == TCP:
        if not (
            _get32(blob, before + start + 4) + (size - header) == _get32(blob, at + start + 4)
            and _same(blob, before, at, start + 8, start + TCP_CHECK)
            and _same(blob, before, at, start + TCP_CHECK + 2, header)
        ):
            return False
    elif not _same(blob, before, at, start + 4, start + UDP_CHECK):
        return False
    # The transport's sum covers the addresses, the protocol and the length
    cdef Py_ssize_t addresses = 12 if start == 20 else 8
    return (_sum(blob, at + addresses, size - addresses) + protocol + size - start) % MODULUS == 0
