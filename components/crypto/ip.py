"""As much of an IP header as a tunnel looks at: version, length, and the address that decides whose packet it is.

RFC 791 section 3.1, RFC 8200 section 3. A packet's *head* is the tuple that its shape reads: the first word, which
holds the version and in IPv4 both lengths; in IPv6 the payload length; the address, in IPv6 as two halves. Two packets
with the same head are the same to the tunnel, which is what makes a group cheaper than its packets.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

Head = tuple[int, ...]

IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40


class Shape(NamedTuple):
    """What to read of a header of one IP version: its head, which is the same in two packets if their ``first`` bytes
    are, and the ``width`` bytes at ``address``.
    """

    head: Struct
    first: int
    address: int
    width: int


class Shapes(NamedTuple):
    """What to read of an IPv4 and of an IPv6 header."""

    v4: Shape
    v6: Shape


SOURCE: Final = Shapes(Shape(Struct("!I8xI"), 4, 12, 4), Shape(Struct("!IH2xQQ"), 6, 8, 16))
DESTINATION: Final = Shapes(Shape(Struct("!I12xI"), 4, 16, 4), Shape(Struct("!IH18xQQ"), 6, 24, 16))


def look(view: memoryview, at: int, size: int, shapes: Shapes) -> tuple[Shape, Head, int] | None:
    """(shape, head, total length) of the packet in the ``size`` bytes at ``at``; None if no whole packet is there."""
    if size < IPV4_HEADER:
        return None
    version = view[at] >> 4
    if version == 4:
        shape = shapes.v4
        head: Head = shape.head.unpack_from(view, at)
        header, length = (head[0] >> 24 & 15) * 4, head[0] & 0xFFFF
    elif version == 6 and size >= IPV6_HEADER:
        shape = shapes.v6
        head = shape.head.unpack_from(view, at)
        header, length = IPV6_HEADER, head[1] + IPV6_HEADER
    else:
        return None
    return (shape, head, length) if IPV4_HEADER <= header <= length <= size else None
