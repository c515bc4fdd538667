"""Rules: what the tunnel may open. The first that fits allows; without one, nothing is."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, NamedTuple

from components.filter.headers import ICMP, ICMPV6, TCP, UDP, Endpoints
from components.filter.model import Prefix

PROTOCOLS: Final = MappingProxyType({"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPV6, "any": None})
"""Names in a rule; of ICMP, a rule allows echo requests and nothing else."""


class Rule(NamedTuple):
    """One rule; None, and no ports, stand for any."""

    protocol: int | None
    source: Prefix | None
    destination: Prefix | None
    ports: tuple[tuple[int, int], ...]  # first and last destination port of each range
    peer: int | None

    def fits(self, ends: Endpoints, peer: int) -> bool:
        """Whether a flow that ``peer`` opens with such a packet is allowed."""
        if self.protocol is not None and self.protocol != ends.protocol[0]:
            return False
        if self.peer is not None and self.peer != peer:
            return False
        if self.source is not None and not self.source.has(ends.source):
            return False
        if self.destination is not None and not self.destination.has(ends.destination):
            return False
        if not self.ports:
            return True
        port = int.from_bytes(ends.destination_port, "big")
        return any(first <= port <= last for first, last in self.ports)
