"""What a filter says of itself, whatever its ways are: counters once a second, the lines of rules that log, and now and
then how many packets were denied, by side and reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from appliance.guest.loop import Guest
from appliance.guest.status import Counter
from components.filter.engine import Engine
from components.filter.model import Side

_TICK: Final = 1.0  # seconds
_REVIEW: Final = 0.01  # seconds between two slices of the flows that replaced rules let open: a quarter of the time
_LOG_EVERY: Final = 10.0  # seconds between two lines about denials, however many there were
_NAMES: Final = {Side.RED: "from the red side", Side.TUNNEL: "from the tunnel", Side.BLACK: "from the outside"}


class Telling:
    """About ``engine``, on the guest's counters and log; ``wall`` are the seconds since 1970, to the second."""

    def __init__(self, guest: Guest, engine: Engine) -> None:
        self._engine = engine
        self._log = guest.log
        denied = engine.denied.values()
        self._totals: list[tuple[Counter, Callable[[], int]]] = [
            (guest.counter("passed"), lambda: engine.passed),
            (guest.counter("denied"), lambda: sum(sum(counts.values()) for counts in denied)),
            (guest.counter("malformed"), lambda: sum(counts["malformed"] for counts in denied)),
            (guest.counter("rejected"), lambda: engine.rejected),
            (guest.counter("flows"), lambda: len(engine.flows)),
            (guest.counter("flows_full"), lambda: engine.flows.evicted),
        ]
        self._told: dict[Side, dict[str, int]] = {side: {} for side in Side}
        self.wall = time.time()
        self._next_tick = self._next_review = 0.0
        self._next_log = 0.0

    def tick(self, now: float) -> float:
        """The guest's timer: when to be called again at the latest."""
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self.wall = time.time()
            self._engine.tick(now)
            for counter, total in self._totals:
                counter.set(total())
            for line in self._engine.records.take_lines():
                self._log.info("rule", line)
            if now >= self._next_log:
                self._tell(now)
        if self._engine.unjudged:
            if now >= self._next_review:
                self._next_review = now + _REVIEW
                self._engine.review(now, self.wall)
            return self._next_review
        return self._next_tick

    def _tell(self, now: float) -> None:
        for side, counts in self._engine.denied.items():
            told = self._told[side]
            news = [f"{n - told.get(why, 0)} {why}" for why, n in counts.items() if n != told.get(why)]
            if news:
                self._told[side] = dict(counts)
                self._next_log = now + _LOG_EVERY
                self._log.warning("denied", f"{_NAMES[side]}: {', '.join(news)}")
