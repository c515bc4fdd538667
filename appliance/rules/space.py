"""All packets there are, as boxes: what a rule matches, exactly.

Packets fall into *families* (IPv4 TCP, IPv6 ICMP, ARP, ...), each with axes of its own: who sent it, addresses, ports,
ICMP type and code, TCP flags, state, and in a bridge the Ethernet header. On each axis a rule takes a set of intervals;
their product, one a family, is its ``Box``. Meeting, subtracting and comparing boxes is exact, so what is proved here
holds for every packet. Combinations that no honest packet has (an established SYN) are in the space too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from appliance.rules import intervals, words
from appliance.rules.intervals import Intervals
from components.filter.model import Action, Prefix, Rule, RuleSet, Side, Tracking

Box = tuple[Intervals, ...]
"""A set for each axis of a family; none of them is empty."""

ORIGIN, VLAN, FROM_MAC, TO_MAC = "origin", "vlan", "from mac", "to mac"
SOURCE, DESTINATION, PROTOCOL = "source", "destination", "protocol"
FROM_PORT, TO_PORT, FLAGS, TYPE, STATE = "from port", "to port", "flags", "type", "state"
ETHERTYPE, OPERATION = "ethertype", "operation"

RED, BLACK, FIRST_PEER = 0, 1, 2
"""On the axis ``origin``: the red side, the outside, and from here on the tunnel's peers, number 1 first."""
_LAST_PEER: Final = FIRST_PEER + 65_534

NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED = range(5)
"""On the axis ``state``."""
_STATES: Final = (
    (Tracking.NEW, NEW),
    (Tracking.ESTABLISHED, ESTABLISHED),
    (Tracking.RELATED, RELATED),
    (Tracking.INVALID, INVALID),
)
_ANY_STATE: Final[Intervals] = ((NEW, RELATED), (UNTRACKED, UNTRACKED))
"""A rule that names no state never takes what is invalid."""

_SIZES: Final = {
    ORIGIN: _LAST_PEER,
    VLAN: 4094,
    FROM_MAC: 2**48 - 1,
    TO_MAC: 2**48 - 1,
    PROTOCOL: 255,
    FROM_PORT: 65_535,
    TO_PORT: 65_535,
    FLAGS: 255,
    TYPE: 65_535,  # and code: type * 256 + code
    STATE: UNTRACKED,
    ETHERTYPE: 65_535,
    OPERATION: 65_535,
    "leaves": 2,
}
_LINK_AXES: Final = (VLAN, FROM_MAC, TO_MAC)
_ALL_TYPES: Final[Intervals] = ((0, 65_535),)
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
_OWN_AXES: Final = {TCP: (FROM_PORT, TO_PORT, FLAGS), UDP: (FROM_PORT, TO_PORT), ICMP: (TYPE,), ICMP6: (TYPE,)}


class Family(NamedTuple):
    """A kind of packets, and its axes. ``version`` 0: frames that are not IP; ``protocol`` 0: all others."""

    name: str
    version: int
    protocol: int
    axes: tuple[str, ...]

    @property
    def width(self) -> int:
        return 4 if self.version == 4 else 16

    def everything(self) -> Box:
        """All packets of the family."""
        return tuple(self.all(axis) for axis in self.axes)

    def all(self, axis: str) -> Intervals:
        """Everything there is on an axis."""
        if axis == SOURCE:
            # Nobody yet: DHCP and duplicate address detection, on a link
            return intervals.of((*_SOURCES[self.version], (0, 0))) if VLAN in self.axes else _SOURCES[self.version]
        if axis == DESTINATION:
            return _DESTINATIONS[self.version]
        if axis == PROTOCOL:
            return _OTHER_PROTOCOLS
        if axis == ETHERTYPE:
            return intervals.minus(((0, 65_535),), _NOT_OTHER)
        return ((0, _SIZES[axis]),)


