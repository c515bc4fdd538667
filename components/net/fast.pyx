# cython: language_level=3, boundscheck=True, wraparound=False
"""The compiled twin of loops.py and runs.py: the same functions, the same bytes, about twenty times as fast.

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
    ACK = 0x10
    ECE = 0x40
    CWR = 0x80
    DF = 0x40  # in the first byte of the fragment field
    MOST_SEGMENTS = 64
    LARGEST = 65535  # bytes of a superpacket
    VNET = 10  # bytes of a virtio_net_hdr
    NEEDS_CSUM = 1
    GSO_TCPV4 = 1
    GSO_TCPV6 = 4
    GSO_UDP_L4 = 5


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


# Joining: see runs.py -------------------------------------------------------------------------------------------------


cdef struct Run:
    # A superpacket in the making, from its first packet's headers
    Py_ssize_t first  # where that packet begins
    Py_ssize_t size  # its bytes, and those of all but the last
    Py_ssize_t start  # of the transport header
    Py_ssize_t header  # bytes of all headers
    int protocol
    int ident  # by how much the identification goes up
    Py_ssize_t count  # packets
    Py_ssize_t payload  # bytes of all payloads
    uint8_t flags  # of a last packet, in which they may be more
    bint is_open


cdef bint _begins(const uint8_t[::1] blob, Py_ssize_t at, Py_ssize_t size, bint udp, Run *run) except -1:
    """Whether others may be joined to the packet of ``size`` bytes at ``at``."""
    cdef Py_ssize_t transport = 0
    if size < 28:
        return False
    if blob[at] == 0x45:
        run.start, run.protocol, run.ident = 20, blob[at + 9], 1
        if blob[at + 6] & ~DF or blob[at + 7] or _get16(blob, at + 2) != <uint64_t> size:
            return False
    else:
        run.start, run.protocol, run.ident = 40, blob[at + 6], 0
        if blob[at] >> 4 != 6 or size < 40 or _get16(blob, at + 4) != <uint64_t> (size - 40):
            return False
    if run.protocol == TCP:
        if size < run.start + 20 or blob[at + run.start + 13] & ~ECE != ACK:
            return False
        transport = 4 * (blob[at + run.start + 12] >> 4)
        if transport < 20:
            return False
    elif run.protocol == UDP and udp:
        if size < run.start + 8 or _get16(blob, at + run.start + 4) != <uint64_t> (size - run.start):
            return False
        if not blob[at + run.start + 6] and not blob[at + run.start + 7]:
            return False
        transport = 8
    else:
        return False
    run.first, run.size, run.header = at, size, run.start + transport
    run.count, run.payload, run.flags, run.is_open = 1, size - run.header, 0, True
    return run.header < size


cdef bint _sound(const uint8_t[::1] blob, Py_ssize_t at, Py_ssize_t size, Run *run) except -1:
    """Whether the checksums of a packet's IP and transport headers are right."""
    # The transport's sum covers the addresses, the protocol and the length
    cdef Py_ssize_t addresses = 12 if run.start == 20 else 8
    if run.start == 20 and _sum(blob, at, 20) != 0:
        return False
    return (_sum(blob, at + addresses, size - addresses) + run.protocol + size - run.start) % MODULUS == 0


cdef bint _takes(const uint8_t[::1] blob, Py_ssize_t at, Py_ssize_t size, Run *run) except -1:
    """Whether the packet of ``size`` bytes at ``at``, behind the run's last one, is its next, and sound; it belongs to
    it then. Of its headers, all but the checksums are the same or one step on. A step that overflows its field ends the
    run, and so does a shorter packet.
    """
    cdef Py_ssize_t before = at - run.size
    cdef Py_ssize_t start = run.start
    cdef Py_ssize_t missing = run.size - size
    cdef int ident = run.ident
    if missing:
        run.is_open = False
    if size <= run.header or run.payload + size > LARGEST:
        return False
    if start == 20:
        if not (
            _same(blob, before, at, 0, 2)
            and _get16(blob, before + 2) == _get16(blob, at + 2) + missing
            and _same(blob, before, at, 6, 10)
            and _same(blob, before, at, 12, start + 4)
        ):
            return False
        if _get16(blob, before + 4) + ident != _get16(blob, at + 4):
            # Atomic datagrams (RFC 6864) whose identification stays the same
            if run.count > 1 or not blob[at + 6] & DF or not _same(blob, before, at, 4, 6):
                return False
            ident = 0
    elif not (
        _same(blob, before, at, 0, 4)
        and _get16(blob, before + 4) == _get16(blob, at + 4) + missing
        and _same(blob, before, at, 6, start + 4)
    ):
        return False
    if run.protocol == TCP:
        if not (
            _get32(blob, before + start + 4) + (run.size - run.header) == _get32(blob, at + start + 4)
            and _same(blob, before, at, start + 8, start + 13)
            and blob[before + start + 13] & ~FIN_PSH == blob[at + start + 13] & ~FIN_PSH
            and _same(blob, before, at, start + 14, start + TCP_CHECK)
            and _same(blob, before, at, start + TCP_CHECK + 2, run.header)
        ):
            return False
    elif _get16(blob, before + start + 4) != _get16(blob, at + start + 4) + missing:
        return False
    elif not blob[at + start + UDP_CHECK] and not blob[at + start + UDP_CHECK + 1]:
        return False  # without a checksum, whatever its sum
    if not _sound(blob, at, size, run):
        return False
    run.ident = ident
    run.count += 1
    run.payload += size - run.header
    if run.protocol == TCP and blob[at + start + 13] & FIN_PSH:
        run.flags = blob[at + start + 13]
        run.is_open = False
    elif run.count == MOST_SEGMENTS:
        run.is_open = False
    return True


