"""Which side a packet leaves by, and whether its addresses can be true.

Spoofed is a source that belongs on another side: one from the red side that is none of the LAN's, one from a far side
that is the LAN's own, one from the outside that is a tunnel peer's. That a tunnel packet's source is its peer's was
checked where it was decrypted (cryptokey routing). A bridge does not know which of a network's hosts are on which side
of it: there only the red side's sources are looked at.

Martians are sources and destinations that no packet between two networks can have (RFC 1812 section 5.3.7, RFC 4291).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from components.filter.lookup import Table
from components.filter.model import Prefix, Side

_LINK_LOCAL6: Final = Prefix(16, 0xFE80 << 112, 0xFFC0 << 112)
_MAPPED6: Final = bytes(10) + b"\xff\xff"
_BITS: Final = {4: 32, 16: 128}


class Ways:
    """Where packets from the red side go; those from a far side go to the red one."""

    def __init__(
        self,
        default: Side = Side.TUNNEL,
        others: Sequence[tuple[Prefix, Side]] = (),
        *,
        is_bridge: bool = False,
    ) -> None:
        """``others``: destinations that leave by another side; the longest prefix holds."""
        self.is_bridge = is_bridge
        self._default = default
        self._others = [(prefix, side) for prefix, side in others]
        # Longer prefixes have the lower number: the lowest bit of a set is the longest that fits
        self._others.sort(key=lambda other: other[0].mask.bit_count(), reverse=True)
        self._tables = {width: Table(bits) for width, bits in _BITS.items()}
        for number, (prefix, _) in enumerate(self._others):
            self._tables[prefix.width].add(prefix.mask, prefix.network, 1 << number)

    def leaves(self, destination: bytes) -> Side:
        """The side across from the red one that an address is on."""
        if not self._others:
            return self._default
        found = self._tables[len(destination)].find(int.from_bytes(destination, "big"))
        return self._others[(found & -found).bit_length() - 1][1] if found else self._default

    def is_split(self) -> bool:
        """Whether there is more than one way."""
        return any(side is not self._default for _, side in self._others)


class Sources:
    """What may come from where."""

    def __init__(self, lan: Sequence[Prefix], ways: Ways) -> None:
        self._lan = tuple(lan)
        self._ways = ways
        self._is_split = ways.is_split()

    def refusal(self, source: bytes, destination: bytes, side: Side) -> str:
        """Why a packet with these addresses cannot come from ``side``; empty if it can."""
        is_bridge = self._ways.is_bridge
        if _is_unspecified(source):
            return "" if is_bridge else "martian"  # DHCP and duplicate address detection, on a link
        if _is_martian(source, destination):
            return "martian"
        if self._lan:
            is_own = any(prefix.has(source) for prefix in self._lan)
            if side is Side.RED:
                if not is_own and not (is_bridge and _LINK_LOCAL6.has(source)):
                    return "spoofed"
            elif not is_bridge and (is_own or not any(prefix.has(destination) for prefix in self._lan)):
                return "spoofed"
        if self._is_split and side is not Side.RED and self._ways.leaves(source) is not side:
            return "spoofed"
        return ""


def _is_unspecified(address: bytes) -> bool:
    return not any(address)


def _is_martian(source: bytes, destination: bytes) -> bool:
    if source == destination:
        return True
    if len(source) == 4:
        return source[0] in (0, 127) or source[0] >= 224 or destination[0] in (0, 127)
    if source[0] == 0xFF or _is_unspecified(destination):
        return True
    for address in (source, destination):
        if address[0] == 0 and (address[:12] == _MAPPED6 or address == _LOOPBACK6):
            return True
    return False


_LOOPBACK6: Final = bytes(15) + b"\1"
