"""What the filter needs to know of a packet: a bounded parse of IPv4 and IPv6 headers that reads nothing twice.

RFC 791 (IPv4), RFC 8200 (IPv6 and its extension headers), RFC 792 and RFC 4443 (ICMP), RFC 1858 and RFC 3128 (tiny and
overlapping fragments), RFC 7112 (all headers in the first fragment), RFC 5095 (no source routing).
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_FRAGMENT: Final = 44
_DESTINATION: Final = 60
_MOST_EXTENSIONS: Final = 8

_SOURCE_ROUTES: Final = frozenset({131, 137})  # LSRR, SSRR (RFC 791 section 3.1)
_ERRORS: Final = {ICMP: frozenset({3, 11, 12}), ICMPV6: frozenset({1, 2, 3, 4})}
# Echo; and of IPv4 timestamp, information and address mask (RFC 792, 950), which have an identifier in that place too
_REQUESTS: Final = {ICMP: frozenset({8, 13, 15, 17}), ICMPV6: frozenset({128})}
_REPLIES: Final = {ICMP: frozenset({0, 14, 16, 18}), ICMPV6: frozenset({129})}
_ON_LINK: Final = {ICMP: frozenset(), ICMPV6: frozenset({*range(130, 137), 143})}  # MLD (RFC 2710, 3810), ND (RFC 4861)
_NO_PORTS: Final = b"\0\0"


class Malformed(ValueError):
    """A packet that no honest stack sends, or one that says less about itself than a filter must know."""


class Kind(Enum):
    """What the filter has to do with a packet."""

    FLOW = auto()  # belongs to a flow, or may open one
    REPLY = auto()  # an echo reply: belongs to a flow, never opens one
    ERROR = auto()  # an ICMP error about a packet of a flow
    CONTROL = auto()  # of a link's own housekeeping: neighbour discovery, multicast listeners
    STRAY = auto()  # any other ICMP: redirects, what is obsolete or unknown
    LATER = auto()  # a fragment without the transport header


class Endpoints(NamedTuple):
    """Who talks to whom: the protocol (1 byte), addresses (4 or 16 bytes) and ports (2 bytes each, network order).

    An echo request has its identifier as source port, the reply as destination port, and 0 as the other one.
    """

    protocol: bytes
    source: bytes
    source_port: bytes
    destination: bytes
    destination_port: bytes

    def key(self) -> bytes:
        """Names the flow, for a packet from the near (red) side: as its headers have them, the ports last."""
        return b"".join((self.protocol, self.source, self.destination, self.source_port, self.destination_port))

    def reverse_key(self) -> bytes:
        """Names the flow, for a packet from the far side."""
        return b"".join((self.protocol, self.destination, self.source, self.destination_port, self.source_port))


class Header(NamedTuple):
    """One packet, parsed."""

    kind: Kind
    ends: Endpoints
    flags: int  # of TCP; 0 otherwise
    icmp: int  # 256 times the type, plus the code; -1 otherwise
    start: int  # where the transport header begins; 0 if it is not there
    plain: bool  # no IP options, extension headers or fragment: addresses and ports are where they always are
    inner: Endpoints | None  # of the packet that an ICMP error is about
    about: int  # where that one's transport header begins, of which 8 bytes are there; 0: it is no error
    fragment: bytes  # names the datagram this is a fragment of; empty for a whole one
    offset: int  # bytes from the start of the fragmented part; 0 for the first
    covered: int  # bytes of the fragmented part up to the end of its transport header


def parse(packet: bytes) -> Header:
    """Parses one IP packet. Errors: Malformed."""
    if len(packet) < 20:
        raise Malformed("shorter than any IP header")
    version = packet[0] >> 4
    if version == 4:
        return _parse4(packet)
    if version == 6:
        return _parse6(packet)
    raise Malformed(f"IP version {version}")


def _parse4(packet: bytes) -> Header:
    start = 4 * (packet[0] & 15)
    if start < 20 or start > len(packet) or packet[2] << 8 | packet[3] != len(packet):
        raise Malformed("IPv4 lengths")
    if start > 20:
        _check_options(packet[20:start])
    fragment = packet[6] << 8 | packet[7]
    offset = 8 * (fragment & 0x1FFF)
    ends = (packet[9:10], packet[12:16], packet[16:20])
    if not fragment & 0x3FFF:
        return _transport(packet, start, start, ends, b"")
    name = b"".join((packet[9:10], packet[12:20], packet[4:6]))
    if offset + len(packet) - start > 65535:
        raise Malformed("a fragment beyond the longest datagram")
    if offset:
        return _later(ends, name, offset)
    return _transport(packet, start, start, ends, name)


def _check_options(options: bytes) -> None:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] in _SOURCE_ROUTES:
            raise Malformed("source routing")
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            raise Malformed("IPv4 options")
        at += length


def _parse6(packet: bytes) -> Header:
    if len(packet) < 40 or packet[4] << 8 | packet[5] != len(packet) - 40:
        raise Malformed("IPv6 lengths")
    protocol, at = packet[6], 40
    addresses = packet[8:24], packet[24:40]
    name, begin, offset = b"", 40, 0
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION):
            return _transport(packet, at, begin, (bytes((protocol,)), *addresses), name)
        if at + 8 > len(packet):
            raise Malformed("a truncated extension header")
        if protocol == _ROUTING and packet[at + 3]:
            raise Malformed("source routing")
        following, length = packet[at], 8 * (packet[at + 1] + 1)
        if protocol == _FRAGMENT:
            if name:
                raise Malformed("a fragment of a fragment")
            word = packet[at + 2] << 8 | packet[at + 3]
            length, begin, offset = 8, at + 8, word & 0xFFF8
            if word & 0xFFF9:  # neither offset nor more: a whole datagram (RFC 6946)
                name = b"".join((*addresses, packet[at + 4 : at + 8]))
            if offset + len(packet) - begin > 65535:
                raise Malformed("a fragment beyond the longest datagram")
            if offset:
                return _later((bytes((following,)), *addresses), name, offset)
        protocol, at = following, at + length
    raise Malformed("too many extension headers")


def _later(ends: tuple[bytes, bytes, bytes], name: bytes, offset: int) -> Header:
    protocol, source, destination = ends
    who = Endpoints(protocol, source, _NO_PORTS, destination, _NO_PORTS)
    return Header(Kind.LATER, who, 0, -1, 0, False, None, 0, name, offset, 0)


def _transport(packet: bytes, at: int, begin: int, ends: tuple[bytes, bytes, bytes], name: bytes) -> Header:
    """The transport header at ``at``, of a packet whose fragmented part, if ``name`` says so, starts at ``begin``."""
    protocol, source, destination = ends
    number = protocol[0]
    room = len(packet) - at
    if room < 0:
        raise Malformed("an extension header that is not all there")
    kind, flags, icmp, length, inner, about = Kind.FLOW, 0, -1, 0, None, 0
    near = far = _NO_PORTS
    if number == TCP:
        length = 4 * (packet[at + 12] >> 4) if room >= 20 else 0
        if length < 20 or length > room:
            raise Malformed("a TCP header that is not all there")
        flags = packet[at + 13]
        near, far = packet[at : at + 2], packet[at + 2 : at + 4]
    elif number == UDP:
        length = 8
        if room < 8:
            raise Malformed("a UDP header that is not all there")
        near, far = packet[at : at + 2], packet[at + 2 : at + 4]
    elif (number == ICMP and source[4:] == b"") or (number == ICMPV6 and source[4:]):
        length = 8
        if room < 8:
            raise Malformed("an ICMP header that is not all there")
        of_type = packet[at]
        icmp = of_type << 8 | packet[at + 1]
        if of_type in _REQUESTS[number]:
            near = packet[at + 4 : at + 6]
        elif of_type in _REPLIES[number]:
            kind, far = Kind.REPLY, packet[at + 4 : at + 6]
        elif of_type in _ERRORS[number]:
            inner, about = _embedded(packet[at + 8 :], len(source))
            kind, about = Kind.ERROR, about + at + 8
        else:
            kind = Kind.CONTROL if of_type in _ON_LINK[number] else Kind.STRAY
    elif number in (ICMP, ICMPV6):
        raise Malformed("the other IP version's ICMP")
    who = Endpoints(protocol, source, near, destination, far)
    plain = not name and at == (20 if len(source) == 4 else 40)
    return Header(kind, who, flags, icmp, at, plain, inner, about, name, 0, at + length - begin)


def _embedded(packet: bytes, width: int) -> tuple[Endpoints, int]:
    """Who talked to whom in the packet whose start an ICMP error carries: headers of IP, and at least 8 bytes more,
    which begin there.
    """
    if len(packet) < 28 or packet[0] >> 4 != (4 if width == 4 else 6):
        raise Malformed("an ICMP error about no packet")
    if width == 4:
        start = 4 * (packet[0] & 15)
        if start < 20 or (packet[6] << 8 | packet[7]) & 0x1FFF:
            raise Malformed("an ICMP error about no packet")
        protocol, source, destination = packet[9], packet[12:16], packet[16:20]
    else:
        if len(packet) < 48:
            raise Malformed("an ICMP error about no packet")
        protocol, start, source, destination = packet[6], 40, packet[8:24], packet[24:40]
        for _ in range(_MOST_EXTENSIONS):
            if protocol not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION) or start + 8 > len(packet):
                break
            if protocol == _FRAGMENT and (packet[start + 2] << 8 | packet[start + 3]) & 0xFFF8:
                raise Malformed("an ICMP error about a later fragment")
            # the length field of a fragment header is reserved, and 0
            length = 8 if protocol == _FRAGMENT else 8 * (packet[start + 1] + 1)
            protocol, start = packet[start], start + length
    if len(packet) < start + 8:
        raise Malformed("an ICMP error about too little of a packet")
    near = far = _NO_PORTS
    if protocol in (TCP, UDP):
        near, far = packet[start : start + 2], packet[start + 2 : start + 4]
    elif protocol in _REQUESTS:
        if packet[start] in _REQUESTS[protocol]:
            near = packet[start + 4 : start + 6]
        elif packet[start] in _REPLIES[protocol]:
            far = packet[start + 4 : start + 6]
        else:
            raise Malformed("an ICMP error about no flow")  # RFC 1122 section 3.2.2: never about an error
    return Endpoints(bytes((protocol,)), source, near, destination, far), start
