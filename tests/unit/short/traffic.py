"""Packets at random: most as they should be, some odd."""

from __future__ import annotations

import socket
import struct
from random import Random
from typing import Final

NEAR4, FAR4 = socket.inet_aton("10.1.0.2"), socket.inet_aton("10.2.0.2")
NEAR6, FAR6 = socket.inet_pton(socket.AF_INET6, "fd01::2"), socket.inet_pton(socket.AF_INET6, "fd02::2")
ELSEWHERE: Final = (socket.inet_aton("172.16.0.9"), socket.inet_pton(socket.AF_INET6, "2001:db8::9"))
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58


def ip4(
    protocol: int, source: bytes, destination: bytes, body: bytes, fragment: int = 0, options: bytes = b""
) -> bytes:
    words = 5 + len(options) // 4
    length = 4 * words + len(body)
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | words, 0, length, 7, fragment, 64, protocol, 0, source, destination)
    return head + options + body


def ip6(protocol: int, source: bytes, destination: bytes, body: bytes, extensions: bytes = b"") -> bytes:
    """``extensions`` begin with a Hop-by-Hop Options header."""
    first = 0 if extensions else protocol
    return (
        struct.pack("!IHBB16s16s", 6 << 28, len(extensions + body), first, 64, source, destination) + extensions + body
    )


def ip(rng: Random, protocol: int, source: bytes, destination: bytes, body: bytes, odd: bool) -> bytes:
    """A packet; an odd one has something that most have not."""
    kind = rng.randrange(8) if odd else -1
    if len(source) == 4:
        if kind == 0:
            return ip4(protocol, source, destination, body, options=rng.choice((b"\1\1\1\0", b"\x83\4\0\0")))
        fragment = {1: 0x2000, 2: rng.randrange(1, 40), 3: 0x8000}.get(kind, rng.choice((0, 0x4000)))
        packet = ip4(protocol, source, destination, body, fragment)
    elif kind in (0, 1):
        packet = ip6(protocol, source, destination, body, bytes((protocol, 0, 1, 4, 0, 0, 0, 0)))
    elif kind in (2, 3):
        packet = ip6(protocol, source, destination, body)
        at = rng.randrange(1, 4)
        packet = packet[:at] + rng.randbytes(1) + packet[at + 1 :]  # class and label of the flow
    else:
        packet = ip6(protocol, source, destination, body)
    if kind == 4:
        return packet + rng.randbytes(rng.randrange(1, 9))
    if kind == 5:
        return packet[: max(20, len(packet) - rng.randrange(1, 9))]
    if kind == 6:
        at = rng.randrange(len(packet[:60]))
        return packet[:at] + rng.randbytes(1) + packet[at + 1 :]
    if kind == 7:
        return rng.randbytes(rng.randrange(20, 80))
    return packet


def size(rng: Random) -> int:
    """Bytes of payload: mostly few, now and then more than the short way takes."""
    return rng.choice((0, 1, 11, 12, 13, 56, 64, 100, 127, 128, 500, rng.randrange(1300, 2100), rng.randrange(1400)))


def body(rng: Random, protocol: int, ports: tuple[int, int], outward: bool, length: int) -> bytes:
    """A transport header and what is in it; the ports of who is inside first, for ICMP they make the identifier."""
    one, other = ports if outward else ports[::-1]
    data = rng.randbytes(length)
    if protocol == UDP:
        told = 8 + length if rng.random() < 0.95 else rng.randrange(65536)
        return struct.pack("!HHHH", one, other, told, rng.choice((0, 4711))) + data
    if protocol == TCP:
        flags = rng.choice((0x02, 0x10, 0x10, 0x10, 0x18, 0x11, 0x04, 0x12))
        return (
            struct.pack("!HHIIBBHHH", one, other, rng.randrange(99), rng.randrange(99), 5 << 4, flags, 500, 0, 0) + data
        )
    ask = ports[0] & 1
    kinds = {ICMP: (8, 0), ICMPV6: (128, 129)}[protocol]
    kind = kinds[outward is not bool(ask)] if rng.random() < 0.95 else rng.choice((3, 11, 1, 2, 133, *kinds))
    return struct.pack("!BBHHH", kind, 0, rng.randrange(65536), ports[0], rng.randrange(9)) + data


def packet(rng: Random, outward: bool, few: bool = True) -> bytes:
    """One packet of one of some flows."""
    v6 = rng.random() < 0.3
    protocol = rng.choice((UDP, UDP, UDP, ICMPV6 if v6 else ICMP, TCP))
    near, far = (NEAR6, FAR6) if v6 else (NEAR4, FAR4)
    if rng.random() < 0.04:
        far = ELSEWHERE[v6]
    source, destination = (near, far) if outward else (far, near)
    ports = (40000 + rng.randrange(2 if few else 40), rng.choice((53, 5201, 5202)))
    return ip(rng, protocol, source, destination, body(rng, protocol, ports, outward, size(rng)), rng.random() < 0.08)
