"""The filter: what the red side opens may be answered, what the tunnel opens needs a rule, all else is denied.

* From the red side everything well-formed passes and opens a flow, but for what only answers something: a reset, an
  echo reply or an ICMP error needs the flow that it is about.
* From the tunnel, a packet needs a flow, or a rule that lets it open one: a SYN for TCP, an echo request for ICMP, the
  first packet for anything else. A SYN always needs a rule: a flow that the red side opened is no way in.
* ICMP errors pass both ways if the packet they carry the start of belongs to a flow and came from whom they go to.

TCP sequence numbers are not followed: an end of the tunnel that may send to a flow at all may also spoil it.
"""

from __future__ import annotations

from collections import Counter
from struct import Struct
from typing import Final, NamedTuple

from appliance.vchan.messages import Packets
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
from components.filter.pickup import Pickup, question
from components.filter.rules import Rule
from components.filter.settings import FilterSettings
from components.filter.state import FlowTable, Side, first_state
from components.filter.uniform import run

# Headers without options, up to the control bits of TCP: (IPv4) total length, fragment; (IPv6) payload length; then the
# protocol, both addresses, both ports
_PLAIN4: Final = Struct("!2xH2xHxB2x8s4s8xH")
_PLAIN6: Final = Struct("!4xHBx32s4s8xH")
_NAMED: Final = {TCP: bytes((TCP,)), UDP: bytes((UDP,))}


class Verdict(NamedTuple):
    """What passes, as groups for the other side, and questions to ask the red side (see pickup.py)."""

    passed: list[Packets]
    questions: list[Packets]


