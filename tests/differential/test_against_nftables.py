"""Every verdict of the filter against the same one of nftables, for random rule sets and packets.

What differs on purpose is in docs/filter.md ("Where it differs from nftables"), and said to nftables as a rule of its
own in translate.py or left out of cases.py. Anything else that differs fails here, cut down to the packets and rules
that it takes. SEPTUM_CASES=n tries more or fewer cases, SEPTUM_SEED=n others.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from appliance.vchan.messages import Packets
from components.filter.engine import Engine
from components.filter.model import Rule, Side
from tests.differential.cases import Case, Item, case
from tests.differential.oracle import Oracle, Seen
from tests.differential.translate import script

pytestmark = [pytest.mark.root, pytest.mark.timeout(1200)]

CASES = int(os.environ.get("SEPTUM_CASES", "2050"))
SEED = int(os.environ.get("SEPTUM_SEED", "1"))
MOST_SHOWN = 5
_SIDES = {"red": (Side.RED, 0), "peer1": (Side.TUNNEL, 1), "peer2": (Side.TUNNEL, 2)}
T = TypeVar("T")


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as one:
        yield one


def test_verdicts_are_those_of_nftables(oracle: Oracle, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts: Counter[str] = Counter()
    differences = []
    for seed in range(SEED, SEED + CASES):
        tried = case(seed)
        ours, theirs = of_septum(tried), of_nftables(oracle, tried)
        verdicts.update(theirs)
        if differs(tried, ours, theirs):
            differences.append(explained(oracle, seed, tried))
            if len(differences) == MOST_SHOWN:
                break
    total = sum(verdicts.values())
    with capsys.disabled():
        shares = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
        print(f"\n{total} packets in {CASES} rule sets against nftables: {shares}; {len(differences)} differences")
    assert not differences, "\n\n".join(differences)
    # The test tests: each verdict is there in numbers
    assert min(verdicts[one] for one in ("passed", "dropped", "reset", "unreachable")) > total / 100


def differs(tried: Case, ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether two verdicts differ. What comes after a reset that nftables has sent is left out: that passes through its
    own connection tracking, which holds the connection closed from then on; our own does not.
    """
    closed: set[frozenset[bytes]] = set()
    for item, our, their in zip(tried.items, ours, theirs, strict=True):
        packet = item.packets[0]
        start, width, at = (20, 4, 12) if packet[0] >> 4 == 4 else (40, 16, 8)
        ends = frozenset(
            packet[at + n * width : at + (n + 1) * width] + packet[start + 2 * n : start + 2 * n + 2] for n in (0, 1)
        )
        if ends in closed:
            continue
        if our != their:
            return True
        if their == "reset":
            closed.add(ends)
    return False


def of_septum(tried: Case) -> list[str]:
    engine = Engine(tried.ruleset)
    wall = time.time()
    return [verdict(engine, item, 1000 + 0.05 * number, wall) for number, item in enumerate(tried.items)]


def verdict(engine: Engine, item: Item, now: float, wall: float) -> str:
    side, peer = _SIDES[item.way]
    passed, answers = 0, []
    for packet in item.packets:
        outcome = engine.judge(Packets(packet, len(packet), peer), side, now, wall)
        passed += len(outcome.passed)
        answers += [raw for to, answer in outcome.answers if to is side and not _asks(raw := bytes(answer.packets))]
    return named(passed == len(item.packets), answers)


def _asks(answer: bytes) -> bool:
    """Whether an answer is a question to the red side, about a connection that it may have."""
    protocol, start = (answer[9], 20) if answer[0] >> 4 == 4 else (answer[6], 40)
    return protocol == 6 and not answer[start + 13] & 0x04


def of_nftables(oracle: Oracle, tried: Case) -> list[str]:
    oracle.load(script(tried.ruleset))
    return [_seen(item, oracle.pass_through(item.way, item.packets)) for item in tried.items]


def _seen(item: Item, seen: Sequence[Seen]) -> str:
    # The kernel puts fragments together before it judges them, and can answer; ours never answers one
    answers = [one.packet for one in seen if one.way == item.way] if len(item.packets) == 1 else []
    return named(any(one.way != item.way for one in seen), answers)


def named(passed: bool, answers: Sequence[bytes]) -> str:
    if passed:
        return "passed"
    if not answers:
        return "dropped"
    packet = answers[0]
    return "reset" if (packet[9] if packet[0] >> 4 == 4 else packet[6]) == 6 else "unreachable"


# what to make of a difference -----------------------------------------------------------------------------------------


def explained(oracle: Oracle, seed: int, tried: Case) -> str:
    """The difference in a case, with as few of its packets and rules as still show it."""

    def still(one: Case) -> bool:
        return differs(one, of_septum(one), of_nftables(oracle, one))

    def with_items(items: Sequence[Item]) -> Case:
        return least._replace(items=tuple(items))

    def with_rules(rules: Sequence[Rule]) -> Case:
        return least._replace(ruleset=least.ruleset._replace(rules=tuple(rules)))

    least = tried
    least = with_items(reduced(least.items, lambda items: still(with_items(items))))
    least = with_rules(reduced(least.ruleset.rules, lambda rules: still(with_rules(rules))))
    lines = [f"case {seed}:", *(f"  {_rule(rule)}" for rule in least.ruleset.rules)]
    for item, ours, theirs in zip(least.items, of_septum(least), of_nftables(oracle, least), strict=True):
        lines.append(f"  {'=' if ours == theirs else '!'} {item.way}: ours {ours}, nftables {theirs}: {_packet(item)}")
    return "\n".join(lines)


def reduced(items: Sequence[T], still: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """Without all that can be taken away one by one while it ``still`` holds."""
    at = len(items)
    while at := at - 1 if at else 0:
        without = [*items[:at], *items[at + 1 :]]
        if still(without):
            items = without
    return items[1:] if items and still(items[1:]) else items


def _rule(rule: Rule) -> str:
    said = {name: value for name, value in rule._asdict().items() if value != Rule._field_defaults.get(name)}
    return ", ".join(f"{name}={value}" for name, value in said.items())


def _packet(item: Item) -> str:
    first = item.packets[0]
    layer = IP if first[0] >> 4 == 4 else IPv6
    return f"{len(item.packets)} x {layer(first).summary()}"
