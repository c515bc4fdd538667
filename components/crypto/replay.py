"""The anti-replay window of one session (WireGuard paper, section 5.4.6; after RFC 6479).

RFC 6479's idea is a ring that is cleared as it turns instead of a bitmap that is shifted. Here the ring has a byte, not
a bit, for each counter: that costs 8 KiB a session, and makes both steps one index operation in Python.
"""

from __future__ import annotations

from typing import Final

from components.crypto.constants import WINDOW, WINDOW_RING

_MASK: Final = WINDOW_RING - 1
_UNSEEN: Final = bytes(WINDOW_RING)


class ReplayWindow:
    """Which counters were seen. Ask ``is_fresh`` first, and ``commit`` only what was authenticated since."""

    __slots__ = ("_seen", "next")

    def __init__(self) -> None:
        self.next = 0  # one above the greatest counter committed
        self._seen = bytearray(WINDOW_RING)

    def is_fresh(self, counter: int) -> bool:
        """Neither seen before nor too old to tell, which is more than WINDOW below the greatest."""
        return counter >= self.next or (counter + WINDOW + 1 >= self.next and not self._seen[counter & _MASK])

    def commit(self, counter: int) -> None:
        """Marks a fresh counter as seen. The ring turns on up to it and clears the old marks that it passes."""
        following = self.next
        if counter >= following:
            if counter > following:
                self._clear(following, min(counter - following, WINDOW_RING))
            self.next = counter + 1
        self._seen[counter & _MASK] = 1

    def _clear(self, first: int, count: int) -> None:
        start = first & _MASK
        stop = start + count
        if stop <= WINDOW_RING:
            self._seen[start:stop] = _UNSEEN[:count]
        else:
            self._seen[start:] = _UNSEEN[: WINDOW_RING - start]
            self._seen[: stop - WINDOW_RING] = _UNSEEN[: stop - WINDOW_RING]