class Filter:
    """The verdict core: groups and time in, groups out."""

    def __init__(self, settings: FilterSettings) -> None:
        self._rules: tuple[Rule, ...] = settings.allow_from_tunnel
        self.flows = FlowTable()
        self._fragments = {side: Fragments() for side in Side}
        self._pickup = Pickup()
        self._questions: list[Packets] = []
        self.passed = 0  # packets
        self.denied: dict[Side, Counter[str]] = {side: Counter() for side in Side}
        """Packets denied, by where they came from and why."""

    def from_red(self, group: Packets, now: float) -> list[Packets]:
        """What of a group from the red side may go into the tunnel. All of it is the same object, not a copy."""
        return self._group(group, Side.RED, now)

    def from_tunnel(self, group: Packets, now: float) -> Verdict:
        """What of a group from a tunnel peer may go to the red side, and what to ask that side."""
        passed = self._group(group, Side.TUNNEL, now)
        questions, self._questions = self._questions, []
        return Verdict(passed, questions)

    def tick(self, now: float) -> None:
        """To be called about once a second: forgets what has expired."""
        self.flows.sweep(now)

    # groups -----------------------------------------------------------------------------------------------------------

    def _group(self, group: Packets, side: Side, now: float) -> list[Packets]:
        blob, size = memoryview(group.packets), group.size
        length = len(blob)
        spans: list[tuple[int, int]] = []  # of bytes that pass
        allowed = at = 0
        while at < length:
            item = min(size, length - at)
            why = ""
            count = self._living(blob, at, item, side, now)
            if not count:
                why, count = self._parsed(blob, at, item, side, group.peer, now)
            end = at + count * item
            if why:
                self.denied[side][why] += count
            else:
                self.passed += count
                allowed += end - at
                spans.append((at, end))
            at = end
        if allowed == length:
            return [group]
        return [group._replace(packets=b"".join(blob[a:b] for a, b in spans))] if spans else []

    def _living(self, blob: memoryview, at: int, size: int, side: Side, now: float) -> int:
        """How many packets of ``size`` bytes from ``at`` on are in the midst of one flow that lives, and pass for that.

        0 for all that is not plainly so: other headers than IP's and TCP's or UDP's without options, fragments, a
        packet that opens or ends something. What follows here from one look, the long way finds by parsing.
        """
        if blob[at] == 0x45 and size >= 40:
            length, fragment, protocol, addresses, ports, control = _PLAIN4.unpack_from(blob, at)
            if length != size or fragment & 0x3FFF:
                return 0
            transport = size - 20
        elif blob[at] >> 4 == 6 and size >= 60:
            length, protocol, addresses, ports, control = _PLAIN6.unpack_from(blob, at)
            transport = size - 40
            if length != transport:
                return 0
        else:
            return 0
        if protocol == TCP:  # data offset, reserved, flags
            if control & (SYN | FIN | RST) or not 20 <= (control >> 12) * 4 <= transport:
                return 0
        elif protocol != UDP:
            return 0
        if side is Side.TUNNEL:
            half = len(addresses) // 2
            addresses = addresses[half:] + addresses[:half]
            ports = ports[2:] + ports[:2]
        flow = self.flows.get(_NAMED[protocol] + addresses + ports, now)
        if flow is None:
            return 0
        self.flows.seen(flow, side, 0, now)
        return run(blob, at, size, protocol == TCP)

    def _parsed(self, blob: memoryview, at: int, size: int, side: Side, peer: int, now: float) -> tuple[str, int]:
        """The verdict on the packet of ``size`` bytes at ``at``, and for how many from there on it stands."""
        packet = bytes(blob[at : at + size])
        try:
            header = parse(packet)
        except Malformed:
            return "malformed", 1
        why = self._judge(packet, header, side, peer, now)
        # Only where addresses and ports are all that a verdict depends on: what an ICMP message is about lies behind
        protocol = header.ends.protocol[0]
        if header.plain and protocol in (TCP, UDP) and not header.flags & (SYN | FIN | RST):
            return why, run(blob, at, size, protocol == TCP)
        return why, 1

    # packets: "" if it passes, or why not, in words that say nothing of what was in it -------------------------------

    def _judge(self, packet: bytes, header: Header, side: Side, peer: int, now: float) -> str:
        fragments = self._fragments[side]
        if header.kind is Kind.LATER:
            return "" if fragments.later(header.fragment, header.offset, now) else "fragment"
        why = self._red(header, now) if side is Side.RED else self._tunnel(packet, header, peer, now)
        if header.fragment and why:
            fragments.forbid(header.fragment)
        elif header.fragment:
            fragments.first(header.fragment, header.covered, now)
        return why

    def _red(self, header: Header, now: float) -> str:
        ends, kind = header.ends, header.kind
        if kind is Kind.CONTROL:
            return ""
        if header.inner is not None:
            return self._error(header.inner, ends, header.inner.reverse_key(), now)
        key = ends.key()
        flow = self.flows.get(key, now)
        if flow is None:
            if kind is Kind.REPLY or header.flags & RST:
                return "no flow"
            self._open(key, ends, Side.RED, now)
        else:
            self.flows.seen(flow, Side.RED, header.flags, now)
        return ""

    def _tunnel(self, packet: bytes, header: Header, peer: int, now: float) -> str:
        ends, kind = header.ends, header.kind
        if kind is Kind.CONTROL:
            return "control"
        if header.inner is not None:
            return self._error(header.inner, ends, header.inner.key(), now)
        key = ends.reverse_key()
        is_tcp = ends.protocol[0] == TCP
        is_opening = is_tcp and header.flags & (SYN | ACK) == SYN
        flow = None if is_opening else self.flows.get(key, now)
        if flow is not None:
            self.flows.seen(flow, Side.TUNNEL, header.flags, now)
            return ""
        if kind is Kind.REPLY or (is_tcp and not is_opening):
            if header.plain and header.flags & (SYN | RST | ACK) == ACK and self._pickup.may_ask(key, now):
                asked = question(packet, header)
                self._questions.append(Packets(asked, len(asked), peer))
            return "no flow"
        if not any(rule.fits(ends, peer) for rule in self._rules):
            return "no rule"
        self._open(key, ends, Side.TUNNEL, now)
        return ""

    def _open(self, key: bytes, ends: Endpoints, opener: Side, now: float) -> None:
        is_echo = ends.protocol[0] in (ICMP, ICMPV6)
        self.flows.open(key, opener, first_state(ends.protocol[0], is_echo), now)

    def _error(self, inner: Endpoints, ends: Endpoints, key: bytes, now: float) -> str:
        """An ICMP error must go to whom the packet came from that it is about, and that packet's flow must live."""
        return "" if ends.destination == inner.source and self.flows.get(key, now) is not None else "unrelated"
