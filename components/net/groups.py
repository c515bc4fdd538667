"""Groups: packets of one size, back to back, of which only the last may be shorter.

A group is kept so small that, sealed, it still leaves the box in one UDP_SEGMENT send: at most 64 segments
(UDP_MAX_SEGMENTS of older kernels) in one UDP payload of 65507 bytes, each 16 + 16 bytes and its padding to 16 longer.
"""

from __future__ import annotations

from typing import Final

from appliance.vchan.messages import Packets

LARGEST: Final = 65535
_MOST_PACKETS: Final = 64
_MOST_BYTES: Final = 65507
_SEALED: Final = 16 + 16 + 15


def most(size: int) -> int:
    """How many packets of ``size`` bytes a group may hold; never less than one."""
    return max(1, min(_MOST_PACKETS, _MOST_BYTES // (size + _SEALED)))


class Grouper:
    """Joins what was read in one turn into as few groups as its order allows. It never waits for more."""

    def __init__(self) -> None:
        self._groups: list[Packets] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._room = 0  # packets that still fit; 0 as well once a shorter one has ended the group

    def add(self, packets: bytes, size: int) -> None:
        """Adds a packet, or a group of ``size`` bytes a packet, behind what was added before."""
        length = len(packets)
        count = -(-length // size)
        joins = size == self._size or (count == 1 and length < self._size)
        if not joins or count > self._room:
            self._close()
            self._size = size
            self._room = most(size)
        self._parts.append(packets)
        self._room = 0 if length % self._size else self._room - count
        if not self._room:
            self._close()

    def _close(self) -> None:
        if self._parts:
            parts = self._parts
            self._groups.append(Packets(parts[0] if len(parts) == 1 else b"".join(parts), self._size, 0))
            self._parts = []
            self._room = 0

    def closed(self) -> list[Packets]:
        """The groups that nothing can join any more, once."""
        groups, self._groups = self._groups, []
        return groups

    def all(self) -> list[Packets]:
        """What ``closed`` gives, and the group that could still have grown."""
        self._close()
        return self.closed()
