"""When to report: the first activity at once, then once an interval at most, many together, and once after the last."""

from __future__ import annotations

from heapq import heappop, heappush
from math import ceil

from components.crypto.constants import REPORT_CROWD, REPORT_INTERVAL, REPORT_STRETCH, REPORT_TICKS


class Pacing:
    """Says which numbers (peers, sessions) are due for a report. Times are monotonic seconds."""

    __slots__ = ("_heap", "_last", "_when")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._when: dict[int, float] = {}  # due; an entry of the heap that says otherwise is stale
        self._last: dict[int, float] = {}

    def note(self, number: int, now: float, interval: float = REPORT_INTERVAL) -> None:
        """There is something to report of ``number``, ``interval`` seconds after its last report at the earliest."""
        due = self._when.get(number)
        if due is not None and interval == REPORT_INTERVAL:
            return  # it cannot be sooner
        last = self._last.get(number)
        if last is None:
            when = now
        elif interval < REPORT_INTERVAL:
            when = max(now, last + interval)
        else:
            stretch = min(REPORT_STRETCH, max(1.0, len(self._when) / REPORT_CROWD))
            when = ceil(max(now, last + stretch * interval) * REPORT_TICKS) / REPORT_TICKS
        if due is None or when < due:
            self._when[number] = when
            heappush(self._heap, (when, number))

    def pop(self, now: float) -> int | None:
        """The next number that is due, which counts as reported with that; None if there is none."""
        while self._heap and self._heap[0][0] <= now:
            when, number = heappop(self._heap)
            if self._when.get(number) == when:
                del self._when[number]
                self._last[number] = now
                return number
        return None

    def pending(self, number: int) -> bool:
        """Whether there is something of ``number`` that was not reported yet."""
        return number in self._when

    def when(self, number: int) -> float:
        """When the next report of ``number`` is due, if there is something to report; else minus infinity."""
        return self._when.get(number, float("-inf"))

    def due(self) -> float | None:
        """When ``pop`` has something to give, at the earliest."""
        return self._heap[0][0] if self._heap else None

    def forget(self, number: int) -> None:
        """``number`` is no more."""
        self._when.pop(number, None)
        self._last.pop(number, None)
