"""What is told of each rule: how often it decided, and lines in the log, few enough that no flood of packets makes one
of lines.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from components.filter.headers import TCP, UDP
from components.filter.limits import Bucket
from components.filter.lookup import Facts
from components.filter.model import Link, RuleSet, Side

_RATE: Final = 10.0  # lines a second in all
_AT_ONCE: Final = 50.0
_RULE_RATE: Final = 1.0  # lines a second for one rule
_RULE_AT_ONCE: Final = 5.0
_MOST: Final = 64  # lines that wait to be taken


class RuleHits(NamedTuple):
    """How often a rule decided, and when it did last (of the clock that ``judge`` is given; 0.0: never)."""

    packets: int
    octets: int
    last: float


class Records:
    """Counters and lines for one rule set."""

    def __init__(self, ruleset: RuleSet) -> None:
        self._ruleset = ruleset
        count = len(ruleset.rules)
        self.packets = [0] * count
        self.octets = [0] * count
        self.last = [0.0] * count
        self._rates: dict[int, Bucket] = {}  # of rules that log
        self._rate = Bucket(_RATE, _AT_ONCE)
        self._lines: list[str] = []
        self._suppressed = 0

    def hit(self, rule: int, packets: int, octets: int, now: float) -> None:
        """So many packets went by that rule."""
        if rule >= 0:
            self.packets[rule] += packets
            self.octets[rule] += octets
            self.last[rule] = now

    def hits(self) -> list[RuleHits]:
        """By the number of the rule."""
        return [RuleHits(*row) for row in zip(self.packets, self.octets, self.last, strict=True)]

    def log(self, rule: int, facts: Facts | None, now: float) -> None:
        """A packet went by a rule that says so."""
        if facts is not None and self._may(rule, now):
            self._lines.append(f"{self.name(rule)}: {describe(facts)}")

    def log_frame(self, rule: int, link: Link, side: Side, now: float) -> None:
        """The same of frames that carry no IP."""
        if self._may(rule, now):
            self._lines.append(f"{self.name(rule)}: {describe_frame(link, side)}")

    def name(self, rule: int) -> str:
        """A rule as people know it: what it does, and where it stands."""
        one = self._ruleset.rules[rule]
        files = self._ruleset.files
        place = f"{files[one.file]}:{one.line}" if one.file < len(files) else f"rule {rule + 1}"
        return f"{one.action.name.lower()} ({place}{' ' + one.name if one.name else ''})"

    def take_lines(self) -> list[str]:
        """The lines since the last time, and how many there were no room for."""
        lines, self._lines = self._lines, []
        if self._suppressed:
            lines.append(f"and {self._suppressed} more that are not shown")
            self._suppressed = 0
        return lines

    def take_over(self, older: Records) -> None:
        """The lines of the rule set that was replaced, and its pace: replacing is no way around it."""
        self._rate, self._lines, self._suppressed = older._rate, older._lines, older._suppressed

    def _may(self, rule: int, now: float) -> bool:
        rate = self._rates.get(rule)
        if rate is None:
            rate = self._rates[rule] = Bucket(_RULE_RATE, _RULE_AT_ONCE)
        if len(self._lines) < _MOST and rate.take(1, now) and self._rate.take(1, now):
            return True
        self._suppressed += 1
        return False


_NAMES: Final = {TCP: "tcp", UDP: "udp", 1: "icmp", 58: "icmpv6"}


def describe(facts: Facts) -> str:
    """A packet in one line, as `septum filter explain` takes it."""
    name = _NAMES.get(facts.protocol, f"protocol {facts.protocol}")
    ends = []
    for address, port in ((facts.source, facts.source_port), (facts.destination, facts.destination_port)):
        text = str(ipaddress.ip_address(address))
        if facts.protocol in (TCP, UDP):
            text = f"{text}:{port}" if len(address) == 4 else f"[{text}]:{port}"
        ends.append(text)
    side = facts.side.name.lower() + (f" (peer {facts.peer})" if facts.peer else "")
    return f"from {side}, {name} {ends[0]} > {ends[1]}, {facts.octets} bytes"


def describe_frame(link: Link, side: Side) -> str:
    """A frame that carries no IP, in one line."""
    what = f"ethertype {link.ethertype:#06x} {link.source.hex(':')} > {link.destination.hex(':')}"
    return f"from {side.name.lower()}, {what}{f', vlan {link.vlan}' if link.vlan else ''}"
