"""The filter of a box that sends some packets through the tunnel and lets others pass in clear: its destination says
which way a packet leaves, and none goes from one far side to the other.
"""

from __future__ import annotations

from appliance.guest.loop import Guest
from appliance.vchan.messages import Packets
from components.filter import control
from components.filter.engine import Engine, Outcome
from components.filter.inline import parse
from components.filter.main import Shell, packets
from components.filter.model import Side


class Split(Shell):
    """Ports in, ports out, with a further far side."""

    def __init__(self, guest: Guest, engine: Engine) -> None:
        super().__init__(guest, engine)
        self._outs = {Side.RED: self._red_out, Side.TUNNEL: self._tunnel_out, Side.BLACK: guest.out("black_out")}
        self._from_black = guest.counter("from_black")

    def from_black(self, group: Packets, now: float) -> None:
        self._from_black.add(packets(group))
        if group.peer:  # whatever the clear face says, only the tunnel's packets have a peer
            group = group._replace(peer=0)
        self._deliver(self.engine.judge(group, Side.BLACK, now, self.telling.wall))

    def _deliver(self, outcome: Outcome) -> None:
        passed, answers = outcome
        for side, group in (*passed, *answers):
            # An answer into the tunnel: its destination says whose it is
            sent = group if side is Side.RED else group._replace(peer=0)
            if not self._outs[side].send(sent):
                self._sink_full.add(packets(group))


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    settings = parse("split", guest.settings)
    split = Split(guest, Engine(settings.ruleset, settings.ways))
    red_out = guest.out("red_out")
    guest.receive("red_in", split.from_red, into=(guest.out("tunnel_out"), guest.out("black_out")))
    guest.receive("tunnel_in", split.from_tunnel, into=(red_out,))
    guest.receive("black_in", split.from_black, into=(red_out,))
    guest.timer(split.telling.tick)
    control.serve(guest, split.engine)
