"""The anti-replay window of one session (WireGuard paper, section 5.4.6; after RFC 6479).

RFC 6479's idea is a ring of marks that is cleared as it turns, instead of a bitmap that is shifted. The ring has a bit
for each of WINDOW_RING counters, so 1 KiB; it turns by whole bytes, which is why WINDOW is a little less than the ring.
"""

from __future__ import annotations

from typing import Final

from components.crypto.constants import WINDOW, WINDOW_RING

_MASK: Final = WINDOW_RING - 1
_BYTES: Final = WINDOW_RING // 8
_UNSEEN: Final = bytes(_BYTES)


class ReplayWindow:
    """Which counters were seen. Ask ``is_fresh`` first, and commit only what was authenticated since."""

    __slots__ = ("next", "seen")

    def __init__(self) -> None:
        self.next = 0  # one above the greatest counter committed
        # Bit (counter & 7) of byte (counter & _MASK) >> 3. Meaningless from ``next`` on: cleared when passed
        self.seen = bytearray(_BYTES)

    def is_fresh(self, counter: int) -> bool:
        """Neither seen before nor too old to tell, which is more than WINDOW below the greatest."""
        return counter >= self.next or (
            counter + WINDOW + 1 >= self.next and not self.seen[(counter & _MASK) >> 3] >> (counter & 7) & 1
        )

    def commit(self, counter: int) -> None:
        """Marks a fresh counter as seen. The ring turns on up to it and clears the old marks that it passes."""
        following = self.next
        if counter >= following:
            if counter > following:
                self._turn(following, counter)
            self.next = counter + 1
        self.seen[(counter & _MASK) >> 3] |= 1 << (counter & 7)

    def commit_run(self, first: int, count: int) -> None:
        """Marks ``count`` (1 or more) fresh counters in succession from ``first``: as ``commit`` of each in turn."""
        at = (first & _MASK) >> 3
        marks = ((1 << count) - 1) << (first & 7)
        stop = at + (marks.bit_length() + 7) // 8
        if first < self.next or stop > _BYTES:  # latecomers, or around the end of the ring: neither is often
            for counter in range(first, first + count):
                self.commit(counter)
            return
        if first > self.next:
            self._turn(self.next, first)
        marks |= self.seen[at] & ((1 << (first & 7)) - 1)
        self.seen[at:stop] = marks.to_bytes(stop - at, "little")
        self.next = first + count

    def _turn(self, first: int, last: int) -> None:
        """Clears the marks from counter ``first`` up to the end of the byte that ``last`` is in."""
        seen = self.seen
        at = (first & _MASK) >> 3
        seen[at] &= (1 << (first & 7)) - 1
        at += 1
        stop = at + (last >> 3) - (first >> 3)
        seen[at:stop] = _UNSEEN[: max(0, min(stop, _BYTES) - at)]
        if stop > _BYTES:
            around = stop - _BYTES
            seen[:around] = _UNSEEN[:around]
