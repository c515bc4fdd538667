"""Which pair of crypto domains an address in the tunnel belongs to, where there are several pairs.

Each pair knows only its own peers. What goes out must reach the pair of the destination's peer, and what a pair brings
in must come from its own peers: a broken one is not believed about the peers of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from appliance.vchan.messages import Packets
from components.filter.model import Prefix

_CACHED: Final = 4096


class End(Enum):
    """One of the two addresses of a packet: where it begins in IPv4, and in IPv6."""

    SOURCE = (12, 8)
    DESTINATION = (16, 24)


class Shards:
    """AllowedIPs of all peers, each with the number of the pair that the peer belongs to. The longest prefix holds."""

    def __init__(self, allowed: Sequence[Sequence[Prefix]]) -> None:
        """``allowed``: the prefixes of pair 0, of pair 1, ..."""
        tables: dict[int, dict[int, dict[int, int]]] = {4: {}, 16: {}}  # width -> mask -> network -> pair
        for pair, prefixes in enumerate(allowed):
            for prefix in prefixes:
                tables[prefix.width].setdefault(prefix.mask, {})[prefix.network] = pair
        self._longest_first = {width: sorted(table.items(), reverse=True) for width, table in tables.items()}
        self._answers: dict[bytes, int | None] = {}

    def owner(self, address: bytes) -> int | None:
        """The pair of the peer that ``address`` (4 or 16 bytes) belongs to; None if it is nobody's."""
        if address in self._answers:
            return self._answers[address]
        number = int.from_bytes(address, "big")
        found = (networks.get(number & mask) for mask, networks in self._longest_first[len(address)])
        pair = next((pair for pair in found if pair is not None), None)
        if len(self._answers) >= _CACHED:
            self._answers.clear()
        self._answers[address] = pair
        return pair

    def split(self, group: Packets, end: End) -> list[tuple[int | None, Packets]]:
        """Shares a group out by whose address stands at ``end``, each part in the order of the group.

        A group of one flow is passed on as it is. What is too short to have an address is nobody's.
        """
        blob, size = memoryview(group.packets), group.size
        length = len(blob)
        whole = length - length % size
        pair = self._of(blob[:size], end)
        if _is_uniform(blob[:whole], size, end) and (whole == length or self._of(blob[whole:], end) == pair):
            return [(pair, group)]
        parts: dict[int | None, list[memoryview]] = {}
        for at in range(0, length, size):
            packet = blob[at : at + size]
            parts.setdefault(self._of(packet, end), []).append(packet)
        return [
            (pair, group._replace(packets=b"".join(part), size=min(size, sum(map(len, part)))))
            for pair, part in parts.items()
        ]

    def _of(self, packet: memoryview, end: End) -> int | None:
        at, width = _address(packet, end)
        address = packet[at : at + width].tobytes()
        return self.owner(address) if len(address) == width else None


def _address(packet: memoryview, end: End) -> tuple[int, int]:
    """Where the address begins, and its bytes."""
    return (end.value[0], 4) if packet[0] >> 4 == 4 else (end.value[1], 16)


def _is_uniform(blob: memoryview, size: int, end: End) -> bool:
    """Whether all packets of ``blob``, each of ``size`` bytes, have that address and IP version of the first; False too
    where that cannot be said quickly (see uniform.py).
    """
    count = len(blob) // size
    if count < 2:
        return True
    if size & 3:
        return False
    words, step = blob.cast("I"), size // 4
    begin, width = _address(blob, end)
    columns = (words[at::step].tobytes() for at in (0, *range(begin // 4, (begin + width) // 4)))
    return all(column == column[:4] * count for column in columns)