_OTHER_PROTOCOLS: Final = intervals.minus(((0, 255),), intervals.of((one, one) for one in (ICMP, TCP, UDP, ICMP6)))
_DESTINATIONS: Final[dict[int, Intervals]] = {
    4: ((1 << 24, (127 << 24) - 1), (128 << 24, 2**32 - 1)),
    6: intervals.minus(((2, 2**128 - 1),), ((0xFFFF << 32, (0x10000 << 32) - 1),)),
}
"""All but what the filter calls martian: nobody's network, loopback, IPv4 in IPv6's clothes."""
_SOURCES: Final[dict[int, Intervals]] = {
    4: intervals.minus(_DESTINATIONS[4], ((224 << 24, 2**32 - 1),)),
    6: intervals.minus(_DESTINATIONS[6], ((0xFF << 120, 2**128 - 1),)),
}
"""Nor does a packet come from a multicast address."""
_LINK_LOCAL: Final = (0xFE80 << 112, (0xFEC0 << 112) - 1)
_NOT_OTHER: Final = intervals.of((one, one) for one in (words.ARP, 0x0800, 0x86DD))


def families(with_link: bool) -> tuple[Family, ...]:
    """Every family; with the axes of Ethernet only where somebody asks for them."""
    link = _LINK_AXES if with_link else ()
    found = []
    for version, icmp in ((4, ICMP), (6, ICMP6)):
        for protocol, name in ((TCP, "tcp"), (UDP, "udp"), (icmp, "icmp" if version == 4 else "icmp6"), (0, "proto")):
            own = _OWN_AXES.get(protocol, (PROTOCOL,))
            axes = (ORIGIN, SOURCE, DESTINATION, *own, STATE, *link)
            found.append(Family(name, version, protocol, axes))
    if with_link:
        found.append(Family("arp", 0, 0, (ORIGIN, OPERATION, *link)))
        found.append(Family("ethertype", 0, 0, (ORIGIN, ETHERTYPE, *link)))
    return tuple(found)


def has_link(*rulesets: RuleSet) -> bool:
    """Whether any rule looks at the Ethernet header."""
    return any(rule.link is not None for ruleset in rulesets for rule in ruleset.rules)


# rules ----------------------------------------------------------------------------------------------------------------

NOBODY: Final = -1
"""In place of a rule's number: no rule matched."""
LAN: Final = -2
"""In place of a rule's number: the source is not one that the red side may have (``lan``)."""


class Entry(NamedTuple):
    """What is done to some packets: rule ``number`` does ``action``. ``when``, if it is not empty, are the
    conditions that another packet may find otherwise (rate, quota, hour, date): then the next rule is tried.
    """

    number: int
    action: Action | str  # or, of a translation, what it makes
    when: tuple[object, ...]


def entry(number: int, rule: Rule, now: float) -> Entry | None:
    """None for a rule that has expired."""
    if rule.expires and rule.expires <= now:
        return None
    given = (rule.limit, rule.quota, rule.expires or None, rule.hours or None)
    return Entry(number, rule.action, given if any(given) else ())


def box(rule: Rule, family: Family) -> Box | None:
    """What of ``family`` the rule matches; None for nothing."""
    return _frames(rule, family) if family.version == 0 else _packets(rule, family)


def lan_boxes(lan: tuple[Prefix, ...], family: Family) -> list[Box | None]:
    """What of ``family`` comes from the red side with a source it may not have, and from elsewhere with one of the red
    side's (of which a bridge cannot know).
    """
    return [_foreign(lan, family), _stolen(lan, family)] if lan else []


def _stolen(lan: tuple[Prefix, ...], family: Family) -> Box | None:
    if not family.version or VLAN in family.axes:
        return None
    stolen = intervals.meet(family.all(SOURCE), _of_prefixes(lan, family.width))
    return _product(family, {ORIGIN: ((BLACK, _LAST_PEER),), SOURCE: stolen})


