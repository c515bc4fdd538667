"""The compiled lookup says what a look at one rule after the other says, and as soon for any number of them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.filter.headers import ICMP, ICMPV6, TCP, UDP
from components.filter.limits import Conditions
from components.filter.lookup import UNTRACKED, Facts, Found, Lookup, Step, Table, matches_link
from components.filter.model import Action, Link, LinkMatch, Prefix, Range, Rule, Side, Tracking
from tests.unit.filter.making import PORTS, rules

NOW, WALL = 50.0, 900_000.0  # Sunday, 11 January 1970, 10:00 UTC


def addresses(width: int) -> st.SearchStrategy[bytes]:
    near = st.integers(0, 6).map(lambda n: ((10 if width == 4 else 0xFD) << 8 * width - 8) + n)
    return st.one_of(near, near, st.integers(0, (1 << 8 * width) - 1)).map(lambda n: n.to_bytes(width, "big"))


@st.composite
def packets(draw: st.DrawFn) -> Facts:
    width = draw(st.sampled_from((4, 16)))
    side = draw(st.sampled_from(Side))
    protocol = draw(st.sampled_from((TCP, UDP, ICMP if width == 4 else ICMPV6, 47)))
    has_ports = protocol in (TCP, UDP)
    return Facts(
        side,
        draw(st.integers(1, 3)) if side is Side.TUNNEL else 0,
        protocol,
        draw(addresses(width)),
        draw(addresses(width)),
        draw(PORTS) if has_ports else 0,
        draw(PORTS) if has_ports else 0,
        draw(st.integers(0, 255)) if protocol == TCP else 0,
        draw(st.sampled_from((0, 3)) | st.just(8)) << 8 if protocol in (ICMP, ICMPV6) else -1,
        draw(st.integers(20, 1500)),
    )


def by_the_book(rule: Rule, facts: Facts, state: int, conditions: Conditions, index: int) -> bool:
    """One condition after the other, as model.py has them."""

    def within(ranges: tuple[Range, ...], port: int) -> bool:
        return not ranges or any(first <= port <= last for first, last in ranges)

    def has(prefixes: tuple[Prefix, ...], address: bytes) -> bool:
        return any(prefix.has(address) for prefix in prefixes)

    kind = facts.icmp
    return all((
        not rule.sides or rule.sides & facts.side,
        not rule.peers or facts.peer in rule.peers,
        not rule.version or rule.version == (4 if len(facts.source) == 4 else 6),
        not rule.protocols or facts.protocol in rule.protocols,
        not rule.sources or has(rule.sources, facts.source),
        not has(rule.not_sources, facts.source),
        not rule.destinations or has(rule.destinations, facts.destination),
        not has(rule.not_destinations, facts.destination),
        within(rule.source_ports, facts.source_port),
        within(rule.destination_ports, facts.destination_port),
        not rule.icmp or any(of == kind >> 8 and code in (None, kind & 255) for of, code in rule.icmp),
        rule.flags is None or facts.flags & rule.flags.mask == rule.flags.value,
        rule.tracking & state if rule.tracking else state != Tracking.INVALID,
        not conditions.refusal(index, facts.octets, NOW, WALL),
    ))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(rules(), max_size=12),
    st.lists(st.tuples(packets(), st.sampled_from((UNTRACKED, *Tracking))), min_size=1, max_size=20),
)
def test_the_first_match_is_that_of_a_look_at_each_rule(made: list[Rule], asked: list[tuple[Facts, int]]) -> None:
    lookup, conditions = Lookup(made), Conditions(made)
    for facts, state in asked * 2:  # the second time from memory
        book = (i for i, rule in enumerate(made) if by_the_book(rule, facts, state, conditions, i))
        expected = next(book, -1)
        assert lookup.first(facts, state, conditions, NOW, WALL).rule == expected
        steps: list[Step] = []
        lookup.first(facts, state, conditions, NOW, WALL, steps)
        assert [step.rule for step in steps if not step.why] == [expected] * (expected >= 0)
        conditions.take(max(expected, 0), facts.octets, NOW)


@settings(deadline=None)
@given(st.integers(0, 65_535), st.integers(0, 65_535), st.lists(st.integers(0, 65_535), max_size=30))
def test_a_range_of_ports_is_that_range(first: int, last: int, ports: list[int]) -> None:
    first, last = sorted((first, last))
    table = Table(16)
    table.add_range(first, last, 1)
    for port in (*ports, first, last, max(first - 1, 0), min(last + 1, 65_535), 0, 65_535):
        assert bool(table.find(port)) is (first <= port <= last)


@settings(deadline=None)
@given(packets(), st.lists(rules(timed=False), min_size=1, max_size=6), st.integers(0, 255), st.integers(0, 255))
def test_what_is_called_static_is_so_for_all_flags(facts: Facts, made: list[Rule], flags: int, other: int) -> None:
    lookup, conditions = Lookup(made), Conditions(made)
    found = lookup.first(facts._replace(flags=flags), Tracking.ESTABLISHED, conditions, NOW, WALL)
    if found.is_static:
        assert lookup.first(facts._replace(flags=other), Tracking.ESTABLISHED, conditions, NOW, WALL) == found


FRAME = Link(0x0806, 0, b"\2\0\0\0\0\1", b"\xff" * 6, 1)


@pytest.mark.parametrize(
    ("match", "link", "fits"),
    [
        (LinkMatch(), FRAME, True),
        (LinkMatch(), FRAME._replace(vlan=5), False),
        (LinkMatch(vlans=(Range(1, 9),)), FRAME._replace(vlan=5), True),
        (LinkMatch(vlans=(Range(1, 9),)), FRAME, False),
        (LinkMatch(vlans=(Range(0, 4095),)), FRAME, True),
        (LinkMatch(ethertypes=(0x0806,)), FRAME, True),
        (LinkMatch(ethertypes=(0x0800,)), FRAME, False),
        (LinkMatch(source=(FRAME.source,)), FRAME, True),
        (LinkMatch(source=(FRAME.destination,)), FRAME, False),
        (LinkMatch(destination=(FRAME.source,)), FRAME, False),
        (LinkMatch(arp=(2,)), FRAME, False),
        (LinkMatch(arp=(1, 2)), FRAME, True),
    ],
)
def test_conditions_on_frames(match: LinkMatch, link: Link, fits: bool) -> None:
    assert matches_link(match, link) is fits


def test_a_frame_without_ip_needs_a_rule_that_names_its_type() -> None:
    made = [
        Rule(Action.ALLOW),
        Rule(Action.ALLOW, link=LinkMatch(), sources=(Prefix(4, 0, 0),)),
        Rule(Action.ALLOW, link=LinkMatch(arp=(1,)), sides=Side.RED),  # names no type
        Rule(Action.ALLOW, link=LinkMatch(ethertypes=(FRAME.ethertype,), arp=(1,)), sides=Side.RED),
    ]
    lookup, conditions = Lookup(made), Conditions(made)
    assert lookup.first_of_frame(FRAME, Side.RED, 60, conditions, NOW, WALL) == 3
    assert lookup.first_of_frame(FRAME, Side.BLACK, 60, conditions, NOW, WALL) == -1


def test_an_ip_packet_in_a_tagged_frame_needs_a_rule_that_names_its_vlan() -> None:
    made = [Rule(Action.ALLOW), Rule(Action.ALLOW, link=LinkMatch(vlans=(Range(7, 7),)))]
    lookup, conditions = Lookup(made), Conditions(made)
    facts = Facts(Side.RED, 0, UDP, b"\x0a\0\0\1", b"\x0a\0\0\2", 1, 2, 0, -1, 60)
    link = FRAME._replace(ethertype=0x0800, arp=0)
    assert lookup.first(facts, Tracking.NEW, conditions, NOW, WALL).rule == 0
    assert lookup.first(facts._replace(link=link), Tracking.NEW, conditions, NOW, WALL).rule == 0
    assert lookup.first(facts._replace(link=link._replace(vlan=7)), Tracking.NEW, conditions, NOW, WALL).rule == 1
    assert lookup.first(facts._replace(link=link._replace(vlan=8)), Tracking.NEW, conditions, NOW, WALL).rule == -1


def many(count: int) -> list[Rule]:
    """Rules like those of a big site: hosts, networks and ports, none of which matches, and a last one that does."""
    made = [
        Rule(
            Action.ALLOW,
            sides=Side.TUNNEL,
            protocols=(TCP if i % 3 else UDP,),
            sources=(Prefix(4, 172 << 24 | i << 8, 0xFFFFFF00),),
            destinations=(Prefix(4, 10 << 24 | i, 0xFFFFFFFF),),
            destination_ports=(Range(i, i + i % 7),),
        )
        for i in range(count - 1)
    ]
    return [*made, Rule(Action.DROP)]


def test_ten_thousand_rules_cost_little_more_than_ten() -> None:
    took = {}
    for count in (10, 10_000):
        lookup, conditions = Lookup(many(count)), Conditions(())
        best = 1.0
        for turn in range(7):
            asked = [
                Facts(Side.TUNNEL, 1, TCP, bytes((10, turn, i >> 8, i & 255)), b"\x0a\0\0\1", i, 80, 2, -1, 40)
                for i in range(2000)
            ]
            began = time.process_time()
            found = [lookup.first(facts, Tracking.NEW, conditions, NOW, WALL) for facts in asked]
            best = min(best, time.process_time() - began)
            assert set(found) == {Found(count - 1, True)}
        took[count] = best / 2000 * 1e6
    print(f"a lookup: {took[10]:.1f} us among 10 rules, {took[10_000]:.1f} us among 10,000")
    assert took[10_000] < 4 * took[10]
