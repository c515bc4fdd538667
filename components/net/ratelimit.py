"""A token bucket for each source, in a bounded table (as WireGuard's ratelimiter.c)."""

from __future__ import annotations


class RateLimiter:
    """Allows a source ``burst`` events at once and ``per_second`` on average, for at most ``most`` sources at a time.

    A source that the full table has no place for is refused.
    """

    __slots__ = ("_buckets", "_burst", "_most", "_per_second")

    def __init__(self, per_second: float, burst: int, most: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._most = most
        self._buckets: dict[bytes, tuple[float, float]] = {}  # source -> (tokens, when); longest idle first

    def __len__(self) -> int:
        return len(self._buckets)

    def allows(self, source: bytes, now: float) -> bool:
        """Takes a token of ``source``, if it has one. ``now``: monotonic seconds."""
        bucket = self._buckets.pop(source, None)
        if bucket is None:
            self._drop_full(now)
            if len(self._buckets) >= self._most:
                return False
            tokens = float(self._burst)
        else:
            tokens, when = bucket
            tokens = min(self._burst, tokens + (now - when) * self._per_second)
        allowed = tokens >= 1
        self._buckets[source] = (tokens - allowed, now)
        return allowed

    def _drop_full(self, now: float) -> None:
        """A bucket that has filled up again says no more than none."""
        idle = self._burst / self._per_second
        while self._buckets:
            source, (_, when) = next(iter(self._buckets.items()))
            if now - when < idle:
                break
            del self._buckets[source]
