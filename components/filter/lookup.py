"""Which rule is the first that matches a packet: found in a time that hardly depends on how many rules there are.

Every condition has a table from the values that a packet may have to the *set of rules* that this condition lets
through, as one whole number: bit *i* stands for rule *i*. The sets of all conditions, and-ed, are the rules that match;
the lowest bit is the first of them (T. V. Lakshman and D. Stiliadis, "High-Speed Policy-based Packet Forwarding Using
Efficient Multi-dimensional Range Matching", 1998). Ten thousand rules are ten thousand bits, a microsecond's work.

Prefixes and ranges of ports are in one kind of table: a range is a few aligned blocks, and a block is a prefix. A value
is looked up once for each length of prefix that occurs, and what was found is remembered.

What cannot be told from addresses, protocol and ports alone (flags, ICMP types, limits, hours, frames) is asked of the
rules that are left, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from components.filter.headers import TCP, UDP, Endpoints
from components.filter.limits import Conditions
from components.filter.model import Link, LinkMatch, Prefix, Range, Rule, Side, Tracking

UNTRACKED: Final = 0  # a packet that no flow is about, by its nature
_REMEMBERED: Final = 1024  # values a table; a set may have 2 KiB
_STATES: Final = (UNTRACKED, *Tracking)
_WITH_PORTS: Final = frozenset({TCP, UDP})
_BITS: Final = {4: 32, 16: 128}  # of an address, by its bytes


class Facts(NamedTuple):
    """What rules ask of a packet. Addresses as bytes, everything else as numbers."""

    side: Side
    peer: int
    protocol: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    flags: int  # of TCP
    icmp: int  # 256 times the type, plus the code; -1 for none
    octets: int
    link: Link | None = None


def facts_of(ends: Endpoints, side: Side, peer: int, flags: int, icmp: int, octets: int, link: Link | None) -> Facts:
    """What rules are asked about a packet between these ends."""
    protocol, source, source_port, destination, destination_port = ends
    ports = int.from_bytes(source_port, "big"), int.from_bytes(destination_port, "big")
    return Facts(side, peer, protocol[0], source, destination, *ports, flags, icmp, octets, link)


class Found(NamedTuple):
    """The deciding rule, or -1; and whether all packets with these addresses, ports and tracking go by that one."""

    rule: int
    is_static: bool


class Step(NamedTuple):
    """What was said of one rule on the way to the deciding one, for who wants to know."""

    rule: int
    why: str  # empty: it matches


class Table:
    """Numbers of ``bits`` bits, and for each the set of rules whose condition it meets."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._any = 0
        self._blocks: dict[int, dict[int, int]] = {}  # mask -> what is left under it -> rules
        self._remembered: dict[int, int] = {}

    def add_any(self, rules: int) -> None:
        """Those rules have no such condition."""
        self._any |= rules

    def add(self, mask: int, block: int, rules: int) -> None:
        """Those rules are met by all numbers that are ``block`` under ``mask``."""
        blocks = self._blocks.setdefault(mask, {})
        blocks[block] = blocks.get(block, 0) | rules

    def add_range(self, first: int, last: int, rules: int) -> None:
        """The same for the numbers from ``first`` to ``last``."""
        whole = (1 << self._bits) - 1
        while first <= last:
            size = first & -first or whole + 1  # the largest aligned block that begins there, and does not end too late
            while first + size - 1 > last:
                size >>= 1
            self.add(whole ^ (size - 1), first, rules)
            first += size

    def find(self, number: int) -> int:
        """The rules that ``number`` meets."""
        found = self._remembered.get(number)
        if found is None:
            found = self._any
            for mask, blocks in self._blocks.items():
                found |= blocks.get(number & mask, 0)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[number] = found
        return found


