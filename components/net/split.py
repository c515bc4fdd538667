"""One read of the TUN -> the packets that a NIC without offloads would have put on the wire.

The kernel hands over up to 64 KB of one flow at a time with a virtio_net_hdr before it: TCP (TSO) and UDP (USO) super-
packets, and single packets whose checksum is still to be filled in. What comes out is what the kernel's own
segmentation makes of them (net/ipv4/af_inet.c inet_gso_segment, tcp_offload.c, udp_offload.c), to the byte.

A superpacket's checksum field holds the sum of the pseudo-header for the length of the whole. Its addresses stay the
same for every segment (with a routing header too, where the last destination is not the one in the IP header), so each
segment's own sum follows from that field by exchanging the length.
"""

from __future__ import annotations

from typing import Final

from components.net import twin, virtio
from components.net.checksum import MODULUS
from components.net.groups import LARGEST, most

_MOST_MADE: Final = 1 << 20  # bytes: sixteen times the largest read; who makes more of one has all but headers in it
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
    return cut(read[virtio.HEADER.size :], flags, gso_type, gso_size, csum_start, csum_offset)


def cut(
    packet: bytes | memoryview, flags: int, gso_type: int, gso_size: int, csum_start: int, csum_offset: int
) -> list[tuple[bytes, int]]:
    """As ``split``, of a packet and the fields of its virtio_net_hdr, offsets counted from the packet's first byte. The
    one copy that is made of it is the packets.
    """
    if gso_type == virtio.GSO_NONE:
        if flags & virtio.NEEDS_CSUM:
            packet = _with_checksum(packet, csum_start, csum_start + csum_offset)
        return [(bytes(packet), len(packet))]
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


def _with_checksum(packet: bytes | memoryview, start: int, field: int) -> bytes:
    if not 0 <= start < field or field + 2 > len(packet):
        raise Malformed(f"checksum at {field} from {start} in {len(packet)} bytes")
    # As skb_checksum_help: the field already holds the pseudo-header's sum, and zero is written as 0xFFFF
    check = -twin.total(packet[start:]) % MODULUS or MODULUS
    return b"".join((packet[:field], check.to_bytes(2, "big"), packet[field + 2 :]))


def _check_ip(packet: bytes | memoryview, start: int) -> None:
    """Whether the transport header at ``start`` may follow the IP header."""
    if packet[0] >> 4 == 4:
        fits = start == 4 * (packet[0] & 15) >= 20 and int.from_bytes(packet[2:4], "big") == len(packet)
    else:
        fits = packet[0] >> 4 == 6 and start >= 40 and int.from_bytes(packet[4:6], "big") == len(packet) - 40
    if not fits:
        raise Malformed(f"an IP header that does not fit {len(packet)} bytes with a transport header at {start}")


def _tcp(packet: bytes | memoryview, start: int, csum_offset: int, mss: int) -> list[tuple[bytes, int]]:
    end = len(packet)
    if csum_offset != virtio.TCP_CHECK or start + 20 > end:
        raise Malformed("no TCP header")
    header = 4 * (packet[start + 12] >> 4)
    payload = start + header
    if header < 20 or payload >= end:
        raise Malformed(f"a TCP header of {header} bytes before nothing")
    mss = _bounded(mss, payload, end)
    return _pairs(twin.tcp_segments(packet, start, payload, mss), payload + mss)


def _udp(packet: bytes | memoryview, start: int, csum_offset: int, mss: int) -> list[tuple[bytes, int]]:
    end = len(packet)
    payload = start + 8
    if csum_offset != virtio.UDP_CHECK or payload >= end:
        raise Malformed("no UDP header before data")
    if int.from_bytes(packet[start + 4 : start + 6], "big") != end - start:
        raise Malformed("a UDP length that does not fit")
    mss = _bounded(mss, payload, end)
    return _pairs(twin.udp_segments(packet, start, mss), payload + mss)


def _bounded(mss: int, payload: int, end: int) -> int:
    """The segment size, at most what there is. Errors: Malformed for one that makes a read into very much more."""
    mss = min(mss, end - payload)
    if -(-(end - payload) // mss) * (payload + mss) > _MOST_MADE:
        raise Malformed(f"segments of {mss} bytes behind headers of {payload}")
    return mss


def _pairs(packets: bytes, size: int) -> list[tuple[bytes, int]]:
    """Packets of ``size`` bytes back to back, cut into blobs of no more than a group may hold."""
    step = most(size) * size
    blobs = [packets[at : at + step] for at in range(0, len(packets), step)]
    return [(blob, min(size, len(blob))) for blob in blobs]
