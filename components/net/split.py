"""One read of the TUN -> the packets that a NIC without offloads would have put on the wire.

The kernel hands over up to 64 KB of one flow at a time with a virtio_net_hdr before it: TCP (TSO) and UDP (USO) super-
packets, and single packets whose checksum is still to be filled in. What comes out is what the kernel's own
segmentation makes of them (net/ipv4/af_inet.c inet_gso_segment, tcp_offload.c, udp_offload.c), to the byte.

A superpacket's checksum field holds the sum of the pseudo-header for the length of the whole. Its addresses stay the
same for every segment (with a routing header too, where the last destination is not the one in the IP header), so each
segment's own sum follows from that field by exchanging the length.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from components.net import virtio
from components.net.checksum import MODULUS, folds, total
from components.net.groups import LARGEST, most

_FIN_PSH: Final = 0x09
_CWR: Final = 0x80
_SHORTEST: Final = 20  # bytes: an IPv4 header


class Malformed(ValueError):
    """A read whose virtio_net_hdr does not fit the packet behind it."""


def split(read: memoryview) -> list[tuple[bytes, int]]:
    """The packets in ``read`` (virtio_net_hdr and what follows it), as (packets back to back, bytes of each).

    Only the last packet of each pair may be shorter. There is more than one pair if they do not fit one group.
    Errors: Malformed.
    """
    if not virtio.HEADER.size + _SHORTEST <= len(read) <= virtio.HEADER.size + LARGEST:
        raise Malformed(f"{len(read)} bytes")
    flags, gso_type, _hdr_len, gso_size, csum_start, csum_offset = virtio.HEADER.unpack_from(read)
    packet = bytes(read[virtio.HEADER.size :])
    if gso_type == virtio.GSO_NONE:
        if flags & virtio.NEEDS_CSUM:
            packet = _with_checksum(packet, csum_start, csum_start + csum_offset)
        return [(packet, len(packet))]
    if not flags & virtio.NEEDS_CSUM or not gso_size:
        raise Malformed("a superpacket without checksum or segment size")
    transport, version = _KINDS.get(gso_type & ~virtio.GSO_ECN, (0, 0))
    if not transport or version not in (0, packet[0] >> 4):
        raise Malformed(f"segmentation type {gso_type} for IP version {packet[0] >> 4}")
    _check_ip(packet, csum_start)
    # hdr_len is the length of the skb's linear part, which may be anything: the headers are measured instead
    make = _tcp if transport == virtio.TCP else _udp
    return make(packet, csum_start, csum_offset, gso_size)


_KINDS: Final = {
    virtio.GSO_TCPV4: (virtio.TCP, 4),
    virtio.GSO_TCPV6: (virtio.TCP, 6),
    virtio.GSO_UDP_L4: (virtio.UDP, 0),
}


def _with_checksum(packet: bytes, start: int, field: int) -> bytes:
    if start >= field or field + 2 > len(packet):
        raise Malformed(f"checksum at {field} from {start} in {len(packet)} bytes")
    # As skb_checksum_help: the field already holds the pseudo-header's sum, and zero is written as 0xFFFF
    check = -total(packet[start:]) % MODULUS or MODULUS
    return b"".join((packet[:field], check.to_bytes(2, "big"), packet[field + 2 :]))


def _check_ip(packet: bytes, start: int) -> None:
    """Whether the transport header at ``start`` may follow the IP header."""
    if packet[0] >> 4 == 4:
        fits = start == 4 * (packet[0] & 15) >= 20 and int.from_bytes(packet[2:4], "big") == len(packet)
    else:
        fits = packet[0] >> 4 == 6 and start >= 40 and int.from_bytes(packet[4:6], "big") == len(packet) - 40
    if not fits:
        raise Malformed(f"an IP header that does not fit {len(packet)} bytes with a transport header at {start}")


@lru_cache(maxsize=64)
def _ip4_struct(start: int) -> struct.Struct:
    return struct.Struct(f"!2sHH4sH{start - 12}s")


def _ip_headers(packet: bytes, start: int, count: int, length: int, last: int) -> list[bytes]:
    """The IP headers of ``count`` segments that have ``length`` bytes behind them, the last one ``last``."""
    if packet[0] >> 4 == 6:
        extra = start - 40
        head, tail = packet[:4], packet[6:start]
        full = b"".join((head, (extra + length).to_bytes(2, "big"), tail))
        return [full] * (count - 1) + [b"".join((head, (extra + last).to_bytes(2, "big"), tail))]
    pack = _ip4_struct(start).pack
    version, middle, rest = packet[:2], packet[6:10], packet[12:start]
    ident = int.from_bytes(packet[4:6], "big")
    size = start + length
    sum_ = total(version) + total(middle) + total(rest) + size
    headers = []
    for _ in range(count - 1):
        headers.append(pack(version, size, ident, middle, -(sum_ + ident) % MODULUS, rest))
        ident = (ident + 1) & 0xFFFF
    check = -(sum_ - size + start + last + ident) % MODULUS
    headers.append(pack(version, start + last, ident, middle, check, rest))
    return headers


@lru_cache(maxsize=64)
def _tcp_struct(length: int) -> struct.Struct:
    return struct.Struct(f"!4sI5sB2sH{length - 18}s")


def _tcp(packet: bytes, start: int, csum_offset: int, mss: int) -> list[tuple[bytes, int]]:
    end = len(packet)
    if csum_offset != virtio.TCP_CHECK or start + 20 > end:
        raise Malformed("no TCP header")
    header = 4 * (packet[start + 12] >> 4)
    payload = start + header
    if header < 20 or payload >= end:
        raise Malformed(f"a TCP header of {header} bytes before nothing")
    count = -(-(end - payload) // mss)
    last = end - payload - (count - 1) * mss  # bytes of payload in the last segment
    ip = _ip_headers(packet, start, count, header + mss, header + last)

    ports, sequence = packet[start : start + 4], int.from_bytes(packet[start + 4 : start + 8], "big")
    ack, flags, window = packet[start + 8 : start + 13], packet[start + 13], packet[start + 14 : start + 16]
    partial, rest = int.from_bytes(packet[start + 16 : start + 18], "big"), packet[start + 18 : payload]
    # What all segments share: pseudo-header and TCP header without length, sequence number and flags. Data offset and
    # flags are one 16-bit word, which ``ack`` cuts in two.
    shared = partial - (end - start) + total(ports) + total(ack) + total(window) + total(rest)

    pack = _tcp_struct(header).pack
    parts: list[bytes] = []
    plan = folds(mss)
    of = header + mss
    now = flags & ~_FIN_PSH if count > 1 else flags
    base = shared + of + now
    for i in range(count):
        if i == count - 1:
            now = flags if count == 1 else flags & ~_CWR
            base = shared + header + last + now
        data = packet[payload : payload + mss]
        number = int.from_bytes(data, "little")
        for shift, mask in plan:
            number = (number >> shift) + (number & mask)
        check = -(base + sequence + (number << 8)) % MODULUS
        parts += ip[i], pack(ports, sequence, ack, now, window, check, rest), data
        payload += mss
        sequence = (sequence + mss) & 0xFFFFFFFF
        if i == 0 and flags & _CWR:
            now &= ~_CWR
            base = shared + of + now
    return _pairs(parts, start + of, end)


def _udp(packet: bytes, start: int, csum_offset: int, mss: int) -> list[tuple[bytes, int]]:
    end = len(packet)
    payload = start + 8
    if csum_offset != virtio.UDP_CHECK or payload >= end:
        raise Malformed("no UDP header before data")
    if int.from_bytes(packet[start + 4 : start + 6], "big") != end - start:
        raise Malformed("a UDP length that does not fit")
    count = -(-(end - payload) // mss)
    last = end - payload - (count - 1) * mss
    ip = _ip_headers(packet, start, count, 8 + mss, 8 + last)
    ports = packet[start : start + 4]
    shared = int.from_bytes(packet[start + 6 : payload], "big") - (end - start) + total(ports)
    parts: list[bytes] = []
    for i in range(count):
        data = packet[payload + i * mss : payload + (i + 1) * mss]
        length = 8 + len(data)
        check = -(shared + 2 * length + total(data)) % MODULUS or MODULUS  # zero would say "no checksum" (RFC 768)
        parts += ip[i], ports + struct.pack("!HH", length, check), data
    return _pairs(parts, payload + mss, end)


def _pairs(parts: list[bytes], size: int, whole: int) -> list[tuple[bytes, int]]:
    """Three parts a packet, joined into blobs of no more packets of ``size`` bytes than a group may hold."""
    if len(parts) == 3:  # a superpacket of one segment
        return [(b"".join(parts), whole)]
    step = 3 * most(size)
    return [_pair(parts[i : i + step], size) for i in range(0, len(parts), step)]


def _pair(parts: list[bytes], size: int) -> tuple[bytes, int]:
    blob = b"".join(parts)
    return blob, min(size, len(blob))
