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
    """Sources that offended too often are not heard for a while."""

    def __init__(self) -> None:
        self._offences: OrderedDict[str, deque[float]] = OrderedDict()
        self._until: OrderedDict[str, float] = OrderedDict()

    def offend(self, source: str, now: float) -> bool:
        """Notes an offence; whether it is the one with which the source is locked out."""
        times = self._offences.setdefault(source, deque(maxlen=OFFENCES))
        self._offences.move_to_end(source)
        times.append(now)
        for table in (self._offences, self._until):
            while len(table) > MOST_REMEMBERED:
                table.popitem(last=False)
        if len(times) == OFFENCES and now - times[0] < WINDOW:
            times.clear()
            self._until[source] = now + LOCKED
            return True
        return False

    def is_locked(self, source: str, now: float) -> bool:
        until = self._until.get(source)
        if until is not None and now >= until:
            del self._until[source]
            until = None
        return until is not None


def source_of(address: bytes) -> str:
    """What counts as one source: an IPv4 address (4 bytes), or the /64 of an IPv6 address (16 bytes)."""
    if len(address) == 16 and address[:12] == b"\0" * 10 + b"\xff\xff":
        address = address[12:]
    if len(address) == 4:
        return ".".join(map(str, address))
    return ":".join(f"{address[i] << 8 | address[i + 1]:x}" for i in range(0, 8, 2)) + "::/64"
