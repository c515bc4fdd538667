"""How much one source or one administrator may do: buckets of tokens, and who is locked out."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

MOST_REMEMBERED: Final = 4096
OFFENCES: Final = 10  # within `WINDOW`, and nothing more is heard for `LOCKED`
WINDOW: Final = 60.0  # seconds
LOCKED: Final = 60.0


class Bucket:
    """``rate`` tokens a second, ``most`` at once. ``now`` in seconds of a clock that does not go back."""

    __slots__ = ("_filled", "_most", "_rate", "_tokens")

    def __init__(self, rate: float, most: float, now: float) -> None:
        self._rate = rate
        self._most = most
        self._tokens = most
        self._filled = now

    def tokens(self, now: float) -> int:
        """How many there are."""
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return int(self._tokens)

    def spend(self, count: int) -> None:
        """Takes as many, which must be there."""
        self._tokens -= count

    def take(self, now: float) -> bool:
        """Whether there was one to take."""
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    @property
    def wait(self) -> float:
        """Seconds until there is one."""
        return max(0.0, (1 - self._tokens) / self._rate)


class Buckets:
    """One bucket for each name; the names used longest ago are forgotten when there are too many."""

    def __init__(self, rate: float, most: float) -> None:
        self._rate = rate
        self._most = most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, name: str, now: float) -> float:
        """0 if there was one to take; else the seconds until there is."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(self._rate, self._most, now)
            if len(self._buckets) > MOST_REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return 0.0 if bucket.take(now) else bucket.wait


class LockOut:
    """Names with ``most`` offences within ``WINDOW`` are not heard for a while."""

    def __init__(self, most: int = OFFENCES) -> None:
        self._most = most
        self._offences: OrderedDict[str, deque[float]] = OrderedDict()
        self._until: OrderedDict[str, float] = OrderedDict()

    def offend(self, name: str, now: float) -> bool:
        """Notes an offence; whether it is the one with which ``name`` is locked out."""
        times = self._offences.setdefault(name, deque(maxlen=self._most))
        self._offences.move_to_end(name)
        times.append(now)
        for table in (self._offences, self._until):
            while len(table) > MOST_REMEMBERED:
                table.popitem(last=False)
        if len(times) == self._most and now - times[0] < WINDOW:
            times.clear()
            self._until[name] = now + LOCKED
            return True
        return False

    def is_locked(self, name: str, now: float) -> bool:
        until = self._until.get(name)
        if until is not None and now >= until:
            del self._until[name]
            until = None
        return until is not None
