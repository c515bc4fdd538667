"""The filter between the red side and the tunnel. While it is down nothing passes: there is no other way through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from appliance.guest.loop import Guest
from appliance.guest.status import Counter
from appliance.vchan.messages import Packets
from components.filter.settings import parse
from components.filter.state import Side
from components.filter.verdict import Filter

_TICK: Final = 1.0  # seconds
_LOG_EVERY: Final = 10.0  # seconds between two lines about denials, however many there were
_NAMES: Final = {Side.RED: "from the red side", Side.TUNNEL: "from the tunnel"}


class Shell:
    """Ports in, ports out."""

    def __init__(self, guest: Guest) -> None:
        self._filter = Filter(parse("filter", guest.settings))
        self._log = guest.log
        self._tunnel_out = guest.out("tunnel_out")
        self._red_out = guest.out("red_out")
        self._from_red = guest.counter("from_red")
        self._from_tunnel = guest.counter("from_tunnel")
        self._sink_full = guest.counter("sink_full")
        denied = self._filter.denied.values()
        self._totals: list[tuple[Counter, Callable[[], int]]] = [
            (guest.counter("passed"), lambda: self._filter.passed),
            (guest.counter("denied"), lambda: sum(sum(counts.values()) for counts in denied)),
            (guest.counter("malformed"), lambda: sum(counts["malformed"] for counts in denied)),
            (guest.counter("flows"), lambda: len(self._filter.flows)),
            (guest.counter("flows_full"), lambda: self._filter.flows.evicted),
        ]
        self._told: dict[Side, dict[str, int]] = {side: {} for side in Side}
        self._next_tick = 0.0
        self._next_log = 0.0

    def from_red(self, group: Packets, now: float) -> None:
        self._from_red.add(_packets(group))
        # whatever red says, only the tunnel's packets have a peer
        for allowed in self._filter.from_red(group._replace(peer=0), now):
            if not self._tunnel_out.send(allowed):
                self._sink_full.add(_packets(allowed))

    def from_tunnel(self, group: Packets, now: float) -> None:
        self._from_tunnel.add(_packets(group))
        verdict = self._filter.from_tunnel(group, now)
        for allowed in verdict.passed + verdict.questions:
            if not self._red_out.send(allowed):
                self._sink_full.add(_packets(allowed))

    def tick(self, now: float) -> float:
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self._filter.tick(now)
            for counter, total in self._totals:
                counter.set(total())
            if now >= self._next_log:
                self._tell(now)
        return self._next_tick

    def _tell(self, now: float) -> None:
        for side, counts in self._filter.denied.items():
            told = self._told[side]
            news = [f"{n - told.get(why, 0)} {why}" for why, n in counts.items() if n != told.get(why)]
            if news:
                self._told[side] = dict(counts)
                self._next_log = now + _LOG_EVERY
                self._log.warning("denied", f"{_NAMES[side]}: {', '.join(news)}")


def _packets(group: Packets) -> int:
    return -(-len(group.packets) // group.size)


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    shell = Shell(guest)
    guest.receive("red_in", shell.from_red, into=(guest.out("tunnel_out"),))
    guest.receive("tunnel_in", shell.from_tunnel, into=(guest.out("red_out"),))
    guest.timer(shell.tick)
