"""Cryptokey routing: which peer an address inside the tunnel belongs to (WireGuard paper, section 2).

Addresses are integers (32 bits for IPv4, 128 for IPv6), as the data path reads them. A prefix belongs to one peer: the
last one it was given to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from components.crypto.constants import MOST_PREFIXES
from components.crypto.ip import Head
from components.crypto.refused import Refused

NO_PEER: Final = 0
_CACHED: Final = 16_384


class PrefixTable:
    """Longest-prefix match over addresses of ``width`` bits.

    One dictionary for each distinct prefix length, longest first, and a bounded cache of answers before them: a lookup
    costs as many steps as there are lengths, a repeated one costs one. A change costs what the one peer has.
    """

    __slots__ = ("_answers", "_by_mask", "_lengths", "_prefixes", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self._prefixes: dict[int, set[tuple[int, int]]] = {}  # peer -> its (mask, network)s
        self._by_mask: dict[int, dict[int, int]] = {}  # mask -> network -> peer; none of them empty
        self._lengths: list[tuple[int, dict[int, int]]] = []  # the same, longest first
        self._answers: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_mask.values()))

    def count(self, peer: int) -> int:
        """How many prefixes are ``peer``'s."""
        return len(self._prefixes.get(peer, ()))

    def prefix(self, address: int, bits: int) -> tuple[int, int]:
        """(mask, network) of a prefix; host bits are cleared."""
        mask = ((1 << bits) - 1) << (self.width - bits)
        return mask, address & mask

    def replace(self, peer: int, prefixes: Iterable[tuple[int, int]]) -> None:
        """Makes ``prefixes`` all that ``peer`` has; those that another peer had are taken from it."""
        for mask, network in self._prefixes.pop(peer, ()):
            networks = self._by_mask[mask]
            del networks[network]
            if not networks:
                del self._by_mask[mask]
        mine = set(prefixes)
        for mask, network in mine:
            networks = self._by_mask.setdefault(mask, {})
            if network in networks:
                self._prefixes[networks[network]].discard((mask, network))
            networks[network] = peer
        if mine:
            self._prefixes[peer] = mine
        self._lengths = sorted(self._by_mask.items(), reverse=True)
        self._answers.clear()

    def lookup(self, address: int) -> int:
        """The peer of the longest prefix that holds ``address``; NO_PEER if there is none."""
        peer = self._answers.get(address)
        if peer is not None:
            return peer
        peer = NO_PEER
        for mask, networks in self._lengths:
            found = networks.get(address & mask)
            if found is not None:
                peer = found
                break
        if len(self._answers) >= _CACHED:
            self._answers.clear()
        self._answers[address] = peer
        return peer


def absent(peers: Iterable[int], bits: bytes) -> list[int]:
    """Those of ``peers`` whose bit is not set in ``bits``. Bit n, from the lowest of the first byte on, is peer n's."""
    many = len(bits) * 8
    return [peer for peer in peers if peer >= many or not bits[peer >> 3] >> (peer & 7) & 1]


class CryptokeyRouting:
    """The AllowedIPs of all peers, both families."""

    __slots__ = ("v4", "v6")

    def __init__(self) -> None:
        self.v4 = PrefixTable(32)
        self.v6 = PrefixTable(128)

    def owner(self, head: Head) -> int:
        """The peer that the address of a packet's head belongs to; NO_PEER if there is none."""
        if len(head) == 2:
            return self.v4.lookup(head[1])
        return self.v6.lookup(head[2] << 64 | head[3])

    def replace(self, peer: int, allowed_ips: Iterable[tuple[bytes, int]]) -> None:
        """Makes ``allowed_ips`` all that ``peer`` may use; none removes it. An item is (4 or 16 bytes, prefix length).

        Errors: Refused for what is no prefix, or too many of them; the table is as it was then.
        """
        v4: list[tuple[int, int]] = []
        v6: list[tuple[int, int]] = []
        for address, bits in allowed_ips:
            width = len(address) * 8
            if width not in (32, 128) or not 0 <= bits <= width:
                raise Refused(f"not a prefix: {len(address)} bytes, /{bits}")
            table, chosen = (self.v4, v4) if width == 32 else (self.v6, v6)
            chosen.append(table.prefix(int.from_bytes(address, "big"), bits))
        others = len(self.v4) - self.v4.count(peer) + len(self.v6) - self.v6.count(peer)
        if others + len(v4) + len(v6) > MOST_PREFIXES:
            raise Refused(f"more than {MOST_PREFIXES} prefixes in all")
        self.v4.replace(peer, v4)
        self.v6.replace(peer, v6)
