"""The filter: rules, flows, and what becomes of each packet.

A packet is *new*, *established*, *related* or *invalid* as it stands to the flows that are known, and goes by the first
rule that matches it; where none does, it is dropped. What a rule allows as new makes a flow. What each packet of a flow
goes by is found once a direction and kept, as long as nothing but addresses, ports and the flow decide: then a packet,
or a whole run of them, costs a look at the table of flows, however many rules there are.

* From the red side, TCP in the midst of a connection may be new: it is picked up (see pickup.py). From elsewhere only a
  SYN is, and a SYN is always new, unless it comes from who opened the flow: what the red side opened is no way in.
* Resets, echo replies and ICMP errors are never new.
* ICMP errors are related if the packet that they carry the start of belongs to a flow, and came from whom they go to.

``decide`` is what says so, of a packet and a moment, and changes nothing, but that it ends a flow which replaced rules
no longer allow, if it comes upon one; ``judge`` acts on it, ``explain`` tells it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Final, NamedTuple

from appliance.vchan.messages import Packets
from components.filter import tcp
from components.filter.explain import Explanation, explain
from components.filter.flows import SHARES, TIMEOUTS, UNKNOWN, Flow, FlowTable, State, first_state
from components.filter.fragments import Fragments
from components.filter.headers import (
    ACK,
    FIN,
    ICMP,
    ICMPV6,
    RST,
    SYN,
    TCP,
    UDP,
    Endpoints,
    Header,
    Kind,
    Malformed,
    parse,
)
from components.filter.leases import Lease, lease
from components.filter.limits import Bucket, Conditions
from components.filter.listing import FlowRow, Talker, ends_of, list_flows, talkers, told
from components.filter.lookup import UNTRACKED, Facts, Found, Lookup, Step, facts_of
from components.filter.model import Action, Link, RuleSet, Side, Tracking
from components.filter.nat import Exhausted, Nat, Rewriting, free_port, reverse
from components.filter.pickup import Pickup, question, turned_round
from components.filter.records import Records, RuleHits
from components.filter.reject import answer
from components.filter.twin import run
from components.filter.ways import Sources, Ways

# Headers without options, up to the control bits of TCP: (IPv4) total length, fragment; (IPv6) payload length; then the
# protocol, both addresses, both ports
_PLAIN4: Final = Struct("!2xH2xHxB2x8s4s8xH")
_PLAIN6: Final = Struct("!4xHBx32s4s8xH")
_NAMED: Final = {TCP: bytes((TCP,)), UDP: bytes((UDP,))}
_PLAINLY: Final = SYN | FIN | RST | ACK  # of these, just ACK is what the midst of a connection has
_TURNING: Final = SYN | FIN | RST  # flags that change a flow's state
_ANSWERS: Final = 64.0  # a second, to each side: what rejected packets are answered with
_ANSWERS_AT_ONCE: Final = 128.0
_JUDGED_AT_ONCE: Final = 2048  # flows, when rules are replaced: some 20 ms
_JUDGED_IN_A_TURN: Final = 256
_NOTHING: Final = ()
_RED: Final = Side.RED  # a look at a member of an enumeration costs as much as ten others do
_PATIENCE: Final = dict(TIMEOUTS)  # looked at for every packet, which a proxy makes slower
_ANSWERED: Final = {State.ASKED: State.ANSWERED}


class Outcome(NamedTuple):
    """What passes, with the side that it leaves by; and answers and questions, with the side that they go to."""

    passed: list[tuple[Side, Packets]]
    answers: Sequence[tuple[Side, Packets]]


class Replaced(NamedTuple):
    """What a new rule set has meant for the flows there were, so far."""

    kept: int = 0
    ended: int = 0
    left: int = 0  # not judged yet: each is before its next packet passes


class Decision(NamedTuple):
    """What is to become of a packet."""

    why: str  # it is denied, in words that say nothing of what is in it; empty: it passes
    rule: int  # that decided, or -1
    is_static: bool  # and decides on all packets with these addresses, ports and tracking
    tracking: int
    facts: Facts | None = None  # that rules were asked about
    way: Side = Side.RED  # that it leaves by
    flow: Flow | None = None  # that it belongs to
    seen: tcp.Segment | None = None
    turn: tcp.Turn | None = None  # what it makes of the flow
    opens: bool = False  # a flow
    nat: Rewriting | None = None  # of the flow that it opens
    state: str = ""  # what was known of its flow, for people


class Compiled:
    """A rule set, ready to be asked."""

    def __init__(self, rules: RuleSet, ways: Ways) -> None:
        self.rules = rules.rules
        self.lookup = Lookup(rules.rules)
        self.conditions = Conditions(rules.rules)
        self.nat = Nat(rules.translations) if rules.translations else None
        self.sources = Sources(rules.lan, ways)


class Passing(NamedTuple):
    """What the later fragments of a datagram get, as its first one did."""

    way: Side
    rule: int
    nat: Rewriting | None


class Engine:
    """The verdict core: groups and time in, groups out."""

    def __init__(self, ruleset: RuleSet, ways: Ways | None = None, shares: Mapping[Side, int] = SHARES) -> None:
        self.ways = ways or Ways()
        self.ruleset = ruleset
        self._compiled = Compiled(ruleset, self.ways)
        self.records = Records(ruleset)
        self.flows = FlowTable(shares)
        self.fragments: dict[Side, Fragments[Passing]] = {side: Fragments() for side in Side}
        self._pickup = Pickup()
        self._answer_rates = {side: Bucket(_ANSWERS, _ANSWERS_AT_ONCE) for side in Side}
        self._answers: list[tuple[Side, Packets]] = []
        self._generation = 0  # of the rules
        self._latest: Flow | None = None  # that a packet was seen of, in the group judged last
        self.unjudged: list[bytes] = []  # keys of flows that older rules let open, for ``review``
        self._kept = self._ended = 0
        self._seed = hash(b"ports")  # differs from one start to the next, as hashes of bytes do
        self.passed = 0  # packets
        self.rejected = 0  # packets that were answered
        self.denied: dict[Side, Counter[str]] = {side: Counter() for side in Side}
        """Packets denied, by where they came from and why."""

    # what is asked of it ----------------------------------------------------------------------------------------------

    def judge(self, group: Packets, side: Side, now: float, wall: float, link: Link | None = None) -> Outcome:
        """What of a group from ``side`` passes, and where to; and what is said to whom about the rest. ``link`` is the
        header of the frames that the packets came in, if they did. What passes whole is the same object, not a copy.
        """
        blob, size = memoryview(group.packets), group.size
        length = len(blob)
        zone = _zone(link)
        # What is most of the traffic: all of one flow
        living = self._living(blob, 0, min(size, length), side, group.peer, zone, now)
        self._latest = None
        if living is not None and living[0].nat is None and living[1] * size >= length:
            self._latest = living[0]
            self.passed += living[1]
            return Outcome([(living[0].far if side is _RED else _RED, group)], _NOTHING)
        passed: list[tuple[Side, Packets]] = []
        pieces: list[bytes | memoryview] = []
        way, whole, at = _RED, True, 0
        while at < length:
            item = min(size, length - at)
            why, piece, changed = "", None, None
            if at:
                living = self._living(blob, at, item, side, group.peer, zone, now)
            if living is not None:
                flow, count = living
                leaves = flow.far if side is _RED else _RED
                changed = flow.nat
            else:
                why, count, leaves, piece = self._one(blob, at, item, side, group.peer, link, now, wall)
            end = at + count * item
            if why:
                self.denied[side][why] += count
                whole = False
            else:
                self.passed += count
                if leaves is not way:
                    if pieces:
                        passed.append((way, group._replace(packets=b"".join(pieces))))
                        pieces, whole = [], False
                    way = leaves
                if changed is not None:
                    start = 4 * (blob[at] & 15)
                    pieces += [changed.rewrite(blob[a : a + item], start, side) for a in range(at, end, item)]
                    whole = False
                elif piece is not None:
                    pieces.append(piece)
                    whole = False
                else:
                    pieces.append(blob[at:end])
            at = end
        if pieces:
            passed.append((way, group if whole else group._replace(packets=b"".join(pieces))))
        if not self._answers:
            return Outcome(passed, _NOTHING)
        answers, self._answers = self._answers, []
        return Outcome(passed, answers)

    def judge_link(self, link: Link, packets: int, octets: int, side: Side, now: float, wall: float) -> Action:
        """What becomes of frames that carry no IP, ``octets`` bytes in all: one verdict on all of them."""
        compiled = self._compiled
        rule = self.decide_link(link, octets, side, now, wall)
        action = compiled.rules[rule].action if rule >= 0 else Action.DROP
        if rule >= 0:
            compiled.conditions.take(rule, octets, now)
            self.records.hit(rule, packets, octets, now)
            if compiled.rules[rule].log:
                self.records.log_frame(rule, link, side, now)
        if action is Action.ALLOW:
            self.passed += packets
        else:
            self.denied[side]["no rule" if rule < 0 else "dropped"] += packets
        return action

    def decide_link(
        self, link: Link, octets: int, side: Side, now: float, wall: float, steps: list[Step] | None = None
    ) -> int:
        """The rule that decides about such frames, or -1. Changes nothing."""
        compiled = self._compiled
        return compiled.lookup.first_of_frame(link, side, octets, compiled.conditions, now, wall, steps)

    def compiled(self, ruleset: RuleSet) -> Compiled:
        """``ruleset`` as ``replace`` needs it: all that takes long, or memory, without going by it yet."""
        return Compiled(ruleset, self.ways)

    def replace(self, ruleset: RuleSet, now: float, wall: float, ready: Compiled | None = None) -> Replaced:
        """Goes by another rule set from now on. Each living flow is judged as the packet that opened it would be now:
        what the new rules still allow lives on, the rest ends. Many are judged later, by ``review``, or when their next
        packet comes: none passes by what the older rules allowed.
        """
        compiled, records = ready or Compiled(ruleset, self.ways), Records(ruleset)
        keys = list(self.flows.by_key)
        for flow in self.flows.by_key.values():
            self.flows.forget_rules(flow)  # the quick way takes none that is not judged
        for fragments in self.fragments.values():
            fragments.clear()
        records.take_over(self.records)
        self.ruleset, self._compiled, self.records = ruleset, compiled, records
        self._generation += 1
        self.unjudged, self._kept, self._ended = keys, 0, 0
        self.review(now, wall, _JUDGED_AT_ONCE)
        return self.replaced

    @property
    def replaced(self) -> Replaced:
        """What the rule set in force has meant for the flows that there were before it."""
        return Replaced(self._kept, self._ended, len(self.unjudged))

    def review(self, now: float, wall: float, most: int = _JUDGED_IN_A_TURN) -> bool:
        """Judges some of the flows that older rules let open. Whether any are left."""
        keys = self.unjudged[-most:]
        del self.unjudged[-most:]
        for key in keys:
            flow = self.flows.by_key.get(key)
            if flow is not None and flow.generation != self._generation:
                self._judged(flow, now, wall)
        return bool(self.unjudged)

    def _judged(self, flow: Flow, now: float, wall: float) -> bool:
        """Whether the rules in force allow a flow: else it ends."""
        rule = self._still(flow, now, wall) if flow.expires > now else UNKNOWN
        if rule < 0:
            self.flows.forget(flow)
            self._ended += 1
            return False
        flow.rule, flow.generation = rule, self._generation
        self._kept += 1
        return True

    def explain(
        self, packet: bytes, side: Side, peer: int, now: float, wall: float, link: Link | None = None
    ) -> Explanation:
        """What would become of a packet, and why. Changes nothing."""
        return explain(self, packet, side, peer, now, wall, link)

    def hits(self) -> list[RuleHits]:
        """How often each rule decided since the rule set was loaded."""
        return self.records.hits()

    def list_flows(self, start: int, most: int, now: float) -> list[FlowRow]:
        """At most ``most`` living flows, from the one of number ``start`` on, in the order of their opening."""
        return list_flows(self.flows, start, most, self._generation, now)

    def talkers(self, most: int, now: float) -> list[Talker]:
        """Who opened the flows that live and carried most: by address, the greediest first."""
        return talkers(self.flows, most, self._generation, now)

    def tick(self, now: float) -> None:
        """To be called about once a second: forgets what has expired."""
        self.flows.sweep(now)

    # the short way ----------------------------------------------------------------------------------------------------

    def lease(self, packet: memoryview, side: Side, peer: int, now: float) -> Lease | None:
        """Packets like this one, which was just judged and passes, may pass unasked for a moment: see leases.py."""
        flow = self._latest
        return None if flow is None else lease(flow, packet, side, peer, now)

    def went(self, flow: Flow, side: Side, packets: int, octets: int, last: float) -> None:
        """So much of ``flow`` passed by a lease, from ``side``, ``last`` at that time."""
        rule = flow.near_rule if side is _RED else flow.far_rule
        self.passed += packets
        flow.packets += packets
        flow.octets += octets
        flow.expires = max(flow.expires, last + _PATIENCE[flow.state])
        self.records.hit(rule, packets, octets, last)

    # the quick way ----------------------------------------------------------------------------------------------------

    def _living(
        self, blob: memoryview, at: int, size: int, side: Side, peer: int, zone: bytes, now: float
    ) -> tuple[Flow, int] | None:
        """The flow that the packet of ``size`` bytes at ``at`` is in the midst of, and passes for; and how many packets
        of it there are from there on.

        None for all that is not plainly so: other headers than IP's and TCP's or UDP's without options, fragments, a
        packet that opens or ends something, a flow whose packets do not all go by one rule. What follows here from one
        look, the long way finds by parsing.
        """
        if blob[at] == 0x45 and size >= 40:
            length, fragment, protocol, addresses, ports, control = _PLAIN4.unpack_from(blob, at)
            if length != size or fragment & 0x3FFF:
                return None
            start = 20
        elif blob[at] >> 4 == 6 and size >= 60:
            length, protocol, addresses, ports, control = _PLAIN6.unpack_from(blob, at)
            start = 40
            if length != size - 40:
                return None
        else:
            return None
        if protocol == TCP:  # data offset, reserved, flags
            if control & _PLAINLY != ACK or not 20 <= (control >> 12) * 4 <= size - start:
                return None
        elif protocol != UDP:
            return None
        if side is _RED:
            flow = self.flows.by_key.get(_NAMED[protocol] + addresses + ports + zone)
            if flow is None or flow.expires <= now:
                return None
            rule = flow.near_rule
        else:
            half = len(addresses) // 2
            key = b"".join((_NAMED[protocol], addresses[half:], addresses[:half], ports[2:], ports[:2], zone))
            flow = self.flows.by_key.get(key)
            if flow is None or flow.nat is not None:
                flow = self.flows.by_alias.get(key)
                if flow is None:
                    return None
            if flow.expires <= now or flow.far is not side or flow.peer != peer:
                return None
            rule = flow.far_rule
        if rule < 0:
            return None
        count = run(blob, at, size, protocol == TCP)
        if flow.near_end is not None and protocol == TCP:
            if not control & ACK:
                return None
            sender, receiver = (flow.near_end, flow.far_end) if side is _RED else (flow.far_end, flow.near_end)
            first = at + start + 4
            data = size - start - (control >> 12) * 4
            if not tcp.follow_train(sender, receiver, blob, first, first + (count - 1) * size, data):  # type: ignore[arg-type]
                return None
        flow.expires = now + _PATIENCE[flow.state]
        octets = count * size
        flow.packets += count
        flow.octets += octets
        records = self.records
        records.packets[rule] += count
        records.octets[rule] += octets
        records.last[rule] = now
        return flow, count

    # the long way -----------------------------------------------------------------------------------------------------

    def _one(
        self, blob: memoryview, at: int, size: int, side: Side, peer: int, link: Link | None, now: float, wall: float
    ) -> tuple[str, int, Side, bytes | None]:
        """The verdict on the packet of ``size`` bytes at ``at``, for how many from there on it stands, the side that
        they leave by, and what the packet has become if it was changed (it is one then).
        """
        packet = bytes(blob[at : at + size])
        try:
            header = parse(packet)
        except Malformed:
            return "malformed", 1, Side.RED, None
        if header.kind is Kind.LATER:
            return self._later(packet, header, side, now)
        made = self.decide(packet, header, side, peer, link, now, wall)
        count = run(blob, at, size, header.ends.protocol[0] == TCP) if _stands_for_more(made, header) else 1
        self._act(made, packet, header, side, peer, count, now, wall)
        if made.why:
            return made.why, count, Side.RED, None
        nat = made.nat or (made.flow.nat if made.flow is not None else None)
        if header.fragment:
            passing = Passing(made.way, made.rule, nat)
            self.fragments[side].first(header.fragment, header.covered, passing, now)
        if nat is None:
            return "", count, made.way, None
        change = nat.rewrite_error if header.kind is Kind.ERROR else nat.rewrite
        return "", 1, made.way, change(packet, header.start, side)

    def _later(self, packet: bytes, header: Header, side: Side, now: float) -> tuple[str, int, Side, bytes | None]:
        said = self.fragments[side].later(header.fragment, header.offset, now)
        if said is None:
            return "fragment", 1, Side.RED, None
        self.records.hit(said.rule, 1, len(packet), now)
        return "", 1, said.way, None if said.nat is None else said.nat.rewrite(packet, 0, side)

    def decide(
        self,
        packet: bytes,
        header: Header,
        side: Side,
        peer: int,
        link: Link | None,
        now: float,
        wall: float,
        steps: list[Step] | None = None,
    ) -> Decision:
        """What is to become of a packet that is no later fragment. Changes nothing."""
        if header.kind is Kind.ERROR:
            return self._about_error(packet, header, side, peer, link, now, wall, steps)
        ends, kind = header.ends, header.kind
        zone = _zone(link)
        flow = ended = seen = turn = facts = forwarded = None
        if kind in (Kind.FLOW, Kind.REPLY):
            flow = self.find(ends, side, zone, now, wall)
        if flow is not None and flow.far is not side and side is not Side.RED:
            return Decision("no flow", UNKNOWN, False, Tracking.INVALID, state="the flow is another side's")
        is_tcp = ends.protocol[0] == TCP
        is_opening = not is_tcp or header.flags & (SYN | ACK) == SYN
        if is_tcp and header.start:
            seen = tcp.segment(packet, header.start)
        invalid = ""
        if flow is None:
            facts, forwarded = self._facts(header, None, side, peer, len(packet), link)
            # Not where it was sent, but where it goes: what is forwarded comes for an address that is none of the LAN's
            if why := self._compiled.sources.refusal(ends.source, facts.destination, side):
                return Decision(why, UNKNOWN, False, Tracking.INVALID, state="no flow")
            state = "no flow"
            if kind is Kind.CONTROL:
                tracking = UNTRACKED
            elif kind is not Kind.FLOW or (is_tcp and not tcp.may_begin(header.flags, side is Side.RED)):
                tracking, invalid = Tracking.INVALID, "no flow" if kind is not Kind.STRAY else "control"
            else:
                tracking = Tracking.NEW
        else:
            state = told(flow, now) if steps is not None else ""
            if is_tcp and is_opening and (side is not flow.opener or tcp.is_ended(flow)):
                tracking = Tracking.NEW
                if tcp.is_ended(flow):
                    flow, ended = None, flow  # makes way for a new one
            else:
                if seen is not None:
                    turn = tcp.turn(flow, side, seen)
                    invalid = turn.why
                tracking = Tracking.NEW if side is flow.opener and not flow.is_answered else Tracking.ESTABLISHED
                if invalid:
                    tracking = Tracking.INVALID
        if is_tcp and not tcp.is_sensible(header.flags):
            tracking, invalid = Tracking.INVALID, "flags"
        if facts is None:
            facts, forwarded = self._facts(header, flow, side, peer, len(packet), link)
        found = self._compiled.lookup.first(facts, tracking, self._compiled.conditions, now, wall, steps)
        why = self._verdict(found, invalid)
        way = (
            Side.RED if side is not Side.RED else flow.far if flow is not None else self.ways.leaves(facts.destination)
        )
        nat, opens = None, flow is None and tracking == Tracking.NEW and not why
        if opens and self._compiled.nat is not None and len(ends.source) == 4:
            try:
                nat = self._translation(ends, facts, forwarded, side, way, zone, ended, now, wall)
            except Exhausted:
                why, opens = "no port", False
        if tracking == Tracking.INVALID:
            flow = None  # is not touched by it
        is_static = found.is_static and not invalid
        return Decision(why, found.rule, is_static, tracking, facts, way, flow, seen, turn, opens, nat, state)

    def find(self, ends: Endpoints, side: Side, zone: bytes, now: float, wall: float) -> Flow | None:
        """The living flow that a packet with these ends, from ``side``, is of."""
        if side is Side.RED:
            flow = self.flows.near(ends.key() + zone, now)
        else:
            flow = self.flows.afar(ends.reverse_key() + zone, now)
        return flow if flow is not None and self._lives(flow, now, wall) else None

    def _lives(self, flow: Flow, now: float, wall: float) -> bool:
        """Whether the rules in force allow a flow: if they have not been asked yet, they are."""
        return flow.generation == self._generation or self._judged(flow, now, wall)

    def _about_error(
        self,
        packet: bytes,
        header: Header,
        side: Side,
        peer: int,
        link: Link | None,
        now: float,
        wall: float,
        steps: list[Step] | None,
    ) -> Decision:
        """An ICMP error must go to whom the packet came from that it is about, and that packet's flow must live."""
        ends, inner = header.ends, header.inner
        assert inner is not None
        flow = self.find(reverse(inner), side, _zone(link), now, wall)
        if flow is not None and (ends.destination != inner.source or (side is not Side.RED and flow.far is not side)):
            flow = None
        facts, _ = self._facts(header, None, side, peer, len(packet), link)
        if flow is not None and flow.nat is not None:
            true = flow.nat.true()
            facts = facts._replace(destination=true.destination if side is Side.RED else true.source)
        if why := self._compiled.sources.refusal(ends.source, facts.destination, side):
            return Decision(why, UNKNOWN, False, Tracking.INVALID, state="no flow")
        invalid = "" if flow is not None else "unrelated"
        if flow is not None and inner.protocol[0] == TCP:
            sequence = int.from_bytes(packet[header.about + 4 : header.about + 8], "big")
            if not tcp.is_on_its_way(flow, flow.far if side is Side.RED else Side.RED, sequence):
                flow, invalid = None, "unsent"
        tracking = Tracking.INVALID if flow is None else Tracking.RELATED
        found = self._compiled.lookup.first(facts, tracking, self._compiled.conditions, now, wall, steps)
        way = Side.RED if side is not Side.RED else flow.far if flow is not None else self.ways.leaves(ends.destination)
        state = f"about {told(flow, now) if steps is not None else ''}" if flow is not None else "about no flow"
        return Decision(self._verdict(found, invalid), found.rule, False, tracking, facts, way, flow, state=state)

    def _verdict(self, found: Found, invalid: str) -> str:
        """Why a packet is denied that goes by that rule; empty if it is not."""
        if found.rule < 0:
            return invalid or "no rule"
        action = self._compiled.rules[found.rule].action
        return "" if action is Action.ALLOW else "dropped" if action is Action.DROP else "rejected"

    def _facts(
        self, header: Header, flow: Flow | None, side: Side, peer: int, octets: int, link: Link | None
    ) -> tuple[Facts, tuple[bytes, bytes] | None]:
        """What rules are asked about: the packet between its true ends. And where it is forwarded to, if it is."""
        ends = header.ends
        forwarded = None
        if flow is not None and flow.nat is not None:
            ends = flow.nat.true() if side is Side.RED else reverse(flow.nat.true())
        facts = facts_of(ends, side, peer, header.flags, header.icmp, octets, link)
        nat = self._compiled.nat
        if nat is not None and flow is None and len(ends.source) == 4 and header.kind is Kind.FLOW:
            forwarded = nat.forward(facts)
            if forwarded is not None:
                facts = facts._replace(destination=forwarded[0], destination_port=int.from_bytes(forwarded[1], "big"))
        return facts, forwarded

    def _translation(
        self,
        came: Endpoints,
        facts: Facts,
        forwarded: tuple[bytes, bytes] | None,
        side: Side,
        way: Side,
        zone: bytes,
        ended: Flow | None,
        now: float,
        wall: float,
    ) -> Rewriting | None:
        """How the flow that a packet opens is translated; ``ended`` makes way for it. Errors: Exhausted."""
        nat = self._compiled.nat
        source = nat.source(facts, way) if nat is not None else None
        if source is None and forwarded is None:
            return None
        goes = came
        if forwarded is not None:
            goes = goes._replace(destination=forwarded[0], destination_port=forwarded[1])
        if source is not None and source != came.source:
            goes = goes._replace(source=source)

        def rewriting(port: bytes) -> Rewriting:
            left = goes._replace(source_port=port)
            return Rewriting(came, left, zone) if side is Side.RED else Rewriting(reverse(left), reverse(came), zone)

        def is_free(port: bytes) -> bool:
            made = rewriting(port)
            known = self.flows.afar(made.alias, now), self.flows.near(made.near.key() + zone, now)
            return all(flow is None or flow is ended or not self._lives(flow, now, wall) for flow in known)

        if goes.source == came.source or came.protocol[0] not in (TCP, UDP, ICMP):
            if not is_free(came.source_port):
                raise Exhausted
            return rewriting(came.source_port)
        return rewriting(free_port(came.source_port, is_free, hash((self._seed, came.key())) & 0xFFFF))

    # what follows from it ---------------------------------------------------------------------------------------------

    def _act(
        self, made: Decision, packet: bytes, header: Header, side: Side, peer: int, count: int, now: float, wall: float
    ) -> None:
        """Takes note of what was decided on ``count`` packets."""
        octets = count * len(packet)
        if made.rule >= 0:
            self._compiled.conditions.take(made.rule, octets, now)
            self.records.hit(made.rule, count, octets, now)
            rule = self._compiled.rules[made.rule]
            if rule.log:
                self.records.log(made.rule, made.facts, now)
        if made.flow is not None and header.kind is not Kind.ERROR:
            self._seen(made, header, side, peer, octets, count, now)
        if made.why:
            if header.fragment:
                self.fragments[side].forbid(header.fragment)
            if made.why == "rejected":
                self._reject(packet, header, side, peer, now)
            elif made.why == "no flow":
                self._ask(packet, header, side, peer, now)
            return
        if made.opens:
            self._open(made, header, side, peer, octets, count, now)

    def _open(self, made: Decision, header: Header, side: Side, peer: int, octets: int, count: int, now: float) -> None:
        ends = header.ends
        protocol = ends.protocol[0]
        assert made.facts is not None
        zone = _zone(made.facts.link)
        near = made.nat.near if made.nat is not None else ends if side is Side.RED else reverse(ends)
        far = made.way if side is Side.RED else side
        flow = Flow(near.key() + zone, side, far, first_state(protocol, protocol in (ICMP, ICMPV6)))
        flow.peer = peer if side is Side.TUNNEL else 0
        flow.icmp = header.icmp
        flow.link = made.facts.link
        flow.nat = made.nat
        flow.rule, flow.generation = made.rule, self._generation
        flow.packets, flow.octets = count, octets
        if made.seen is not None and not header.fragment:
            tcp.opened(flow, made.seen)
        self.flows.open(flow, now)
        self._latest = flow
        self._keep(made, flow, side)

    def _seen(self, made: Decision, header: Header, side: Side, peer: int, octets: int, count: int, now: float) -> None:
        """A flow follows all its packets, those too that rules stop (as nftables' connection tracking does, which comes
        before its rules): an end that hears nothing of one sends it again.
        """
        flow, turn = made.flow, made.turn
        assert flow is not None
        self._latest = flow
        if not made.why:
            flow.packets += count
            flow.octets += octets
        state = flow.state
        if turn is not None and made.seen is not None:
            tcp.follow(flow, side, made.seen, turn)
            if header.fragment:  # how long the whole is, and so what may follow it, is not known
                tcp.lose(flow)
            state = turn.state
            if state is State.RESET and not flow.is_answered:
                self.flows.forget(flow)  # refused, or given up: there is no connection
                return
        elif made.tracking == Tracking.NEW and side is not flow.opener:
            return  # a SYN from the other side, which a rule lets through: the connection's own is not changed by it
        if side is Side.TUNNEL and flow.peer != peer:
            flow.peer = peer
            self.flows.forget_rules(flow)
        if side is not flow.opener and not flow.is_answered:
            state = _ANSWERED.get(state, state)
            self.flows.was_answered(flow)
        elif state is not flow.state:
            self.flows.forget_rules(flow)  # the quick way makes no turns
        self.flows.has_come(flow, state, now)
        self._keep(made, flow, side)

    def _keep(self, made: Decision, flow: Flow, side: Side) -> None:
        """Keeps what rule all packets of that direction go by, where they do: until the flow changes."""
        if made.why or not made.is_static or self._compiled.rules[made.rule].log or flow.state is State.RESET:
            return
        expected = Tracking.NEW if side is flow.opener and not flow.is_answered else Tracking.ESTABLISHED
        if made.tracking != expected:
            return
        is_followed = flow.near_end is not None or flow.far_end is not None
        if is_followed and (flow.state not in _IN_THE_MIDST or flow.near_end is None or flow.far_end is None):
            return
        if side is Side.RED:
            flow.near_rule = made.rule
        else:
            flow.far_rule = made.rule

    def _reject(self, packet: bytes, header: Header, side: Side, peer: int, now: float) -> None:
        told = answer(packet, header)
        if told is not None and self._answer_rates[side].take(1, now):
            self.rejected += 1
            self._answers.append((side, Packets(told, len(told), peer)))

    def _ask(self, packet: bytes, header: Header, side: Side, peer: int, now: float) -> None:
        """A segment in the midst of a connection that nobody knows: the red side may (see pickup.py)."""
        ends = header.ends
        if ends.protocol[0] != TCP or not header.plain or header.flags & (SYN | RST | ACK) != ACK:
            return
        is_red = side is Side.RED
        if self._pickup.may_ask(ends.key() if is_red else ends.reverse_key(), now):
            asked = question(turned_round(packet) if is_red else packet, header)
            self._answers.append((Side.RED, Packets(asked, len(asked), peer)))

    def _still(self, flow: Flow, now: float, wall: float) -> int:
        """The rule by which the packet that opened a flow would do so now, or -1."""
        compiled = self._compiled
        near = flow.nat.near if flow.nat is not None else ends_of(flow.key)
        far = flow.nat.far if flow.nat is not None else near
        is_red = flow.opener is Side.RED
        came = near if is_red else reverse(far)
        flags = SYN if came.protocol[0] == TCP else 0
        peer = flow.peer if flow.opener is Side.TUNNEL else 0
        facts = facts_of(came, flow.opener, peer, flags, flow.icmp, 0, flow.link)
        goes = came
        if compiled.nat is not None and len(came.source) == 4:
            if (forwarded := compiled.nat.forward(facts)) is not None:
                goes = goes._replace(destination=forwarded[0], destination_port=forwarded[1])
                facts = facts._replace(
                    destination=goes.destination, destination_port=int.from_bytes(forwarded[1], "big")
                )
            source = compiled.nat.source(facts, flow.far if is_red else Side.RED)
            goes = goes._replace(source=source or goes.source)
        if compiled.sources.refusal(came.source, goes.destination, flow.opener):
            return UNKNOWN
        left = far if is_red else reverse(near)
        if goes._replace(source_port=left.source_port) != left:
            return UNKNOWN  # it would be translated otherwise
        rule = compiled.lookup.first(facts, Tracking.NEW, compiled.conditions, now, wall).rule
        return rule if rule >= 0 and compiled.rules[rule].action is Action.ALLOW else UNKNOWN


_IN_THE_MIDST: Final = frozenset({State.ESTABLISHED, State.CLOSING})


def _stands_for_more(made: Decision, header: Header) -> bool:
    """Whether a verdict is one on all packets of a run: nothing but addresses and ports decides, and nothing of each
    packet is to be followed or changed.
    """
    if not header.plain or header.ends.protocol[0] not in (TCP, UDP) or header.flags & _TURNING:
        return False
    flow = made.flow
    if made.nat is not None or (flow is not None and (flow.nat is not None or flow.near_end is not None)):
        return False
    return made.is_static or (bool(made.why) and made.rule < 0 and made.tracking == Tracking.INVALID)


def _zone(link: Link | None) -> bytes:
    """What tells flows of one VLAN from those of another."""
    return link.vlan.to_bytes(2, "big") if link is not None and link.vlan else b""
