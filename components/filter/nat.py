"""Network address translation for IPv4 (RFC 3022): source addresses that are replaced, and ports that are forwarded.

A translated flow has two names: as the red side sees it, and as the far side sees it. Rules are asked about the true
ends: the red side's own address and the far side's own address (nftables' forward chain sees the same).

A source port is kept if it is free under the new address, else another is looked for, a bounded number of times, in the
same range as that of the old one (RFC 4787 REQ-3, REQ-4). Checksums are updated, not made anew: what was wrong stays
wrong (RFC 1624). An ICMP error carries a part of the packet that it is about: that is translated with it (RFC 5508).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from components.filter.headers import ICMP, TCP, UDP, Endpoints
from components.filter.lookup import UNTRACKED, Facts, Lookup, bits
from components.filter.model import Action, Rule, Side, Translation

_TRIES: Final = 128
_RANGES: Final = ((0, 512), (512, 1024), (1024, 65_536))  # a port stays in its own
_CHECKSUM_AT: Final = {TCP: 16, UDP: 6, ICMP: 2}  # of a transport header
_PORTS_AT: Final = {TCP: 0, UDP: 0, ICMP: 4}


class Exhausted(Exception):
    """No port is left, as far as was looked."""


class Change(NamedTuple):
    """What a packet gets, and what that adds to the one's complement sums of its checksums."""

    addresses: bytes
    ports: bytes  # of ICMP: the identifier
    of_addresses: int
    of_ports: int


class Rewriting:
    """How a flow is translated: its ends as the red side sees them, and as the far side does, both from the red side to
    the far one.
    """

    __slots__ = ("_error_back", "_error_out", "_on_way_back", "_on_way_out", "alias", "far", "near")

    def __init__(self, near: Endpoints, far: Endpoints, zone: bytes = b"") -> None:
        self.near = near
        self.far = far
        self.alias = far.key() + zone
        self._on_way_out = _change(near, far)
        self._on_way_back = _change(reverse(far), reverse(near))
        # What is inside an error came the other way, and has been changed: it is to look as it was sent
        self._error_out = _change(reverse(near), reverse(far))
        self._error_back = _change(far, near)

    def true(self) -> Endpoints:
        """The ends as rules are asked about them."""
        return self.near._replace(destination=self.far.destination, destination_port=self.far.destination_port)

    def rewrite(self, packet: bytes | memoryview, start: int, side: Side) -> bytes:
        """A packet from ``side``, whose transport header begins at ``start`` (0: it is not there), as it leaves."""
        made = bytearray(packet)
        _apply(made, 0, start, self._on_way_out if side is Side.RED else self._on_way_back)
        return bytes(made)

    def rewrite_error(self, packet: bytes, start: int, side: Side) -> bytes:
        """The same for an ICMP error about a packet of this flow."""
        made = bytearray(packet)
        inner = start + 8
        _apply(made, inner, inner + 4 * (made[inner] & 15), self._error_out if side is Side.RED else self._error_back)
        _add(made, start + 2, _difference(packet[inner:], bytes(made[inner:])))
        addresses = self._reporter(packet[12:16], side)
        _add(made, 10, _difference(packet[12:20], addresses))
        made[12:20] = addresses
        return bytes(made)

    def _reporter(self, source: bytes, side: Side) -> bytes:
        """Addresses of an error: on the way out nobody behind a changed address is known by another one."""
        if side is Side.RED:
            return (source if self.near.source == self.far.source else self.far.source) + self.far.destination
        return (self.near.destination if source == self.far.destination else source) + self.near.source


def reverse(ends: Endpoints) -> Endpoints:
    """The same ends, for a packet of the other direction."""
    protocol, source, source_port, destination, destination_port = ends
    return Endpoints(protocol, destination, destination_port, source, source_port)


def _change(old: Endpoints, new: Endpoints) -> Change:
    def ports(ends: Endpoints) -> bytes:
        if ends.protocol[0] == ICMP:  # one of the two is the identifier, the other is 0
            return max(ends.source_port, ends.destination_port)
        return ends.source_port + ends.destination_port

    addresses = new.source + new.destination
    return Change(
        addresses, ports(new), _difference(old.source + old.destination, addresses), _difference(ports(old), ports(new))
    )


