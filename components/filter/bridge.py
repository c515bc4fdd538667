"""The filter of a transparent bridge: the only way between its two interfaces. While it is down nothing passes."""

from __future__ import annotations

from appliance.guest.loop import Guest
from appliance.guest.ports import DroppingOut
from appliance.vchan.messages import Frames
from components.filter import control
from components.filter.engine import Engine
from components.filter.ethernet import Ethernet
from components.filter.inline import InlineSettings, parse
from components.filter.model import Side
from components.filter.telling import Telling


class Bridge:
    """Ports in, ports out."""

    def __init__(self, guest: Guest, settings: InlineSettings) -> None:
        self.engine = Engine(settings.ruleset, settings.ways)
        self.ethernet = Ethernet(self.engine)
        self.telling = Telling(guest, self.engine)
        self._outs: dict[Side, DroppingOut] = {Side.RED: guest.out("red_out"), Side.BLACK: guest.out("black_out")}
        self._came = {Side.RED: guest.counter("from_red"), Side.BLACK: guest.counter("from_black")}
        self._sink_full = guest.counter("sink_full")

    def from_red(self, group: Frames, now: float) -> None:
        self._judge(group, Side.RED, now)

    def from_black(self, group: Frames, now: float) -> None:
        self._judge(group, Side.BLACK, now)

    def _judge(self, group: Frames, side: Side, now: float) -> None:
        self._came[side].add(_frames(group))
        for out, allowed in self.ethernet.judge(group, side, now, self.telling.wall):
            if not self._outs[out].send(allowed):
                self._sink_full.add(_frames(allowed))


def _frames(group: Frames) -> int:
    return -(-len(group.payloads) // group.size)


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    bridge = Bridge(guest, parse("bridge", guest.settings))
    guest.receive("red_in", bridge.from_red, into=(guest.out("black_out"),))
    guest.receive("black_in", bridge.from_black, into=(guest.out("red_out"),))
    guest.timer(bridge.telling.tick)
    control.serve(guest, bridge.engine, bridge.ethernet)
