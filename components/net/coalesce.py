"""A group of packets -> as few writes to the TUN as it allows: the kernel's generic receive offload, done here.

Consecutive segments of one TCP flow become one superpacket, UDP datagrams of one flow and size another, under the
rules of the kernel's own GRO (net/core/gro.c, tcp_offload.c, udp_offload.c): all that a receiver could tell apart is
equal (type of service, TTL, DF, addresses, ports, ACK number, window, options with their timestamps), sequence numbers
follow each other, and so do IP identifications, or, with DF, they stay. A superpacket vouches for the checksums in it:
each packet's are verified first, and one that fails goes by itself, as it came, for the receiver to judge.

A packet's headers are compared as one number: what may differ is masked away, and the headers to expect next are the
last ones plus a constant step (one segment on in the sequence number, one on in the identification). A step that
overflows its field matches nothing, and so ends a superpacket early, once in 65536 packets.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

from appliance.vchan.messages import Packets
from components.net import twin, virtio
from components.net.checksum import MODULUS

_MOST_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS of older kernels
_FIN_PSH: Final = 0x09
_ACK: Final = 0x10
_ECE: Final = 0x40
_DONT_FRAGMENT: Final = 0x40


class Writes(NamedTuple):
    """What to write to the TUN in this order, each with its virtio_net_hdr, and how many packets failed a checksum."""

    buffers: list[bytes]
    bad: int


class _Shape(NamedTuple):
    """One kind of headers: how to compare them as a number, and what the transport checksum covers."""

    version: int
    protocol: int
    start: int  # of the transport header
    header: int  # bytes of all headers
    addresses: int  # where the addresses begin: the transport checksum covers all from here
    mask: int  # what must be as expected: all but checksums, FIN and PSH
    ident: int  # one in the IPv4 identification; 0 for IPv6
    sequence: int  # one in the TCP sequence number; 0 for UDP
    length: int  # one in every length field


@lru_cache(maxsize=64)
def _shape(version: int, protocol: int, transport: int) -> _Shape:
    start = 20 if version == 4 else 40
    header = start + transport

    def one(offset: int, size: int = 2) -> int:
        """One, in the field of ``size`` bytes at ``offset``."""
        return int(1 << 8 * (header - offset - size))

    mask = (1 << 8 * header) - 1
    ident = 0
    length = one(4)
    if version == 4:
        mask -= 0xFFFF * one(10)
        ident = one(4)
        length = one(2)
    if protocol == virtio.TCP:
        mask -= 0xFFFF * one(start + virtio.TCP_CHECK) + _FIN_PSH * one(start + 13, 1)
        sequence = one(start + 4, 4)
    else:
        mask -= 0xFFFF * one(start + virtio.UDP_CHECK)
        sequence = 0
        length += one(start + 4)
    return _Shape(version, protocol, start, header, 12 if version == 4 else 8, mask, ident, sequence, length)


def _tcp_length(packet: bytes, start: int) -> int:
    """Bytes of the TCP header of a plain data segment; 0 if it is something else, or the last of its burst."""
    if len(packet) < start + 20 or packet[start + 13] & ~_ECE != _ACK:
        return 0
    length = 4 * (packet[start + 12] >> 4)
    return length if length >= 20 else 0


def _udp_length(packet: bytes, start: int) -> int:
    """8 for a whole UDP datagram with a checksum; 0 for anything else."""
    if len(packet) < start + 8 or int.from_bytes(packet[start + 4 : start + 6], "big") != len(packet) - start:
        return 0
    return 8 if packet[start + 6] or packet[start + 7] else 0


def _first(packet: bytes, udp: bool) -> _Shape | None:
    """The shape of a packet that others may be joined to; None if it has to go alone."""
    size = len(packet)
    if size < 28:
        return None
    if packet[0] == 0x45:
        version, protocol, start = 4, packet[9], 20
        # neither more fragments nor an offset
        whole = not (packet[6] & ~_DONT_FRAGMENT or packet[7]) and int.from_bytes(packet[2:4], "big") == size
    else:
        version, protocol, start = 6, packet[6], 40
        whole = packet[0] >> 4 == 6 and int.from_bytes(packet[4:6], "big") == size - 40
    if not whole:
        return None
    transport = 0
    if protocol == virtio.TCP:
        transport = _tcp_length(packet, start)
    elif protocol == virtio.UDP and udp:
        transport = _udp_length(packet, start)
    if not transport or start + transport >= size:
        return None
    return _shape(version, protocol, transport)


class _Run:
    """A superpacket in the making: its first packet, and the payloads behind it."""

    __slots__ = (
        "_count",
        "_expected",
        "_first",
        "_flags",
        "_ident",
        "_pseudo",
        "_shape",
        "_step",
        "is_open",
        "payloads",
    )

    def __init__(self, packet: bytes, shape: _Shape) -> None:
        number = int.from_bytes(packet[: shape.header], "big")
        self._first = packet
        self._shape = shape
        self._pseudo = shape.protocol + len(packet) - shape.start
        self._step = shape.ident + shape.sequence * (len(packet) - shape.header)
        self._expected = (number & shape.mask) + self._step
        self._flags = 0
        self._ident = 1 if shape.ident else 0  # by how much the identification goes up
        self._count = 1  # packets
        self.payloads: list[bytes] = [packet[shape.header :]]
        self.is_open = self._verified(packet, number)

    def _verified(self, packet: bytes, number: int) -> bool:
        """Whether the checksums of IP and transport headers are right."""
        shape = self._shape
        if shape.version == 4 and (number >> 8 * (shape.header - 20)) % MODULUS:
            return False
        pseudo = self._pseudo - len(self._first) + len(packet)
        return (twin.total(packet[shape.addresses :]) + pseudo) % MODULUS == 0

    def follow(self, blob: bytes, at: int) -> int:
        """How many packets of ``blob`` the compiled loop finds to continue this run from ``at`` on, right behind its
        last one; they belong to it then.
        """
        shape = self._shape
        payloads = twin.follow(
            blob,
            at,
            len(self._first),
            shape.protocol,
            shape.start,
            shape.header,
            self._ident,
            _MOST_SEGMENTS - self._count,
        )
        if not payloads:
            return 0
        count = len(payloads) // len(self.payloads[0])
        self._expected += count * self._step
        self._count += count
        self.payloads.append(payloads)
        self.is_open = self._count < _MOST_SEGMENTS
        return count

    def takes(self, packet: bytes) -> bool:
        """Whether ``packet`` is the next of this run, and sound; it belongs to it then."""
        shape = self._shape
        number = int.from_bytes(packet[: shape.header], "big")
        masked = number & shape.mask
        expected = self._expected
        missing = len(self._first) - len(packet)
        if missing:
            expected -= missing * shape.length
            self.is_open = False
        if masked != expected:
            if self._count > 1 or masked != expected - shape.ident or not packet[6] & _DONT_FRAGMENT:
                return False
            self._step -= shape.ident  # atomic datagrams (RFC 6864) whose identification stays the same
            self._expected -= shape.ident
            self._ident = 0
        payload = packet[shape.header :]
        if not payload or not self._verified(packet, number):
            return False
        self._expected += self._step
        self._count += 1
        self.payloads.append(payload)
        if shape.protocol == virtio.TCP and packet[shape.start + 13] & _FIN_PSH:
            self._flags = packet[shape.start + 13]
            self.is_open = False
        elif self._count == _MOST_SEGMENTS:
            self.is_open = False
        return True

    def buffer(self) -> bytes:
        """What to write for the whole run."""
        if self._count == 1:
            return virtio.PLAIN + self._first
        shape = self._shape
        header = bytearray(self._first[: shape.header])
        transport = shape.header - shape.start + sum(map(len, self.payloads))
        if shape.version == 4:
            gso = virtio.GSO_TCPV4
            struct.pack_into("!H", header, 2, 20 + transport)
            struct.pack_into("!H", header, 10, 0)
            struct.pack_into("!H", header, 10, -twin.total(header[:20]) % MODULUS)
        else:
            gso = virtio.GSO_TCPV6
            struct.pack_into("!H", header, 4, transport)
        if shape.protocol == virtio.TCP:
            check = virtio.TCP_CHECK
            header[shape.start + 13] |= self._flags
        else:
            gso = virtio.GSO_UDP_L4
            check = virtio.UDP_CHECK
            struct.pack_into("!H", header, shape.start + 4, transport)
        # The checksum field holds the pseudo-header's sum; the kernel completes it if the packet leaves by a wire
        pseudo = twin.total(header[shape.addresses : shape.start]) + shape.protocol + transport
        struct.pack_into("!H", header, shape.start + check, pseudo % MODULUS or MODULUS)
        return b"".join(
            (
                virtio.HEADER.pack(virtio.NEEDS_CSUM, gso, shape.header, len(self.payloads[0]), shape.start, check),
                header,
                *self.payloads,
            )
        )


def coalesce(group: Packets, udp: bool) -> Writes:
    """The writes for ``group``; UDP is joined only if the TUN takes VIRTIO_NET_HDR_GSO_UDP_L4 (``udp``)."""
    blob, size = bytes(group.packets), group.size
    if len(blob) <= size:
        return Writes([virtio.PLAIN + blob], 0)
    buffers: list[bytes] = []
    bad = 0
    run: _Run | None = None
    offset = 0
    while offset < len(blob):
        if run is not None and run.is_open and (count := run.follow(blob, offset)):
            offset += count * size
            continue
        packet = blob[offset : offset + size]
        offset += size
        if run is not None:
            if run.is_open and run.takes(packet):
                continue
            buffers.append(run.buffer())
            run = None
        shape = _first(packet, udp)
        if shape is not None:
            run = _Run(packet, shape)
            if run.is_open:
                continue
            bad += 1
            run = None
        buffers.append(virtio.PLAIN + packet)
    if run is not None:
        buffers.append(run.buffer())
    return Writes(buffers, bad)
