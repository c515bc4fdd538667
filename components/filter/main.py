"""The filter between the red side and the tunnel. While it is down nothing passes: there is no other way through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.guest import shortly
from appliance.guest.loop import Guest
from appliance.guest.settings import SettingsError
from appliance.guest.status import Counter
from appliance.vchan.messages import Packets
from components.filter import committing, control
from components.filter.engine import Engine, Outcome
from components.filter.flows import Flow
from components.filter.model import Prefix, Side
from components.filter.settings import parse
from components.filter.shards import End, Shards
from components.filter.telling import Telling


class Shell:
    """Ports in, ports out."""

    def __init__(self, guest: Guest, engine: Engine) -> None:
        self.engine = engine
        self._encrypts = guest.spread("tunnel_out")
        self._tunnel_out = self._encrypts[0]
        self._red_out = guest.out("red_out")
        self._from_red = guest.counter("from_red")
        self._from_tunnel = guest.counter("from_tunnel")
        self._sink_full = guest.counter("sink_full")
        self.telling = Telling(guest, engine)
        self._shorter: dict[Side, Any] = {}

    def shorten(self, guest: Guest) -> None:
        """What the engine leases goes the short way, where there is one."""
        short = shortly.module("components.filter.short")
        ends = [guest.short_end(port) for port in ("red_in", "tunnel_out", "tunnel_in", "red_out")]
        if short is None or None in ends:
            return
        for side, inward, outward, counter in (
            (Side.RED, ends[0], ends[1], self._from_red),
            (Side.TUNNEL, ends[2], ends[3], self._from_tunnel),
        ):

            def went(
                flow: Flow, packets: int, octets: int, last: float, side: Side = side, counter: Counter = counter
            ) -> None:
                counter.add(packets)
                self.engine.went(flow, side, packets, octets, last)

            way = short.Passing(inward, outward, side is Side.TUNNEL, lambda: self.engine.flows.changes, went)
            self._shorter[side] = way
            guest.shorten(way)

    def _lease(self, group: Packets, side: Side, outcome: Outcome, now: float) -> None:
        """A lone packet that passed, and changed nothing, stands for the next ones like it."""
        passed, answers = outcome
        if answers or len(passed) != 1 or passed[0][1] is not group:
            return
        leased = self.engine.lease(memoryview(group.packets), side, group.peer, now)
        if leased is not None:
            self._shorter[side].lease(leased.flow, leased.expected, leased.mask, group.peer, leased.until)

    def from_red(self, group: Packets, now: float) -> None:
        self._from_red.add(packets(group))
        if group.peer:  # whatever red says, only the tunnel's packets have a peer
            group = group._replace(peer=0)
        outcome = self.engine.judge(group, Side.RED, now, self.telling.wall)
        self._deliver(outcome)
        if self._shorter and len(group.packets) == group.size:
            self._lease(group, Side.RED, outcome, now)

    def from_tunnel(self, group: Packets, now: float) -> None:
        self._from_tunnel.add(packets(group))
        outcome = self.engine.judge(group, Side.TUNNEL, now, self.telling.wall)
        self._deliver(outcome)
        if self._shorter and len(group.packets) == group.size:
            self._lease(group, Side.TUNNEL, outcome, now)

    def _deliver(self, outcome: Outcome) -> None:
        """Sends what passes and what is answered to the sides where that goes."""
        passed, answers = outcome
        for side, group in (*passed, *answers) if answers else passed:
            if side is Side.RED:
                if not self._red_out.send(group):
                    self._sink_full.add(packets(group))
            else:
                self._into_tunnel(group)

    def _into_tunnel(self, group: Packets) -> None:
        if not self._tunnel_out.send(group if not group.peer else group._replace(peer=0)):
            self._sink_full.add(packets(group))


class SharingShell(Shell):
    """The same where several pairs of crypto domains share the peers: each group goes to the pair of its destination's
    peer, and no pair brings in what is not from its own peers.
    """

    def __init__(self, guest: Guest, engine: Engine, shards: Sequence[Sequence[Prefix]]) -> None:
        super().__init__(guest, engine)
        self._shards = Shards(shards)
        self._numbers = {name: number for number, name in enumerate(guest.senders("tunnel_in"))}

    def _into_tunnel(self, group: Packets) -> None:
        for pair, part in self._shards.split(group._replace(peer=0), End.DESTINATION):
            # What is nobody's goes to the first, which counts it
            if not self._encrypts[pair or 0].send(part):
                self._sink_full.add(packets(part))

    def from_one(self, decrypt: str, group: Packets, now: float) -> None:
        """From one of several decrypts. Whose a source address is, only here is known of all peers: a decrypt knows its
        own, and would let a peer with a wide prefix speak for another pair's peer with a narrow one in it.
        """
        number = self._numbers[decrypt]
        is_own = group.peer > 0 and (group.peer - 1) % len(self._encrypts) == number
        parts = self._shards.split(group, End.SOURCE) if is_own else []
        own = [part for pair, part in parts if pair == number]
        if foreign := packets(group) - sum(map(packets, own)):
            self._from_tunnel.add(foreign)
            self.engine.denied[Side.TUNNEL]["foreign"] += foreign
        for part in own:
            self.from_tunnel(part, now)


def packets(group: Packets) -> int:
    return -(-len(group.packets) // group.size)


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    settings = parse("filter", guest.settings)
    encrypts, red_out = guest.spread("tunnel_out"), guest.out("red_out")
    if len(settings.shards) != (len(encrypts) if len(encrypts) > 1 else 0):
        raise SettingsError(
            "shards", f"must be one for each encrypt, of which there are {len(encrypts)}, or none for one"
        )
    shell: Shell
    if len(encrypts) == 1:
        shell = Shell(guest, Engine(settings.ruleset))
        guest.receive("tunnel_in", shell.from_tunnel, into=(red_out,))
        shell.shorten(guest)
    else:
        shell = sharing = SharingShell(guest, Engine(settings.ruleset), settings.shards)
        guest.receive_many("tunnel_in", sharing.from_one, into=(red_out,))
    guest.receive("red_in", shell.from_red, into=encrypts)
    guest.timer(shell.telling.tick)
    control.serve(guest, shell.engine)
    committing.serve(guest, shell.engine, settings.trust)