cdef bytes _alone(const uint8_t[::1] blob, Py_ssize_t at, Py_ssize_t size):
    cdef bytes result = PyBytes_FromStringAndSize(NULL, VNET + size)
    cdef uint8_t[::1] out = <uint8_t[:VNET + size]> <uint8_t *> PyBytes_AS_STRING(result)
    out[:VNET] = 0
    _copy(out, VNET, blob, at, size)
    return result


cdef bytes _joined(const uint8_t[::1] blob, Run *run):
    """What to write for the whole run."""
    if run.count == 1:
        return _alone(blob, run.first, run.size)
    cdef Py_ssize_t transport = run.header - run.start + run.payload
    cdef Py_ssize_t room = VNET + run.header + run.payload
    cdef Py_ssize_t each = run.size - run.header
    cdef Py_ssize_t check = TCP_CHECK if run.protocol == TCP else UDP_CHECK
    cdef Py_ssize_t addresses = 12 if run.start == 20 else 8
    cdef Py_ssize_t at, data, i
    cdef uint64_t pseudo
    cdef uint16_t[4] fields
    cdef bytes result = PyBytes_FromStringAndSize(NULL, room)
    cdef uint8_t[::1] out = <uint8_t[:room]> <uint8_t *> PyBytes_AS_STRING(result)
    cdef uint8_t[::1] packet = out[VNET:]
    _copy(packet, 0, blob, run.first, run.header)
    at = run.header
    for i in range(run.count):
        data = min(each, run.payload - i * each)
        _copy(packet, at, blob, run.first + i * run.size + run.header, data)
        at += data
    if run.start == 20:
        _put16(packet, 2, 20 + transport)
        _put16(packet, 10, 0)
        _put16(packet, 10, _negative(_sum(packet, 0, 20)))
    else:
        _put16(packet, 4, transport)
    if run.protocol == TCP:
        packet[run.start + 13] |= run.flags
        out[1] = GSO_TCPV4 if run.start == 20 else GSO_TCPV6
    else:
        _put16(packet, run.start + 4, transport)
        out[1] = GSO_UDP_L4
    # The checksum field holds the pseudo-header's sum; the kernel completes it if the packet leaves by a wire
    pseudo = (_sum(packet, addresses, run.start - addresses) + run.protocol + transport) % MODULUS
    _put16(packet, run.start + check, pseudo if pseudo else MODULUS)
    out[0] = NEEDS_CSUM
    fields[0], fields[1], fields[2], fields[3] = run.header, each, run.start, check
    memcpy(&out[2], fields, 8)
    return result


def join(const uint8_t[::1] blob not None, Py_ssize_t size, bint udp):
    """See runs.py."""
    cdef Py_ssize_t end = blob.shape[0]
    cdef Py_ssize_t at, item
    cdef list buffers = []
    cdef Py_ssize_t bad = 0
    cdef bint has_run = False
    cdef Run run
    if not end or size < 1:
        raise ValueError(f"{end} bytes in packets of {size}")
    if end <= size:
        return [_alone(blob, 0, end)], 0
    at = 0
    while at < end:
        item = min(size, end - at)
        if has_run and run.is_open and _takes(blob, at, item, &run):
            at += item
            continue
        if has_run:
            buffers.append(_joined(blob, &run))
        has_run = _begins(blob, at, item, udp, &run)
        if has_run and not _sound(blob, at, item, &run):
            bad += 1
            has_run = False
        if not has_run:
            buffers.append(_alone(blob, at, item))
        at += item
    if has_run:
        buffers.append(_joined(blob, &run))
    return buffers, bad