def _difference(old: bytes, new: bytes) -> int:
    """What replacing some 16-bit words by as many others adds to their one's complement sum."""
    if len(old) & 1:
        old, new = old + b"\0", new + b"\0"
    return (int.from_bytes(new, "big") - int.from_bytes(old, "big")) % 0xFFFF


def _add(packet: bytearray, at: int, difference: int) -> None:
    """RFC 1624, equation 3: a checksum is the complement of a sum."""
    sum_ = 0xFFFF - (packet[at] << 8 | packet[at + 1]) + difference
    packet[at : at + 2] = (0xFFFF - (sum_ - 0xFFFF if sum_ > 0xFFFF else sum_)).to_bytes(2, "big")


def _apply(packet: bytearray, at: int, start: int, change: Change) -> None:
    """On the IPv4 header at ``at`` and the transport header at ``start``, as far as that is there."""
    protocol = packet[at + 9]
    packet[at + 12 : at + 20] = change.addresses
    _add(packet, at + 10, change.of_addresses)
    if not start or protocol not in _PORTS_AT:
        return
    ports = start + _PORTS_AT[protocol]
    packet[ports : ports + len(change.ports)] = change.ports
    checksum = start + _CHECKSUM_AT[protocol]
    if checksum + 2 > len(packet):
        return
    if protocol == UDP and packet[checksum : checksum + 2] == b"\0\0":
        return  # RFC 768: there is none
    _add(packet, checksum, change.of_ports)
    if protocol != ICMP:
        _add(packet, checksum, change.of_addresses)
    if protocol == UDP and packet[checksum : checksum + 2] == b"\0\0":
        packet[checksum : checksum + 2] = b"\xff\xff"


class Nat:
    """A compiled list of translations."""

    def __init__(self, translations: Sequence[Translation]) -> None:
        self._sources = [one for one in translations if one.source is not None]
        self._forwards = [one for one in translations if one.destination is not None]
        self._source_lookup, self._forward_lookup = (
            Lookup([_as_rule(one) for one in some]) for some in (self._sources, self._forwards)
        )

    def forward(self, facts: Facts) -> tuple[bytes, bytes] | None:
        """Address and port that a packet which opens a flow is for, if it is forwarded."""
        for index in bits(self._forward_lookup.candidates(facts, UNTRACKED)):
            one = self._forwards[index]
            assert one.destination is not None
            port = one.port or facts.destination_port
            return one.destination.to_bytes(4, "big"), port.to_bytes(2, "big")
        return None

    def source(self, facts: Facts, leaves: Side) -> bytes | None:
        """The source address that a packet which opens a flow gets, if it is replaced."""
        for index in bits(self._source_lookup.candidates(facts, UNTRACKED)):
            one = self._sources[index]
            if not one.leaves or one.leaves & leaves:
                assert one.source is not None
                return one.source.to_bytes(4, "big")
        return None


def _as_rule(one: Translation) -> Rule:
    return Rule(
        Action.ALLOW,
        sides=one.sides,
        version=4,
        protocols=one.protocols,
        sources=one.sources,
        destinations=one.destinations,
        destination_ports=one.destination_ports,
    )


def free_port(port: bytes, is_free: Callable[[bytes], bool], seed: int) -> bytes:
    """A port for a source address that is replaced: the one it has, if ``is_free``, or another in the same range.
    Errors: Exhausted.
    """
    if is_free(port):
        return port
    number = int.from_bytes(port, "big")
    low, high = next((low, high) for low, high in _RANGES if low <= number < high)
    span = high - low
    step = 2 * (seed % (span // 2)) | 1  # odd, and spans are even: half of them are met before one comes twice
    for turn in range(1, _TRIES):
        other = (low + (number - low + turn * step) % span).to_bytes(2, "big")
        if is_free(other):
            return other
    raise Exhausted
