"""Groups: items of one size that lie back to back in one buffer and belong to one owner; only the last may be shorter.

It is what the kernel's offloads take and give (UDP_SEGMENT, UDP_GRO, TSO), and so what the data path's messages carry.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from components.crypto.constants import GROUP_ITEMS

Owner = TypeVar("Owner")


class Grouping(Generic[Owner]):
    """Cuts what is laid down one after another into groups of at most GROUP_ITEMS items and ``most_bytes`` bytes.

    An owner is recognized by identity or equality. Nothing may lie between the items of one round, from one ``take``
    to the next; each round begins at the buffer's start, with what ``take_full`` left open before.
    """

    __slots__ = ("_done", "_most_bytes", "_owner", "_room", "_size", "_start", "end")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._done: list[tuple[Owner, int, int, int]] = []
        self._owner: Owner | None = None
        self._room = 0  # items that still fit into the open group
        self._size = 0
        self._start = 0
        self.end = 0  # where the next item goes in the buffer

    def add(self, owner: Owner, size: int, count: int) -> None:
        """``count`` items of ``size`` bytes (1 to ``most_bytes``) were laid down at ``end``."""
        while count:
            if not self._room or owner != self._owner or size > self._size:
                self._close()
                self._owner, self._size, self._start = owner, size, self.end
                self._room = min(GROUP_ITEMS, self._most_bytes // size)
            if size < self._size:
                taken = self._room = 1  # a shorter item is a group's last
            else:
                taken = min(count, self._room)
            self.end += taken * size
            self._room -= taken
            count -= taken

    def begin(self, buffer: memoryview) -> None:
        """Moves what ``take_full`` left open to the start of ``buffer``, where all items lie: a round begins."""
        if self._start:
            length = self.end - self._start
            buffer[:length] = buffer[self._start : self.end]
            self._start, self.end = 0, length

    def take_full(self) -> list[tuple[Owner, int, int, int]]:
        """The groups that nothing can join any more, in order; the open one stays. ``begin`` is due before ``add``."""
        if not self._room:
            return self.take()
        done, self._done = self._done, []
        return done

    def take(self) -> list[tuple[Owner, int, int, int]]:
        """The groups of this round, in order: (owner, start, stop, size), ``size`` bytes each but the last."""
        self._close()
        done, self._done = self._done, []
        self._owner = None
        self._room = self._start = self.end = 0
        return done

    def _close(self) -> None:
        if self._owner is not None and self.end > self._start:
            self._done.append((self._owner, self._start, self.end, self._size))
