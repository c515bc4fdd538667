"""Hosts that know each other only as the box shows them: who was translated is answered by the name that was seen.

The packets of a case are written between the addresses that their senders would use if nobody had ever translated
anything. What comes out of the box says how the other end knows them; what that one sends goes there. It is kept for
our own filter and for the oracle apart, since each may choose another port.

The arithmetic of checksums is here once more, and not that of the filter, which is what is tried.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
_ECHO: Final = (0, 8)
_ERRORS: Final = (3, 11, 12)
_CHECKSUM_AT: Final = {TCP: 16, UDP: 6, ICMP: 2}


class Ends(NamedTuple):
    """Sender and receiver of an IPv4 packet. Of an echo, both ports are its identifier; of what has none, 0."""

    protocol: int
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int

    def turned(self) -> Ends:
        return Ends(self.protocol, self.destination, self.destination_port, self.source, self.source_port)


def ends_of(packet: bytes) -> Ends | None:
    """Of a packet of IPv4 that has its transport header; None for an ICMP error, and for any other."""
    if packet[0] >> 4 != 4:
        return None
    start, protocol = 4 * (packet[0] & 15), packet[9]
    ports = (0, 0)
    if protocol in (TCP, UDP):
        ports = struct.unpack_from("!HH", packet, start)
    elif protocol == ICMP:
        if packet[start] in _ERRORS:
            return None
        if packet[start] in _ECHO:
            ports = struct.unpack_from("!H", packet, start + 4) * 2
    return Ends(protocol, packet[12:16], ports[0], packet[16:20], ports[1])


class Hosts:
    """What each host has seen of the others."""

    def __init__(self) -> None:
        self._known: dict[Ends, Ends] = {}

    def sends(self, packets: Sequence[bytes]) -> tuple[bytes, ...]:
        """The pieces of a datagram as written, as who sends it would."""
        first = packets[0]
        ends = ends_of(first)
        if ends is not None:
            known = self._known.get(ends)
            return tuple(packets) if known is None else tuple(_changed(one, known, one is first) for one in packets)
        return (self._error(first),) if _is_error(first) else tuple(packets)

    def passed(self, written: bytes, came: bytes) -> None:
        """A datagram that was written so has come out like that."""
        before, after = ends_of(written), ends_of(came)
        if before is not None and after is not None:
            self._known[before.turned()] = after.turned()

    def _error(self, packet: bytes) -> bytes:
        start = 4 * (packet[0] & 15)
        about = packet[start + 8 :]
        inner = ends_of(about) if len(about) >= 28 else None
        known = self._known.get(inner.turned()) if inner is not None else None
        if inner is None or known is None:
            return packet
        source = known.source if packet[12:16] == inner.destination else packet[12:16]
        # to whom the packet came from that it is about; and that packet, as it came
        destination = known.destination if packet[16:20] == inner.source else packet[16:20]
        body = bytearray(packet[start : start + 8] + _changed(about, known.turned(), has_ports=True))
        body[2:4] = b"\0\0"
        body[2:4] = _complement(_sum(body))
        outer = Ends(ICMP, source, 0, destination, 0)
        return _changed(packet[:start], outer, has_ports=False) + bytes(body)


def _is_error(packet: bytes) -> bool:
    return packet[0] >> 4 == 4 and packet[9] == ICMP and packet[4 * (packet[0] & 15)] in _ERRORS


def _changed(packet: bytes, ends: Ends, has_ports: bool) -> bytes:
    """A packet between other ends, of which maybe only the beginning is there."""
    made = bytearray(packet)
    start = 4 * (made[0] & 15)
    addresses = ends.source + ends.destination
    _update(made, 10, packet[12:20], addresses)
    made[12:20] = addresses
    if not has_ports or ends.protocol not in _CHECKSUM_AT:
        return bytes(made)
    checksum = start + _CHECKSUM_AT[ends.protocol]
    if ends.protocol == ICMP:
        at, ports = start + 4, struct.pack("!H", ends.source_port)
    else:
        at, ports = start, struct.pack("!HH", ends.source_port, ends.destination_port)
    old = packet[at : at + len(ports)]
    if packet[start] not in _ECHO and ends.protocol == ICMP:
        return bytes(made)
    made[at : at + len(ports)] = ports
    if checksum + 2 <= len(made):
        _update(made, checksum, old, ports)
        if ends.protocol != ICMP:
            _update(made, checksum, packet[12:20], addresses)
    return bytes(made)


def _sum(words: bytes | bytearray) -> int:
    """RFC 1071, word by word."""
    if len(words) & 1:
        words = bytes(words) + b"\0"
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _complement(total: int) -> bytes:
    return struct.pack("!H", ~total & 0xFFFF)


def _update(packet: bytearray, at: int, old: bytes, new: bytes) -> None:
    """RFC 1624, equation 3, word by word."""
    (checksum,) = struct.unpack_from("!H", packet, at)
    total = ~checksum & 0xFFFF
    for (before,), (after,) in zip(struct.iter_unpack("!H", old), struct.iter_unpack("!H", new), strict=True):
        total += (~before & 0xFFFF) + after
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = _complement(total)


def is_sound(packet: bytes) -> bool:
    """Whether the checksums of a whole IPv4 packet are right."""
    start, protocol = 4 * (packet[0] & 15), packet[9]
    if _sum(packet[:start]) != 0xFFFF:
        return False
    if protocol not in _CHECKSUM_AT or packet[6] & 0x3F or packet[7]:
        return True
    body = packet[start:]
    pseudo = b"" if protocol == ICMP else packet[12:20] + struct.pack("!HH", protocol, len(body))
    return _sum(pseudo + body) == 0xFFFF