class Addresses:
    """The same for prefixes: one table for each IP version."""

    def __init__(self, rules: Sequence[Rule], field: str, is_negative: bool = False) -> None:
        self._tables = {width: Table(bits) for width, bits in _BITS.items()}
        # Thousands of rules may name one set, which is decoded once: its prefixes are looked at once as well
        lists: dict[int, tuple[tuple[Prefix, ...], int]] = {}
        without = 0
        for index, rule in enumerate(rules):
            prefixes: tuple[Prefix, ...] = getattr(rule, field)
            if prefixes:
                lists[id(prefixes)] = prefixes, lists.get(id(prefixes), (prefixes, 0))[1] | 1 << index
            else:
                without |= 1 << index
        for prefixes, bits in lists.values():
            for prefix in prefixes:
                self._tables[prefix.width].add(prefix.mask, prefix.network, bits)
        if not is_negative:
            for table in self._tables.values():
                table.add_any(without)
        self.is_used = bool(lists)

    def find(self, address: bytes) -> int:
        return self._tables[len(address)].find(int.from_bytes(address, "big"))


class Ports:
    """The same for ranges of ports."""

    def __init__(self, rules: Sequence[Rule], field: str) -> None:
        table = Table(16)
        sets: dict[tuple[Range, ...], int] = {}
        for index, rule in enumerate(rules):
            ranges: tuple[Range, ...] = getattr(rule, field)
            sets[ranges] = sets.get(ranges, 0) | 1 << index
        table.add_any(sets.pop((), 0))
        for ranges, bits in sets.items():
            for first, last in ranges:
                table.add_range(first, last, bits)
        self.find = table.find
        self.is_used = bool(sets)


