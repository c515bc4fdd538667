"""A group of packets -> as few writes to the TUN as it allows, in Python: what a reader reads, and what runs where no
compiler was. fast.pyx has the same, to the byte; twin.py chooses.

Consecutive segments of one TCP flow become one superpacket, UDP datagrams of one flow and size another, under the
rules of the kernel's own GRO (net/core/gro.c, tcp_offload.c, udp_offload.c): all that a receiver could tell apart is
equal (type of service, TTL, DF, addresses, ports, ACK number, window, options with their timestamps), sequence numbers
follow each other, and so do IP identifications, or, with DF, they stay. A superpacket vouches for the checksums in it:
each packet's are verified first, and one that fails goes by itself, as it came, for the receiver to judge.

A packet's headers are compared as one number: what may differ is masked away, and the headers to expect next are the
last ones plus a constant step (one segment on in the sequence number, one on in the identification). A step that
overflows its field ends a superpacket early, once in 65536 packets.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

from components.net import virtio
from components.net.checksum import MODULUS, total

_MOST_SEQUENCE: Final = (1 << 32) - 1
_MOST_IDENTIFICATION: Final = (1 << 16) - 1
_NO_CHECKSUM: Final = bytes(2)
_LARGEST: Final = 65535  # bytes of a superpacket
_MOST_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS of older kernels
_FIN_PSH: Final = 0x09
_ACK: Final = 0x10
_ECE: Final = 0x40
_DONT_FRAGMENT: Final = 0x40


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
        "_bytes",
        "_count",
        "_expected",
        "_first",
        "_flags",
        "_identification",
        "_pseudo",
        "_sequence",
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
        # The numbers of the packet last taken, of which the next ones may not overflow; 0 for a header without
        self._identification = int.from_bytes(packet[4:6], "big") if shape.ident else 0
        start = shape.start
        self._sequence = int.from_bytes(packet[start + 4 : start + 8], "big") if shape.sequence else 0
        self._count = 1  # packets
        self._bytes = len(packet)
        self.payloads: list[bytes] = [packet[shape.header :]]
        self.is_open = self._verified(packet, number)

    def _verified(self, packet: bytes, number: int) -> bool:
        """Whether the checksums of IP and transport headers are right."""
        shape = self._shape
        if shape.version == 4 and (number >> 8 * (shape.header - 20)) % MODULUS:
            return False
        pseudo = self._pseudo - len(self._first) + len(packet)
        return (total(packet[shape.addresses :]) + pseudo) % MODULUS == 0

    def takes(self, packet: bytes) -> bool:
        """Whether ``packet`` is the next of this run, and sound; it belongs to it then."""
        shape = self._shape
        number = int.from_bytes(packet[: shape.header], "big")
        masked = number & shape.mask
        expected = self._expected
        if shape.sequence:
            self._sequence += len(self._first) - shape.header
            if self._sequence > _MOST_SEQUENCE:
                return False
        self._identification += 1
        missing = len(self._first) - len(packet)
        if missing:
            expected -= missing * shape.length
            self.is_open = False
        if masked != expected or self._identification > _MOST_IDENTIFICATION:
            if self._count > 1 or masked != expected - shape.ident or not packet[6] & _DONT_FRAGMENT:
                return False
            self._step -= shape.ident  # atomic datagrams (RFC 6864) whose identification stays the same
            self._expected -= shape.ident
            self._identification = -_MOST_SEGMENTS  # and so overflows no more
        check = shape.start + virtio.UDP_CHECK
        if shape.protocol == virtio.UDP and packet[check : check + 2] == _NO_CHECKSUM:
            return False
        payload = packet[shape.header :]
        self._bytes += len(payload)
        if not payload or self._bytes > _LARGEST or not self._verified(packet, number):
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
            struct.pack_into("!H", header, 10, -total(header[:20]) % MODULUS)
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
        pseudo = total(header[shape.addresses : shape.start]) + shape.protocol + transport
        struct.pack_into("!H", header, shape.start + check, pseudo % MODULUS or MODULUS)
        return b"".join(
            (
                virtio.HEADER.pack(virtio.NEEDS_CSUM, gso, shape.header, len(self.payloads[0]), shape.start, check),
                header,
                *self.payloads,
            )
        )


def join(blob: bytes | bytearray | memoryview, size: int, udp: bool) -> tuple[list[bytes], int]:
    """The writes for packets of ``size`` bytes back to back, of which the last may be shorter, each with its
    virtio_net_hdr; and how many packets failed a checksum. UDP is joined only if ``udp``.

    Errors: ValueError for no packets, or packets of no bytes.
    """
    blob = bytes(blob)
    if not blob or size < 1:
        raise ValueError(f"{len(blob)} bytes in packets of {size}")
    if len(blob) <= size:
        return [virtio.PLAIN + blob], 0
    buffers: list[bytes] = []
    bad = 0
    run: _Run | None = None
    for at in range(0, len(blob), size):
        packet = blob[at : at + size]
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
    return buffers, bad
