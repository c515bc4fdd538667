"""The status page: one shared page that a domain writes and the monitor reads, trusting nothing in it.

Layout: docs/architecture.md, "The status page". Every word has one writer, so nothing here needs a lock.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MAGIC: Final = 0x4D55545045530001
SIZE: Final = 4096
WORD_MAGIC, WORD_STATE, WORD_HEARTBEAT, WORD_VIOLATIONS, WORD_SEALED_AT = range(5)
FIRST_COUNTER: Final = 16
MOST_COUNTERS: Final = SIZE // 8 - FIRST_COUNTER


class State(IntEnum):
    """How far a domain has come. Only RUNNING has read a byte of input."""

    STARTING = 1
    BUILT = 2
    SEALED = 3
    RUNNING = 4
    FAILED = 5


class Counter:
    """One number on the status page. ``add`` and ``set`` take whole numbers below 2**64."""

    __slots__ = ("_index", "_words")

    def __init__(self, words: memoryview, index: int) -> None:
        self._words = words
        self._index = index

    def add(self, count: int = 1) -> None:
        self._words[self._index] += count

    def set(self, value: int) -> None:
        self._words[self._index] = value

    @property
    def value(self) -> int:
        number: int = self._words[self._index]
        return number


class StatusPage:
    """The domain's side of its status page. ``memory`` is the 4096 bytes shared with the monitor."""

    def __init__(self, memory: memoryview, counters: list[str]) -> None:
        if len(counters) > MOST_COUNTERS:
            raise ValueError(f"{len(counters)} counters do not fit on a status page; it holds {MOST_COUNTERS}")
        self.words = memory.cast("B").cast("Q")
        self.words[WORD_MAGIC] = MAGIC
        self.words[WORD_VIOLATIONS] = 0
        self._counters = {name: Counter(self.words, FIRST_COUNTER + i) for i, name in enumerate(counters)}
        for counter in self._counters.values():
            counter.set(0)

    def counter(self, name: str) -> Counter:
        """The counter of that name. KeyError if component.toml does not declare it."""
        return self._counters[name]

    def state(self, state: State) -> None:
        self.words[WORD_STATE] = state

    def sealed(self, nanoseconds: int) -> None:
        self.words[WORD_SEALED_AT] = nanoseconds
        self.state(State.SEALED)

    def beat(self) -> None:
        self.words[WORD_HEARTBEAT] += 1

    def accuse(self, port: int) -> None:
        """Says that the peer of port number ``port`` broke the protocol; the monitor decides what becomes of it."""
        self.words[WORD_VIOLATIONS] |= 1 << port

    def pardon(self, port: int) -> None:
        """The port has a new peer."""
        self.words[WORD_VIOLATIONS] &= ~(1 << port)