class Lookup:
    """A compiled list of rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._all = (1 << len(self.rules)) - 1
        self._sides = {side: self._where(_comes_from(side)) for side in Side}
        self._versions = {width: self._where(_is_of(version)) for width, version in ((4, 4), (16, 6))}
        self._states = {state: self._where(_stands(state)) for state in _STATES}
        self._protocols = self._each("protocols")
        self._peers = self._each("peers")
        self._remembered: dict[tuple[int, ...], int] = {}
        self._sources = Addresses(self.rules, "sources")
        self._destinations = Addresses(self.rules, "destinations")
        self._not_sources = Addresses(self.rules, "not_sources", is_negative=True)
        self._not_destinations = Addresses(self.rules, "not_destinations", is_negative=True)
        self._source_ports = Ports(self.rules, "source_ports")
        self._destination_ports = Ports(self.rules, "destination_ports")
        # Rules that have a say of their own about each packet
        self._asking = self._where(lambda rule: rule.flags is not None or bool(rule.icmp) or rule.link is not None)
        self._timed = self._where(lambda rule: bool(rule.limit or rule.quota or rule.expires or rule.hours))
        self._unlinked = self._where(lambda rule: rule.link is None)
        self._frames = self._where(is_about_frames)

    def _where(self, holds: Callable[[Rule], object]) -> int:
        return sum(1 << index for index, rule in enumerate(self.rules) if holds(rule))

    def _each(self, field: str) -> tuple[dict[int, int], int]:
        """For each number that occurs in ``field`` the rules that have it or none; and those that have none."""
        without = self._where(lambda rule: not getattr(rule, field))
        found: dict[int, int] = {}
        for index, rule in enumerate(self.rules):
            for number in getattr(rule, field):
                found[number] = found.get(number, without) | 1 << index
        return found, without

    def candidates(self, facts: Facts, state: int) -> int:
        """The set of rules that match as far as tables can tell."""
        side, peer, protocol, source, destination, source_port, destination_port, *_ = facts
        key = side, len(source), protocol, state, peer
        rules = self._remembered.get(key)
        if rules is None:
            rules = self._sides[side] & self._versions[len(source)] & self._states[state]
            for (found, without), number in ((self._protocols, protocol), (self._peers, peer)):
                rules &= found.get(number, without)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = rules
        if facts.link is None:
            rules &= self._unlinked
        rules &= self._sources.find(source) & self._destinations.find(destination)
        if self._not_sources.is_used:
            rules &= ~self._not_sources.find(source)
        if self._not_destinations.is_used:
            rules &= ~self._not_destinations.find(destination)
        if protocol in _WITH_PORTS:
            if self._destination_ports.is_used:
                rules &= self._destination_ports.find(destination_port)
            if self._source_ports.is_used:
                rules &= self._source_ports.find(source_port)
        return rules

    def first(
        self,
        facts: Facts,
        state: int,
        conditions: Conditions,
        now: float,
        wall: float,
        steps: list[Step] | None = None,
    ) -> Found:
        """The first rule that matches. Changes nothing. ``steps`` is given what was said of each rule on the way."""
        rules = self.candidates(facts, state)
        return self._ask(rules, facts, conditions, now, wall, steps)

    def first_of_frame(
        self,
        link: Link,
        side: Side,
        octets: int,
        conditions: Conditions,
        now: float,
        wall: float,
        steps: list[Step] | None = None,
    ) -> int:
        """The first rule that matches a frame which carries no IP, or -1: only one that says so of frames, and nothing
        of IP. Changes nothing; ``steps`` as in ``first``.
        """
        facts = Facts(side, 0, -1, b"", b"", 0, 0, 0, -1, octets, link)
        rules = self._frames & self._sides[side]
        return self._ask(rules, facts, conditions, now, wall, steps).rule

    def _ask(
        self, rules: int, facts: Facts, conditions: Conditions, now: float, wall: float, steps: list[Step] | None
    ) -> Found:
        is_static = True
        for index in bits(rules):
            low = 1 << index
            why = ""
            if self._asking & low:
                # A frame's type and VLAN are the same for a whole flow; flags and hosts on the link are not, and nobody
                # needs ICMP to be quick
                rule = self.rules[index]
                is_static = is_static and rule.flags is None and not rule.icmp and not _names_hosts(rule.link)
                why = _refusal(rule, facts)
            elif facts.link is not None and facts.link.vlan:
                why = "untagged frames"
            if not why and self._timed & low:
                is_static = False
                why = conditions.refusal(index, facts.octets, now, wall)
            if steps is not None:
                steps.append(Step(index, why))
            if not why:
                return Found(index, is_static)
        return Found(-1, is_static)


def bits(rules: int) -> Iterator[int]:
    """The rules of a set, in order."""
    while rules:
        low = rules & -rules
        yield low.bit_length() - 1
        rules ^= low


def is_about_frames(rule: Rule) -> bool:
    """Whether a rule may match a frame that carries no IP: it names a type of frames, and has no condition on IP."""
    conditions: Iterable[object] = (
        rule.peers, rule.version, rule.protocols, rule.sources, rule.not_sources, rule.destinations,
        rule.not_destinations, rule.source_ports, rule.destination_ports, rule.icmp, rule.flags, rule.tracking,
    )  # fmt: skip
    return rule.link is not None and bool(rule.link.ethertypes) and not any(conditions)


def _names_hosts(link: LinkMatch | None) -> bool:
    return link is not None and bool(link.source or link.destination)


def _refusal(rule: Rule, facts: Facts) -> str:
    """Which of a rule's conditions on flags, ICMP and frames does not hold."""
    if rule.flags is not None and facts.flags & rule.flags.mask != rule.flags.value:
        return "TCP flags"
    if rule.icmp and not any(
        one.type == facts.icmp >> 8 and one.code in (None, facts.icmp & 0xFF) for one in rule.icmp
    ):
        return "ICMP type"
    if rule.link is not None and (facts.link is None or not matches_link(rule.link, facts.link)):
        return "frame"
    return ""


def matches_link(match: LinkMatch, link: Link) -> bool:
    """Whether a frame meets the conditions. One that says nothing of VLANs is about untagged frames."""
    if match.ethertypes and link.ethertype not in match.ethertypes:
        return False
    if not any(first <= link.vlan <= last for first, last in match.vlans or _UNTAGGED):
        return False
    if match.source and link.source not in match.source:
        return False
    if match.destination and link.destination not in match.destination:
        return False
    return not match.arp or link.arp in match.arp


_UNTAGGED: Final = (Range(0, 0),)


def _comes_from(side: Side) -> Callable[[Rule], object]:
    return lambda rule: not rule.sides or rule.sides & side


def _is_of(version: int) -> Callable[[Rule], object]:
    return lambda rule: rule.version in (0, version)


def _stands(state: int) -> Callable[[Rule], object]:
    return lambda rule: rule.tracking & state if rule.tracking else state != Tracking.INVALID
