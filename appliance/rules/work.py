"""How much work an analysis may be: bounded, and said when the bound is hit. Nothing is proved by giving up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MOST_STEPS: Final = 4_000_000
"""Boxes looked at; some tens of seconds."""
MOST_STEPS_EACH: Final = 200_000
"""Of those, for one rule."""


class TooMuch(Exception):
    """The bound is hit."""


class Work:
    """Counts steps. ``progress`` is told how much of the whole is done, as a number from 0 to 1, now and then."""

    def __init__(
        self,
        progress: Callable[[float], None] | None = None,
        most: int = MOST_STEPS,
        most_each: int = MOST_STEPS_EACH,
    ) -> None:
        self._progress = progress
        self._most = most
        self._most_each = most_each
        self._spent = 0
        self._until = most_each
        self._told = 0

    def begin(self, done: float = 0.0) -> None:
        """The next rule begins, with a share of its own."""
        self._until = min(self._most, self._spent + self._most_each)
        if self._progress is not None:
            self._told += 1
            if self._told % 64 == 0:
                self._progress(done)

    def step(self, count: int = 1) -> None:
        """Errors: TooMuch."""
        self._spent += count
        if self._spent > self._until:
            raise TooMuch
