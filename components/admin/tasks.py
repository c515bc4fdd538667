"""Calls that wait: coroutines without an event loop of their own. The guest's loop keeps their promises.

A coroutine awaits a ``Promise``; whoever keeps or breaks it resumes the coroutine there and then. A ``Clock`` has what
is due later. Nothing here reads a clock or does I/O.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Promise(Generic[T]):
    """A value that one task waits for."""

    __slots__ = ("_error", "_task", "_value", "is_settled")

    def __init__(self) -> None:
        self._task: Task | None = None
        self._value: T | None = None
        self._error: Exception | None = None
        self.is_settled = False

    def keep(self, value: T) -> None:
        """Resumes who waits, with ``value``; nothing if it is settled already."""
        if not self.is_settled:
            self._value, self.is_settled = value, True
            self._resume()

    def fail(self, error: Exception) -> None:
        """Resumes who waits, with ``error``; nothing if it is settled already."""
        if not self.is_settled:
            self._error, self.is_settled = error, True
            self._resume()

    def _resume(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.step()

    def wait_for(self, task: Task) -> None:
        self._task = task

    def __await__(self) -> Generator[Promise[T], None, T]:
        if not self.is_settled:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class Task:
    """One coroutine under way. ``done(error)`` is called when it ended by itself, None if it returned."""

    __slots__ = ("_coroutine", "_done", "_is_running", "is_over")

    def __init__(
        self, coroutine: Coroutine[Promise[Any], None, None], done: Callable[[Exception | None], None]
    ) -> None:
        self._coroutine = coroutine
        self._done = done
        self._is_running = False
        self.is_over = False

    def step(self) -> None:
        """Runs it until it waits for what is not there."""
        if self.is_over:
            return
        self._is_running = True
        try:
            promise = self._coroutine.send(None)
        except StopIteration:
            self._end(None)
        except Exception as error:
            self._end(error)
        else:
            self._is_running = False
            if self.is_over:  # it was cancelled by what it did itself
                self._coroutine.close()
            elif promise.is_settled:
                self.step()
            else:
                promise.wait_for(self)

    def _end(self, error: Exception | None) -> None:
        self._is_running = False
        if not self.is_over:
            self.is_over = True
            self._done(error)

    def cancel(self) -> None:
        """Nobody wants it any more; ``done`` is not called."""
        if not self.is_over:
            self.is_over = True
            if not self._is_running:
                self._coroutine.close()


class Due:
    """Something that is due at a time, until it was cancelled."""

    __slots__ = ("_then", "when")

    def __init__(self, when: float, then: Callable[[], None]) -> None:
        self.when = when
        self._then: Callable[[], None] | None = then

    def cancel(self) -> None:
        self._then = None

    def come(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()

    def __lt__(self, other: Due) -> bool:
        return self.when < other.when


class Clock:
    """What is due later. ``now`` is the time of the turn, as the loop had it."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._due: list[Due] = []

    def at(self, when: float, then: Callable[[], None]) -> Due:
        due = Due(when, then)
        heapq.heappush(self._due, due)
        return due

    def sleep(self, seconds: float) -> Promise[None]:
        promise: Promise[None] = Promise()
        self.at(self.now + seconds, lambda: promise.keep(None))
        return promise

    def turn(self, now: float) -> float | None:
        """Does what is due. Returns when the next is; None if nothing is."""
        self.now = now
        while self._due and self._due[0].when <= now:
            heapq.heappop(self._due).come()
        return self._due[0].when if self._due else None