def _foreign(lan: tuple[Prefix, ...], family: Family) -> Box | None:
    if not family.version:
        return None
    allowed = _of_prefixes(lan, family.width)
    if VLAN in family.axes:  # a bridge lets those through that have no address yet, or one of the link alone
        allowed = intervals.of((*allowed, (0, 0), *([_LINK_LOCAL] if family.version == 6 else [])))
    given: dict[str, Intervals] = {ORIGIN: ((RED, RED),), SOURCE: intervals.minus(family.all(SOURCE), allowed)}
    return _product(family, given)


def _packets(rule: Rule, family: Family) -> Box | None:
    if rule.version not in (0, family.version):
        return None
    if rule.link is not None and rule.link.ethertypes:
        return None
    given: dict[str, Intervals] = {ORIGIN: _origin(rule.sides, rule.peers)}
    if rule.protocols:
        if family.protocol and family.protocol not in rule.protocols:
            return None
        if not family.protocol:
            given[PROTOCOL] = intervals.meet(_OTHER_PROTOCOLS, intervals.of((one, one) for one in rule.protocols))
    for axis, prefixes, others in (
        (SOURCE, rule.sources, rule.not_sources),
        (DESTINATION, rule.destinations, rule.not_destinations),
    ):
        if prefixes:
            given[axis] = intervals.meet(family.all(axis), _of_prefixes(prefixes, family.width))
        if others:
            given[axis] = intervals.minus(given.get(axis, family.all(axis)), _of_prefixes(others, family.width))
    if rule.source_ports:
        given[FROM_PORT] = intervals.of(rule.source_ports)
    if rule.destination_ports:
        given[TO_PORT] = intervals.of(rule.destination_ports)
    if rule.icmp:
        given[TYPE] = intervals.of(
            (one.type << 8, one.type << 8 | 255) if one.code is None else (one.type << 8 | one.code,) * 2
            for one in rule.icmp
        )
    if rule.flags is not None:
        given[FLAGS] = _flags(rule.flags.mask, rule.flags.value)
    if rule.tracking:
        given[STATE] = intervals.of((state, state) for bit, state in _STATES if rule.tracking & bit)
    else:
        given[STATE] = _ANY_STATE
    return _product(family, given | _link(rule))


def _frames(rule: Rule, family: Family) -> Box | None:
    link = rule.link
    if link is None or not link.ethertypes:
        return None
    given = {ORIGIN: _origin(rule.sides, rule.peers), **_link(rule)}
    if ETHERTYPE in family.axes:
        if link.arp:
            return None
        given[ETHERTYPE] = intervals.minus(intervals.of((one, one) for one in link.ethertypes), _NOT_OTHER)
    else:
        if words.ARP not in link.ethertypes:
            return None
        if link.arp:
            given[OPERATION] = intervals.of((one, one) for one in link.arp)
    return _product(family, given)


def _link(rule: Rule) -> dict[str, Intervals]:
    link = rule.link
    given: dict[str, Intervals] = {VLAN: intervals.of(link.vlans) if link and link.vlans else ((0, 0),)}
    for axis, macs in ((FROM_MAC, link.source if link else ()), (TO_MAC, link.destination if link else ())):
        if macs:
            given[axis] = intervals.of((int.from_bytes(mac, "big"),) * 2 for mac in macs)
    return given


def _product(family: Family, given: dict[str, Intervals]) -> Box | None:
    made = tuple(given[axis] if axis in given else family.all(axis) for axis in family.axes)
    return made if all(made) else None


def _origin(sides: int, peers: tuple[int, ...]) -> Intervals:
    if peers:
        return intervals.of((FIRST_PEER + peer - 1,) * 2 for peer in peers)
    if not sides:
        return ((RED, _LAST_PEER),)
    places = ((Side.RED, (RED, RED)), (Side.BLACK, (BLACK, BLACK)), (Side.TUNNEL, (FIRST_PEER, _LAST_PEER)))
    return intervals.of(place for side, place in places if sides & side)


@lru_cache(maxsize=65_536)
def _of_prefixes(prefixes: tuple[Prefix, ...], width: int) -> Intervals:
    host = 2 ** (8 * width) - 1
    return intervals.of((one.network, one.network | (host ^ one.mask)) for one in prefixes if one.width == width)


