"""Why a packet passes or not, by a rule set alone: what the filter itself says of it, run in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from appliance.rules import layers, packets, space
from appliance.rules.packets import Said, Sample
from appliance.rules.space import LAN
from appliance.rules.work import Work
from appliance.vchan.messages import Frames, Packets
from components.filter.engine import Engine
from components.filter.ethernet import Ethernet
from components.filter.model import Action, RuleSet, Side
from components.filter.ways import Ways


class Told(NamedTuple):
    """What becomes of a packet. ``rule`` is the number of the deciding one, from 0; None: no rule was asked."""

    packet: str
    verdict: Action
    rule: int | None
    why: str
    state: str
    leaves: str
    translation: str
    steps: tuple[tuple[int, str], ...]


class Explainer:
    """Packets one after the other, as the filter would meet them: what one opens, the next may belong to."""

    def __init__(self, ruleset: RuleSet, peers: Mapping[int, str], wall: float, ways: Ways | None = None) -> None:
        """``ways`` are those of the box; where nobody says, one with a tunnel, or a bridge if rules speak of frames."""
        self._ruleset = ruleset
        self._peers = peers
        if ways is None:
            ways = Ways(Side.BLACK, is_bridge=True) if space.has_link(ruleset) else Ways()
        self.has_frames = ways.is_bridge
        self._engine = Engine(ruleset, ways)
        self._ethernet = Ethernet(self._engine)
        self._wall = wall
        self._begin: float | None = None

    def described(self, said: Said) -> Told:
        """A packet in words. One whose state was said goes by the rules alone."""
        sample = said.sample
        if said.state is not None:
            return self._by_rules(sample)
        origin = sample.on(space.ORIGIN) or 0
        link = packets.link_header(sample) if self.has_frames else b""
        return self.raw(packets.payload(sample), origin, link, sample=sample)

    def raw(
        self,
        packet: bytes,
        origin: int,
        link: bytes = b"",
        when: float | None = None,
        sample: Sample | None = None,
    ) -> Told:
        """The bytes of a packet, or in a box that passes frames what is in one with the header ``link``. ``when`` is
        the time it came, in seconds since 1970, if not now.
        """
        side, peer = side_and_peer(origin)
        wall = self._wall if when is None else when
        self._begin = wall if self._begin is None else self._begin
        now = max(0.0, wall - self._begin) + 1.0
        if self.has_frames:
            said = self._ethernet.explain(link, packet, side, now, wall)
            self._ethernet.judge(Frames(packet, len(packet), link), side, now, wall)
        else:
            said = self._engine.explain(packet, side, peer, now, wall)
            self._engine.judge(Packets(packet, len(packet), peer), side, now, wall)
        shown = packets.say(sample, self._peers) if sample is not None else said.packet
        state = ", ".join(filter(None, (said.state, f"it is {said.tracking}" if said.tracking else "")))
        leaves = said.leaves.name.lower() if said.leaves is not None else ""
        return Told(shown, said.verdict, said.rule, said.why, state, leaves, said.translation, said.steps)

    def _by_rules(self, sample: Sample) -> Told:
        built = layers.of_rules(self._ruleset, self._wall, space.VLAN in sample.family.axes)
        trail = layers.point(built, sample, Work())
        last = trail[-1]
        assert isinstance(last.action, Action)
        steps = tuple((entry.number, "holds for some: " + _conditions(entry.when)) for entry in trail[:-1])
        if last.number == LAN:
            why = "its source is one that the red side does not have, or that only the red side has"
        else:
            why = "the rule says so" if last.number >= 0 else "no rule matches it, and what no rule allows is dropped"
        return Told(
            packets.say(sample, self._peers),
            last.action,
            last.number if last.number >= 0 else None,
            why,
            "as it was said to be",
            "",
            "",
            steps,
        )


def _conditions(when: tuple[object, ...]) -> str:
    return ", ".join(name for name, one in zip(("limit", "quota", "date", "hours"), when, strict=True) if one)


def side_and_peer(origin: int) -> tuple[Side, int]:
    """Where a packet comes from, in the filter's words."""
    if origin == space.RED:
        return Side.RED, 0
    return (Side.BLACK, 0) if origin == space.BLACK else (Side.TUNNEL, origin - space.FIRST_PEER + 1)
