"""The filter of a transparent bridge: the only way between its two interfaces. While it is down nothing passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from appliance.guest.loop import Guest
from appliance.guest.ports import DroppingOut
from appliance.guest.status import Counter
from appliance.vchan.messages import Frames
from components.filter import control
from components.filter.engine import Engine
from components.filter.ethernet import Ethernet
from components.filter.inline import InlineSettings, parse
from components.filter.model import Side

_TICK: Final = 1.0  # seconds
_LOG_EVERY: Final = 10.0  # seconds between two lines about denials, however many there were
_NAMES: Final = {Side.RED: "from the red side", Side.BLACK: "from the outside"}


class Bridge:
    """Ports in, ports out."""

    def __init__(self, guest: Guest, settings: InlineSettings) -> None:
        self.engine = Engine(settings.ruleset, settings.ways)
        self._ethernet = Ethernet(self.engine)
        self._log = guest.log
        self._wall = time.time()  # to the second
        self._outs: dict[Side, DroppingOut] = {Side.RED: guest.out("red_out"), Side.BLACK: guest.out("black_out")}
        self._came = {Side.RED: guest.counter("from_red"), Side.BLACK: guest.counter("from_black")}
        self._sink_full = guest.counter("sink_full")
        denied = self.engine.denied.values()
        self._totals: list[tuple[Counter, Callable[[], int]]] = [
            (guest.counter("passed"), lambda: self.engine.passed),
            (guest.counter("denied"), lambda: sum(sum(counts.values()) for counts in denied)),
            (guest.counter("malformed"), lambda: sum(counts["malformed"] for counts in denied)),
            (guest.counter("rejected"), lambda: self.engine.rejected),
            (guest.counter("flows"), lambda: len(self.engine.flows)),
            (guest.counter("flows_full"), lambda: self.engine.flows.evicted),
        ]
        self._told: dict[Side, dict[str, int]] = {side: {} for side in Side}
        self._next_tick = 0.0
        self._next_log = 0.0

    def from_red(self, group: Frames, now: float) -> None:
        self._judge(group, Side.RED, now)

    def from_black(self, group: Frames, now: float) -> None:
        self._judge(group, Side.BLACK, now)

    def _judge(self, group: Frames, side: Side, now: float) -> None:
        self._came[side].add(_frames(group))
        for out, allowed in self._ethernet.judge(group, side, now, self._wall):
            if not self._outs[out].send(allowed):
                self._sink_full.add(_frames(allowed))

    def tick(self, now: float) -> float:
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self._wall = time.time()
            self.engine.tick(now)
            for counter, total in self._totals:
                counter.set(total())
            for line in self.engine.records.take_lines():
                self._log.info("rule", line)
            if now >= self._next_log:
                self._tell(now)
        return self._next_tick

    def _tell(self, now: float) -> None:
        for side, counts in self.engine.denied.items():
            told = self._told[side]
            news = [f"{n - told.get(why, 0)} {why}" for why, n in counts.items() if n != told.get(why)]
            if news:
                self._told[side] = dict(counts)
                self._next_log = now + _LOG_EVERY
                self._log.warning("denied", f"{_NAMES[side]}: {', '.join(news)}")


def _frames(group: Frames) -> int:
    return -(-len(group.payloads) // group.size)


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    bridge = Bridge(guest, parse("bridge", guest.settings))
    guest.receive("red_in", bridge.from_red, into=(guest.out("black_out"),))
    guest.receive("black_in", bridge.from_black, into=(guest.out("red_out"),))
    guest.timer(bridge.tick)
    control.serve(guest, bridge.engine)