@lru_cache(maxsize=256)
def _flags(mask: int, value: int) -> Intervals:
    return intervals.of((bits, bits) for bits in range(256) if bits & mask == value)


# boxes ----------------------------------------------------------------------------------------------------------------


def meet(one: Box, other: Box) -> Box | None:
    """What is in both."""
    made = []
    for a, b in zip(one, other, strict=True):
        common = intervals.meet(a, b)
        if not common:
            return None
        made.append(common)
    return tuple(made)


def within(inner: Box, outer: Box) -> bool:
    """Whether all of ``inner`` is in ``outer``."""
    return all(a is b or intervals.within(a, b) for a, b in zip(inner, outer, strict=True))


def minus(one: Box, other: Box) -> list[Box]:
    """What is in ``one`` and not in ``other``: boxes apart from each other, at most one an axis."""
    common = meet(one, other)
    if common is None:
        return [one]
    pieces = []
    for i, (a, b) in enumerate(zip(one, common, strict=True)):
        if rest := intervals.minus(a, b):
            pieces.append((*common[:i], rest, *one[i + 1 :]))
    return pieces


class Index:
    """Which of many boxes may meet one, or hold it: by the hulls of their axes, so some that are named do not."""

    _EVERY: Final = 32  # values between two that have their set of boxes at hand

    def __init__(self, boxes: Iterable[Box | None]) -> None:
        """Boxes are numbered as they come; None is one that meets nothing."""
        hulls = [(number, [(axis[0][0], axis[-1][1]) for axis in one]) for number, one in enumerate(boxes) if one]
        self._axes = len(hulls[0][1]) if hulls else 0
        self._all = bits(number for number, _ in hulls)
        self._low = [_Ladder(((hull[i][0], number) for number, hull in hulls), self._EVERY) for i in range(self._axes)]
        self._high = [_Ladder(((hull[i][1], number) for number, hull in hulls), self._EVERY) for i in range(self._axes)]

    def meeting(self, one: Box) -> int:
        """The numbers, as bits, of those that ``one`` may meet."""
        found = self._all
        for axis, low, high in zip(one, self._low, self._high, strict=False):
            found &= low.up_to(axis[-1][1]) & ~high.up_to(axis[0][0] - 1)
        return found

    def holding(self, one: Box) -> int:
        """The numbers, as bits, of those that ``one`` may be within."""
        found = self._all
        for axis, low, high in zip(one, self._low, self._high, strict=False):
            found &= low.up_to(axis[0][0]) & ~high.up_to(axis[-1][1] - 1)
        return found


class _Ladder:
    """Sets of numbers by a value each: those with a value up to a given one."""

    def __init__(self, pairs: Iterable[tuple[int, int]], every: int) -> None:
        self._every = every
        by_value: dict[int, list[int]] = {}
        for value, number in pairs:
            by_value.setdefault(value, []).append(number)
        self._values = sorted(by_value)
        self._rows = [bits(by_value[value]) for value in self._values]
        self._steps = [0]
        total = 0
        for at, row in enumerate(self._rows, 1):
            total |= row
            if at % every == 0:
                self._steps.append(total)
        self._last: tuple[int, int] | None = None

    def up_to(self, value: int) -> int:
        if self._last is not None and self._last[0] == value:
            return self._last[1]
        at = bisect_right(self._values, value)
        found = self._steps[at // self._every]
        for row in self._rows[at - at % self._every : at]:
            found |= row
        self._last = value, found
        return found


def bits(numbers: Iterable[int]) -> int:
    """A set of numbers as the bits of one."""
    found = bytearray()
    for number in numbers:
        if number >> 3 >= len(found):
            found.extend(bytes((number >> 3) + 1 - len(found)))
        found[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(found, "little")


def numbers(bits: int) -> Iterator[int]:
    """The numbers of the bits that are set, in order."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
