"""What becomes of packets: asked of the box, where the connections count that it knows, or found out here by rules.

The box's answer is its own word: of what decides, its number is held against the rules that were signed. What state a
connection is in, only the box can know.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from septum.admin.v1 import admin_pb2 as pb

from appliance.ctl import chain, configuration, say
from appliance.ctl.configuration import Configuration
from appliance.ctl.connection import Box
from appliance.ctl.trouble import Exit, Trouble
from appliance.rules import packets, space
from appliance.rules.explained import Explainer, side_and_peer
from appliance.rules.packets import Said
from components.filter.model import Action, RuleSet, Side

_EXAMPLE: Final = "'tcp 10.1.0.5:51000 > 192.0.2.7:443'"
PLAIN: Final = "the rule says so"


class Outcome(NamedTuple):
    """What becomes of a packet. ``rule`` is the number of the deciding one, from 0; None: none does."""

    packet: str
    verdict: Action
    rule: int | None
    why: str
    state: str


@dataclass(frozen=True)
class Question:
    """Packets, and the rules that they are about."""

    made: Configuration
    ruleset: RuleSet
    names: Mapping[int, str]
    explainer: Explainer
    packets: Sequence[Said]

    def alone(self, said: Said) -> Outcome:
        """By the rules alone, after the packets that came before."""
        if (stray := self.stray(said)) is not None:
            return stray
        told = self.explainer.described(said)
        return Outcome(told.packet, told.verdict, told.rule, told.why, told.state)

    def row(self, found: Outcome) -> dict[str, Any]:
        """For people and for machines."""
        lines = say.clean_lines(self.made.rules)
        line = self.ruleset.rules[found.rule].line if found.rule is not None else 0
        return {
            "packet": found.packet,
            "verdict": found.verdict.name.lower(),
            "line": line or None,
            "rule": lines[line - 1].strip() if 0 < line <= len(lines) else None,
            "why": found.why,
            "state": found.state,
        }

    def stray(self, said: Said) -> Outcome | None:
        """What becomes of a packet that never comes to the filter: its source is not its peer's. None: it does."""
        peer = _origin(said)[1]
        entry = next((one for one in self.made.peers if one.number == peer), None)
        source = said.sample.on(space.SOURCE)
        if entry is None or source is None:
            return None
        address = (ipaddress.IPv4Address if said.sample.family.version == 4 else ipaddress.IPv6Address)(source)
        if any(address in ipaddress.ip_network(prefix) for prefix in entry.allowed_ips):
            return None
        why = f"{address} is none of the addresses of {entry.name}: it never comes to the filter"
        return Outcome(packets.say(said.sample, self.names), Action.DROP, None, why, "")


def read(made: Configuration, texts: Sequence[str]) -> Question:
    """The packets that are described. Errors: Trouble (USAGE), and of rules that cannot be read."""
    ruleset = configuration.compile_rules(made).ruleset
    names = {peer.number: peer.name for peer in made.peers}
    numbers = {name: number for number, name in names.items()}
    try:
        said = [packets.parse(text, space.has_link(ruleset), numbers) for text in texts]
    except ValueError as error:
        raise Trouble(Exit.USAGE, str(error), _EXAMPLE) from None
    return Question(made, ruleset, names, Explainer(ruleset, names, time.time()), said)


def _origin(said: Said) -> tuple[Side, int]:
    return side_and_peer(said.sample.on(space.ORIGIN) or 0)


def live(box: Box, asked: Question, said: Said, digest: bytes) -> Outcome:
    """As the box has it now, whose filter is to go by the compiled rules of that digest. A packet whose state was said
    goes by the rules alone. Errors: Trouble.
    """
    if said.state is not None:
        return asked.alone(said)
    side, peer = _origin(said)
    if side is Side.BLACK or not said.sample.family.version:
        why = "this box filters IP packets between the red side and the tunnel, and no others"
        raise Trouble(Exit.USAGE, why, f"{_EXAMPLE}, 'from peer NAME tcp …'")
    if peer and peer not in asked.names:
        raise Trouble(Exit.USAGE, f"there is no peer number {peer}", "septumctl peers list")
    if (stray := asked.stray(said)) is not None:
        return stray
    request = pb.ExplainPacketRequest(
        raw=packets.build(said.sample),
        side=pb.SIDE_TUNNEL if peer else pb.SIDE_RED,
        peer=asked.names.get(peer, ""),
    )
    reply = box.ask(box.rules.ExplainPacket, request, "what the filter says")
    rule = reply.rule - 1 if reply.rule else None
    _check(asked, reply, digest)
    state = ", ".join(
        filter(
            None,
            (
                say.clean(reply.state),
                f"it is {say.clean(reply.tracking)}" if reply.tracking else "",
                "translated" if reply.translated else "",
            ),
        )
    )
    return Outcome(packets.say(said.sample, asked.names), Action(reply.verdict), rule, say.clean(reply.why), state)


def _check(asked: Question, reply: pb.PacketExplanation, digest: bytes) -> None:
    """Whether the box's word goes together with what was signed. Errors: Trouble."""
    if reply.digest != digest.hex():
        why = "the filter does not go by the rules in force: they were replaced a moment ago, or it is being built anew"
        raise Trouble(Exit.OVERTAKEN, why, "the same again; septumctl domains", reason="STALE")
    rules = asked.ruleset.rules
    rule = rules[reply.rule - 1] if 0 < reply.rule <= len(rules) else None
    verdict = int(reply.verdict)
    if verdict not in set(Action) or (rule is None) == bool(reply.rule):
        raise chain.Unbelievable("it speaks of a rule or a verdict that there is not")
    if verdict == Action.ALLOW and (rule is None or rule.action is not Action.ALLOW):
        raise chain.Unbelievable("it says that a packet passes by a rule that lets none pass")
