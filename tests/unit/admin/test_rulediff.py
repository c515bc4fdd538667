"""What was done to a set of rules: added, removed, changed, moved, each with its place; and what is no set of rules."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.guest.settings import SettingsError
from appliance.rules.read import from_text
from appliance.signed import canonical
from components.admin.rulebook import NOTHING, Rulebook, read
from components.admin.rulediff import Change, How, diff
from components.filter.ruleset import encode


def compiled(text: str) -> bytes:
    return canonical.encode(encode(from_text(text, "rules").ruleset))


def book(text: str) -> Rulebook:
    return read(compiled(text), text.encode())


def told(change: Change) -> tuple[str, str, int, int]:
    before, after = (one.line if one is not None else 0 for one in (change.before, change.after))
    return change.how.name.lower(), change.list, before, after


ONE = """allow established related
allow from red tcp to 10.2.0.0/16 port 22
allow from red udp port 53
drop from tunnel tcp port 25
allow from red icmp
"""


def test_places_alone_are_no_difference() -> None:
    same = "# a remark\n\n" + ONE.replace("port 22", "port 22  # the same rule")
    found = diff(book(ONE), book(same))
    assert found.same == 5 and [change for change in found.changes if change.how is not How.CHANGED] == []
    assert all(change.fields == ("comment",) for change in found.changes)


def test_each_change_is_told_with_both_places_and_the_fields() -> None:
    lines = ONE.splitlines()
    two = "\n".join((lines[0], "reject from red tcp port 23", lines[1].replace("22", "2222"), lines[4], lines[2]))
    found = diff(book(ONE), book(two))
    assert sorted(map(told, found.changes)) == [
        ("added", "rules", 0, 2),
        ("changed", "rules", 2, 3),
        ("moved", "rules", 5, 4),
        ("removed", "rules", 4, 0),
    ]
    (changed,) = [change for change in found.changes if change.how is How.CHANGED]
    assert changed.fields == ("destination_ports",) and found.same == 2
    assert changed.before is not None and json.loads(changed.before.form(2048))["destinations"] == ["10.2.0.0/16"]
    assert book(ONE).text(changed.before) == lines[1]


def test_from_nothing_and_to_nothing() -> None:
    for one, other, how in ((NOTHING, book(ONE), How.ADDED), (book(ONE), NOTHING, How.REMOVED)):
        found = diff(one, other)
        assert {change.how for change in found.changes} == {how} and len(found.changes) == 5 and not found.same


def test_translations_and_the_lan_count_too() -> None:
    text = "lan 10.1.0.0/16\n" + ONE + "nat from red 10.1.0.0/16 to tunnel -> 10.9.0.2\n"
    other = text.replace("lan 10.1", "lan 10.3").replace("10.9.0.2", "10.9.0.3")
    found = [told(change) for change in diff(book(text), book(other)).changes]
    assert [(how, name) for how, name, _, _ in found] == [
        ("changed", "translations"),
        ("removed", "lan"),
        ("added", "lan"),
    ]


@given(st.lists(st.integers(0, 8), max_size=30), st.lists(st.integers(0, 8), max_size=30))
def test_what_is_told_makes_the_one_of_the_other(before: list[int], after: list[int]) -> None:
    def of(numbers: list[int]) -> Rulebook:
        rules = [{"action": 1, "line": i + 1, "protocols": [n]} for i, n in enumerate(numbers)]
        return read(json.dumps({"rules": rules, "files": ["x"]}).encode(), b"")

    old, new = of(before), of(after)
    found = diff(old, new)
    left = [one.number for one in old.items["rules"]]
    come = [one.number for one in new.items["rules"]]
    for change in found.changes:
        if change.before is not None:
            left.remove(change.before.number)
        if change.after is not None:
            come.remove(change.after.number)
        if change.how is How.MOVED:
            assert change.before is not None and change.after is not None
            assert change.before.key == change.after.key
    assert len(left) == len(come) == found.same
    stayed = [(old.items["rules"][i - 1].key, new.items["rules"][j - 1].key) for i, j in zip(left, come, strict=True)]
    assert all(one == other for one, other in stayed)
    numbers = [change.after.number for change in found.changes if change.after is not None]
    assert numbers == sorted(numbers), "they come in the order of what came of them"


WRONG: list[tuple[Any, str]] = [
    (b"x", ""),
    (b"[" * 100_000, ""),
    ([], ""),
    ({"rules": {}}, "rules"),
    ({"rules": [1]}, "rules[0]"),
    ({"rules": [{"file": 1}], "files": ["a"]}, "rules[0].file"),
    ({"rules": [{"line": True}]}, "rules[0].line"),
    ({"rules": [{"sources": 0}]}, "rules[0].sources"),
    ({"rules": [{str(i): i for i in range(65)}]}, "rules[0]"),
    ({"rules": [{}] * 16_385}, "rules"),
    ({"prefixes": [["a"], [1]]}, "prefixes[1][0]"),
    ({"prefixes": [["a"] * 65_537]}, "prefixes[0]"),
    ({"lan": [1]}, "lan[0]"),
    ({"files": ["a"] * 65}, "files"),
]


@pytest.mark.parametrize(("what", "path"), WRONG)
def test_what_is_no_set_of_rules_is_refused_with_its_place(what: Any, path: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(what if isinstance(what, bytes) else json.dumps(what).encode(), b"")
    assert refused.value.path == path


def test_lists_that_all_rules_share_are_looked_at_once() -> None:
    """Or else a few megabytes of rules would be gigabytes of prefixes."""
    prefixes = [f"10.{i >> 8 & 255}.{i & 255}.0/24" for i in range(60_000)]
    rules = [{"action": 1, "sources": 0, "protocols": [i % 250]} for i in range(10_000)]
    one = json.dumps({"rules": rules, "prefixes": [prefixes], "files": ["x"]}).encode()
    other = json.dumps({"rules": rules, "prefixes": [prefixes[1:]], "files": ["x"]}).encode()
    began = time.process_time()
    old, new = read(one, b""), read(other, b"")
    found = diff(old, new)
    assert {change.how for change in found.changes} == {How.CHANGED} and len(found.changes) == 10_000
    assert found.changes[0].fields == ("sources",) and time.process_time() - began < 5
    assert found.changes[0].after is not None and len(found.changes[0].after.form(2048)) <= 2048


def test_ten_thousand_rules_in_another_order() -> None:
    rules = [{"action": 1, "line": i + 1, "comment": str(i)} for i in range(10_000)]
    mixed = random.Random(1).sample(rules, len(rules))
    old, new = (read(json.dumps({"rules": one, "files": ["x"]}).encode(), b"") for one in (rules, mixed))
    began = time.process_time()
    found = diff(old, new)
    assert {change.how for change in found.changes} == {How.MOVED} and 100 < found.same < 400
    assert time.process_time() - began < 2
