"""What of a flow the engine may lease to the short way (short.pyx): packets that come alone, and change nothing.

They are those of which the quick way would know all there is to know (engine.py): one rule stands for all of them in
their direction, and their flow is neither translated nor followed by its sequence numbers, which leaves out TCP. A
lease is the bytes by which such a packet is told, and a time; whatever ends or changes any flow ends all leases.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from components.filter.flows import Flow
from components.filter.headers import ICMP, ICMPV6, UDP
from components.filter.model import Side

LEASE: Final = 1.0  # seconds
_BARE4: Final = 0x45  # first byte of an IPv4 header without options
_PORTS: Final = bytes((255,) * 4 + (0,) * 4)
_ECHO: Final = bytes((255, 255, 0, 0, 255, 255, 0, 0))  # type, code, identifier
# Version and header length; neither more fragments nor an offset; protocol; addresses; and what follows
_IPV4: Final = bytes((255, 0, 0, 0, 0, 0, 0x3F, 255, 0, 255, 0, 0)) + bytes((255,) * 8)
_IPV6: Final = bytes((0xF0, 0, 0, 0, 0, 0, 255, 0)) + bytes((255,) * 32)
_MASKS: Final = {
    (4, UDP): _IPV4 + _PORTS,
    (4, ICMP): _IPV4 + _ECHO,
    (6, UDP): _IPV6 + _PORTS,
    (6, ICMPV6): _IPV6 + _ECHO,
}


class Lease(NamedTuple):
    """A packet of ``flow`` is one whose first bytes are ``expected`` where ``mask`` has ones; ``until`` then."""

    flow: Flow
    expected: bytes
    mask: bytes
    until: float


def lease(flow: Flow, packet: memoryview, side: Side, peer: int, now: float) -> Lease | None:
    """The lease of what comes from ``side`` like ``packet``, a whole one of ``flow`` that passed, if there is one."""
    rule = flow.near_rule if side is Side.RED else flow.far_rule
    if rule < 0 or flow.nat is not None or flow.near_end is not None or flow.far_end is not None:
        return None
    if flow.expires <= now or (side is not Side.RED and (flow.far is not side or flow.peer != peer)):
        return None
    if packet[0] == _BARE4:
        mask = _MASKS.get((4, packet[9]))
    elif packet[0] >> 4 == 6:
        mask = _MASKS.get((6, packet[6]))
    else:
        mask = None
    if mask is None or len(packet) < len(mask):
        return None
    expected = bytes(one & of for one, of in zip(packet, mask, strict=False))
    if packet[0] == _BARE4 and (expected[6] or expected[7]):
        return None  # a fragment
    return Lease(flow, expected, mask, min(flow.expires, now + LEASE))
