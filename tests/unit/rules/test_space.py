"""What is said about rule sets holds for every packet: held against trying one packet of every kind there is."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.rules import intervals, layers, packets, space
from appliance.rules.diff import diff
from appliance.rules.lint import lint
from appliance.rules.read import from_text
from appliance.rules.work import Work
from components.filter.model import RuleSet
from tests.unit.rules.texts import first, grid, rule_sets

PEERS = {"alice": [1], "bob": [2]}
NAMES = {1: "alice", 2: "bob"}
NOW = 1_800_000_000.0
GRID = list(grid())
DEAD = {"shadowed", "redundant", "duplicate", "unreachable"}


def read(text: str) -> RuleSet:
    return from_text(text, "x.rules", PEERS).ruleset


sets = st.sets(st.integers(0, 60), max_size=30).map(lambda some: (intervals.of((n, n) for n in some), some))


@given(sets, sets)
def test_intervals_are_sets(
    one: tuple[intervals.Intervals, set[int]], other: tuple[intervals.Intervals, set[int]]
) -> None:
    (a, as_set), (b, bs_set) = one, other

    def numbers(found: intervals.Intervals) -> set[int]:
        assert all(x[1] + 1 < y[0] for x, y in pairwise(found))
        return {n for low, high in found for n in range(low, high + 1)}

    assert numbers(a) == as_set
    assert numbers(intervals.meet(a, b)) == as_set & bs_set
    assert numbers(intervals.minus(a, b)) == as_set - bs_set
    assert intervals.within(a, b) == (as_set <= bs_set)
    assert all(intervals.has(a, n) == (n in as_set) for n in range(62))


@settings(max_examples=25)
@given(rule_sets())
def test_a_packet_goes_by_the_first_rule_that_matches(text: str) -> None:
    rules = read(text)
    made = layers.of_rules(rules, NOW, with_link=False)
    for packet in random.Random(text).sample(GRID, 200):
        assert layers.point(made, packet, Work())[-1].number == first(rules.rules, packet)


@settings(max_examples=25)
@given(rule_sets())
def test_lint_names_just_the_rules_that_no_packet_reaches(text: str) -> None:
    rules = read(text)
    reached = {first(rules.rules, packet) for packet in GRID}
    found = lint(rules, NOW, NAMES)
    assert not [one for one in found if one.kind == "gave-up"]
    assert {one.number for one in found if one.kind in DEAD | {"empty"}} == set(range(len(rules.rules))) - reached
    for one in found:
        if one.kind == "overlap":
            packet = packets.parse(one.example, False, {"alice": 1, "bob": 2}).sample
            assert first(rules.rules, packet) == one.others[0]
            without = tuple(rule for number, rule in enumerate(rules.rules) if number not in one.others)
            assert without[first(without, packet)].action is not None


@settings(max_examples=25)
@given(rule_sets(), st.data())
def test_diff_shows_every_change_and_no_other(text: str, data: st.DataObject) -> None:
    lines = text.split("\n")
    changed = data.draw(st.permutations(lines)) if data.draw(st.booleans()) else list(lines)
    other = data.draw(rule_sets()).split("\n")
    at = data.draw(st.integers(0, len(changed)))
    old, new = read(text), read("\n".join([*changed[:at], *other[:1], *changed[at:]]))
    found = diff(old, new, NOW, NAMES)
    assert not found.gave_up

    def verdicts(packet: packets.Sample) -> list[tuple[int, int]]:
        numbers = [first(rules.rules, packet) for rules in (old, new)]
        return [(n, rules.rules[n].action if n >= 0 else 2) for n, rules in zip(numbers, (old, new), strict=True)]

    shown = {(change.before[-1].number, change.after[-1].number) for change in found.changes}
    for packet in random.Random(text).sample(GRID, 3000):
        (before, did), (after, does) = verdicts(packet)
        if did != does:
            assert (before, after) in shown
    for change in found.changes:
        packet = packets.parse(change.example, False, {"alice": 1, "bob": 2}).sample
        (before, did), (after, does) = verdicts(packet)
        assert did != does and (before, after) == (change.before[-1].number, change.after[-1].number)


def test_conditions_that_may_not_hold_shadow_nothing() -> None:
    text = "allow from red tcp limit 10/second\nallow from red tcp port 80\ndrop from red tcp until 2001-01-01\n"
    assert [(one.kind, one.number) for one in lint(read(text), NOW)] == [("expired", 2)]
    later = read(text.replace("10/second", "20/second"))
    changes = diff(read(text), later, NOW).changes
    assert changes, "another rate is another verdict for some packets"
    assert all(change.before[0].when != change.after[0].when for change in changes)


def test_several_rules_together_leave_nothing() -> None:
    text = "drop from red to 10.0.0.0/9\ndrop from red to 10.128.0.0/9\nallow from red to 10.0.0.0/8\n"
    (found,) = lint(read(text), NOW)
    assert (found.kind, found.number, found.others) == ("unreachable", 2, (0, 1))


def test_what_has_matched_nothing() -> None:
    rules = read("allow from red tcp\nallow from red udp\n")
    assert [(one.kind, one.number) for one in lint(rules, NOW, hits=[3, 0])] == [("never-hit", 1)]


def test_lan_goes_first() -> None:
    found = lint(read("lan 10.1.0.0/16\nallow from red 10.2.0.0/16\nallow from tunnel 10.1.1.0/24\n"), NOW)
    assert [(one.kind, one.number) for one in found] == [("shadowed", 0), ("shadowed", 1)]
    changes = diff(read("lan 10.1.0.0/16\nallow from red"), read("lan 10.0.0.0/8\nallow from red"), NOW).changes
    assert {(change.before[-1].number, change.after[-1].number) for change in changes} == {(space.LAN, 0)}


def test_translations_that_change() -> None:
    old = "forward from black tcp to 192.0.2.10 port 80 -> 192.168.1.5\nallow from black"
    new = old.replace("1.5", "1.6") + "\nnat from red to black -> 192.0.2.11"
    found = diff(read(old), read(new), NOW).changes
    assert [(one.what, one.before[-1].action, one.after[-1].action) for one in found] == [
        ("source", "as it came", "-> 192.0.2.11"),
        ("destination", "-> 192.168.1.5", "-> 192.168.1.6"),
    ]


def test_frames_have_rules_of_their_own() -> None:
    text = "allow arp\ndrop arp request from red\nallow vlan 1-100 from red\ndrop from red vlan 50\nallow stp\n"
    assert [(one.kind, one.number) for one in lint(read(text), NOW)] == [("shadowed", 1), ("shadowed", 3)]
    (change,) = diff(read(text), read(text.replace("allow stp", "drop stp")), NOW).changes
    assert change.example == "from red stp"


def test_work_is_bounded_and_said() -> None:
    text = "\n".join(f"drop from red tcp to 10.{n}.0.0/16" for n in range(50)) + "\nallow from red tcp to 10.0.0.0/8"
    assert [one.kind for one in lint(read(text), NOW, work=Work(most=10))][-1] == "gave-up"
    found = diff(read(text), read("allow from red"), NOW, work=Work(most=10))
    assert found.gave_up


def test_ten_thousand_rules_are_no_reason_to_give_up() -> None:
    pick = random.Random(1)
    lines = [
        f"{pick.choice(['allow', 'drop'])} from red 10.{pick.randrange(256)}.{pick.randrange(256)}.0/24 tcp "
        f"to 10.{pick.randrange(256)}.3.4 port {pick.randrange(1, 65000)}"
        for _ in range(10_000)
    ]
    lines.append("allow from red")
    rules = read("\n".join(lines))
    assert lint(rules, NOW) == [], "the last one too can be reached"
    changed = read("\n".join([*lines[:5000], "drop from red 10.0.0.0/8 udp", *lines[5000:]]))
    (change,) = diff(rules, changed, NOW).changes
    assert [entry.number for entry in change.before] == [10_000], "the last one let it through"
    assert [entry.number for entry in change.after] == [5000]
