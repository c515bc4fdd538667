"""Why a packet passes or not, told by what decides on packets: Engine.decide, whose word is not acted on."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from components.filter import tcp
from components.filter.headers import TCP, Kind, Malformed, parse
from components.filter.lookup import UNTRACKED, Step, facts_of
from components.filter.model import Action, Link, Side, Tracking
from components.filter.nat import reverse
from components.filter.records import describe, describe_frame

if TYPE_CHECKING:
    from components.filter.engine import Engine

_MOST_STEPS: Final = 64
_NUMBERS: Final = Struct("!II")  # sequence and acknowledgment number, from byte 4 of a TCP header on

WHY: Final = {
    "malformed": "the headers are not what an honest host sends",
    "no rule": "no rule matches it, and what no rule allows is dropped",
    "dropped": "the rule says so",
    "rejected": "the rule says so, and the sender is told",
    "no flow": "it is no beginning, and of no flow that is known",
    "unrelated": "an ICMP error about no flow that is known, or not to whom it is about",
    "unsent": "an ICMP error about a segment that was not sent, or has long arrived",
    "control": "ICMP that is never forwarded",
    "fragment": "a later fragment of a datagram whose first one has not passed",
    "spoofed": "its source belongs on another side",
    "martian": "no packet between two networks has such addresses",
    "window": "its sequence numbers are outside the connection's windows",
    "flags": "no honest stack sends TCP flags like these together",
    "reset": "a reset whose sequence number is not the connection's",
    "handshake": "it does not answer the connection's SYN",
    "no port": "every source port that it could be given is taken",
}
"""What a word for a denial means."""

_TRACKING: Final[dict[int, str]] = {UNTRACKED: "untracked", **{one: str(one.name).lower() for one in Tracking}}


class Explanation(NamedTuple):
    """What becomes of a packet, and why."""

    verdict: Action
    rule: int | None  # number of the deciding rule
    why: str
    packet: str  # as the rules were asked about it: translated, if it is
    tracking: str  # new, established, related, invalid, untracked; empty if rules were not asked
    state: str  # what was known of its flow
    leaves: Side | None  # the side that it leaves by, if it passes
    translation: str  # what it leaves as, if that is another
    steps: tuple[
        tuple[int, str], ...
    ]  # rules that were asked in turn, and what did not hold; empty for the deciding one


def explain(
    engine: Engine, packet: bytes, side: Side, peer: int, now: float, wall: float, link: Link | None = None
) -> Explanation:
    """Changes nothing: no flow is made, no token taken, nothing counted."""
    try:
        header = parse(packet)
    except Malformed as error:
        return denied("malformed", str(error))
    if header.kind is Kind.LATER:
        said = engine.fragments[side].later(header.fragment, header.offset, now)
        if said is None:
            return denied("fragment")
        why = "a later fragment goes as the first one of its datagram did"
        return Explanation(Action.ALLOW, said.rule, why, "", "", "the first fragment has passed", said.way, "", ())
    steps: list[Step] = []
    made = engine.decide(packet, header, side, peer, link, now, wall, steps)
    rule = made.rule if made.rule >= 0 else None
    rules = engine.ruleset.rules
    verdict = Action.ALLOW if not made.why else rules[rule].action if rule is not None else Action.DROP
    if made.why == "no port":
        verdict = Action.DROP
    nat = made.nat or (made.flow.nat if made.flow is not None else None)
    translation = ""
    if nat is not None and not made.why and header.kind is not Kind.ERROR:
        leaves = nat.far if side is Side.RED else reverse(nat.near)
        translation = describe(facts_of(leaves, side, peer, 0, header.icmp, len(packet), link))
    return Explanation(
        verdict,
        rule,
        "the rule says so" if not made.why else WHY[made.why],
        describe(made.facts) if made.facts is not None else "",
        _TRACKING[made.tracking] if made.facts is not None else "",
        made.state,
        made.way if not made.why else None,
        translation,
        tuple(steps[-_MOST_STEPS:]),
    )


def explain_frame(engine: Engine, link: Link, octets: int, side: Side, now: float, wall: float) -> Explanation:
    """The same of a frame that carries no IP."""
    steps: list[Step] = []
    number = engine.decide_link(link, octets, side, now, wall, steps)
    verdict = engine.ruleset.rules[number].action if number >= 0 else Action.DROP
    return Explanation(
        verdict,
        number if number >= 0 else None,
        WHY["no rule"] if number < 0 else "the rule says so",
        describe_frame(link, side),
        "",
        "frames have none",
        (Side.BLACK if side is Side.RED else Side.RED) if verdict is Action.ALLOW else None,
        "",
        tuple(steps[-_MOST_STEPS:]),
    )


def in_sequence(engine: Engine, packet: bytes, side: Side, now: float, wall: float) -> bytes:
    """The same packet; a TCP segment of a connection that is followed, and an ICMP error about one, have the numbers in
    it that come next. Nobody who asks about a connection knows them, and nobody is to find them out by asking.
    """
    try:
        header = parse(packet)
    except Malformed:
        return packet
    ends = header.ends if header.inner is None else reverse(header.inner)
    at = header.start if header.inner is None else header.about
    if header.kind not in (Kind.FLOW, Kind.ERROR) or ends.protocol[0] != TCP or not at:
        return packet
    flow = engine.find(ends, side, b"", now, wall)
    if flow is None:
        return packet
    is_about = header.kind is Kind.ERROR  # a segment that the other side sent: of that the sequence number is there
    sender = side if not is_about else flow.far if side is Side.RED else Side.RED
    numbers = tcp.expected(flow, sender)
    if numbers is None:
        return packet
    known = _NUMBERS.pack(*numbers)[: 4 if is_about else 8]
    return packet[: at + 4] + known + packet[at + 4 + len(known) :]


def denied(why: str, more: str = "") -> Explanation:
    """What no rule is asked about."""
    return Explanation(Action.DROP, None, f"{WHY[why]}: {more}" if more else WHY[why], "", "", "", None, "", ())
