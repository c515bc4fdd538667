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
from typing import NamedTuple, TypeVar

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from appliance.vchan.messages import Packets
from components.filter.engine import Engine
from components.filter.model import Rule, Side, Translation
from tests.differential.cases import ALIASES, Case, Item, case
from tests.differential.hosts import TCP, Hosts, ends_of, is_sound
from tests.differential.oracle import Oracle
from tests.differential.translate import script

pytestmark = [pytest.mark.root, pytest.mark.timeout(1200)]

CASES = int(os.environ.get("SEPTUM_CASES", "2050"))
SEED = int(os.environ.get("SEPTUM_SEED", "1"))
MOST_SHOWN = 5
_SIDES = {"red": (Side.RED, 0), "peer1": (Side.TUNNEL, 1), "peer2": (Side.TUNNEL, 2)}
T = TypeVar("T")


class Verdict(NamedTuple):
    """What became of a datagram: it passed (as ``packet``, where that must be the same), was dropped, or answered."""

    what: str
    packet: str = ""
    is_translated: bool = False


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as one:
        yield one


def test_verdicts_are_those_of_nftables(oracle: Oracle, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts: Counter[str] = Counter()
    translated = 0
    differences = []
    for seed in range(SEED, SEED + CASES):
        tried = case(seed)
        ours, theirs = of_septum(tried), of_nftables(oracle, tried)
        verdicts.update(their.what for their in theirs)
        translated += sum(their.is_translated for their in theirs)
        if differs(tried, ours, theirs):
            differences.append(explained(oracle, seed, tried))
            if len(differences) == MOST_SHOWN:
                break
    total = sum(verdicts.values())
    with capsys.disabled():
        shares = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
        print(
            f"\n{total} packets in {CASES} rule sets against nftables: {shares}; {translated} translated; "
            f"{len(differences)} differences"
        )
    assert not differences, "\n\n".join(differences)
    # The test tests: each verdict is there in numbers
    assert min(translated, *(verdicts[one] for one in ("passed", "dropped", "reset", "unreachable"))) > total / 100


def differs(tried: Case, ours: Sequence[Verdict], theirs: Sequence[Verdict]) -> bool:
    """Whether two verdicts differ. Two things end a connection for nftables alone, and what comes after is left out:

    * a reset that it has sent itself, which passes through its own connection tracking;
    * a SYN that begins a closed connection anew, also where rules refuse it.
    """
    known: set[frozenset[bytes]] = set()
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
        is_syn = packet[start - 11 if width == 4 else 6] == TCP and packet[start + 13] & 0x17 == 0x02
        if their.what == "reset" or (is_syn and their.what == "dropped" and ends in known):
            closed.add(ends)
        if their.what == "passed":
            known.add(ends)
    return False


def of_septum(tried: Case) -> list[str]:
    engine, hosts = Engine(tried.ruleset), Hosts()
    wall = time.time()
    return [verdict(engine, hosts, item, 1000 + 0.05 * number, wall) for number, item in enumerate(tried.items)]


def verdict(engine: Engine, hosts: Hosts, item: Item, now: float, wall: float) -> Verdict:
    side, peer = _SIDES[item.way]
    passed, answers = [], []
    sent = hosts.sends(item.packets)
    for packet in sent:
        outcome = engine.judge(Packets(packet, len(packet), peer), side, now, wall)
        passed += [bytes(one.packets) for _, one in outcome.passed]
        answers += [raw for to, answer in outcome.answers if to is side and not _asks(raw := bytes(answer.packets))]
    if len(passed) != len(sent):
        return Verdict(named(answers))
    assert all(packet[0] >> 4 == 6 or is_sound(packet) for packet in passed), "a wrong checksum"
    return came_out(hosts, item, sent, passed[0])


def came_out(hosts: Hosts, item: Item, sent: Sequence[bytes], packet: bytes) -> Verdict:
    """What was sent has come out, in one piece or the first of several as ``packet``."""
    hosts.passed(item.packets[0], packet)
    before, after = ends_of(sent[0]), ends_of(packet)
    if len(sent) > 1:  # in as many pieces as it was sent here, put together there
        return Verdict("passed", str(after), before != after)
    if packet[0] >> 4 == 6:
        return Verdict("passed", (packet[:7] + packet[8:]).hex())
    is_translated = packet[12:] != sent[0][12:]
    if before and after and after.source_port != before.source_port and after.source in ALIASES:
        # Which port, each chooses as it likes
        return Verdict("passed", f"{after._replace(source_port=-1)}, {len(packet)} bytes", is_translated)
    # Without the time to live, which the kernel counts down as a router does
    return Verdict("passed", (packet[:8] + packet[9:10] + packet[12:]).hex(), is_translated)


def _asks(answer: bytes) -> bool:
    """Whether an answer is a question to the red side, about a connection that it may have."""
    protocol, start = (answer[9], 20) if answer[0] >> 4 == 4 else (answer[6], 40)
    return protocol == 6 and not answer[start + 13] & 0x04


def of_nftables(oracle: Oracle, tried: Case) -> list[Verdict]:
    oracle.load(script(tried.ruleset))
    hosts = Hosts()
    return [_seen(oracle, hosts, item) for item in tried.items]


def _seen(oracle: Oracle, hosts: Hosts, item: Item) -> Verdict:
    sent = hosts.sends(item.packets)
    seen = oracle.pass_through(item.way, sent)
    for one in seen:
        if one.way != item.way:
            return came_out(hosts, item, sent, one.packet)
    # The kernel puts fragments together before it judges them, and can answer; ours never answers one
    return Verdict(named([one.packet for one in seen] if len(sent) == 1 else []))


def named(answers: Sequence[bytes]) -> str:
    """What becomes of a packet that does not pass."""
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

    def with_nat(translations: Sequence[Translation]) -> Case:
        return least._replace(ruleset=least.ruleset._replace(translations=tuple(translations)))

    least = tried
    least = with_items(reduced(least.items, lambda items: still(with_items(items))))
    least = with_rules(reduced(least.ruleset.rules, lambda rules: still(with_rules(rules))))
    least = with_nat(reduced(least.ruleset.translations, lambda some: still(with_nat(some))))
    lines = [f"case {seed}:", *(f"  {_rule(rule)}" for rule in (*least.ruleset.rules, *least.ruleset.translations))]
    for item, ours, theirs in zip(least.items, of_septum(least), of_nftables(oracle, least), strict=True):
        is_same = ours == theirs
        lines.append(f"  {'=' if is_same else '!'} {item.way}: {_packet(item)}")
        lines.append(f"      {ours.what}" if is_same else f"      ours {_told(ours)}, nftables {_told(theirs)}")
    return "\n".join(lines)


def reduced(items: Sequence[T], still: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """Without all that can be taken away one by one while it ``still`` holds."""
    at = len(items)
    while at := at - 1 if at else 0:
        without = [*items[:at], *items[at + 1 :]]
        if still(without):
            items = without
    return items[1:] if items and still(items[1:]) else items


def _told(verdict: Verdict) -> str:
    return f"{verdict.what} {verdict.packet}"


def _rule(rule: Rule | Translation) -> str:
    said = {name: value for name, value in rule._asdict().items() if value != Rule._field_defaults.get(name)}
    return ", ".join(f"{name}={value}" for name, value in said.items())


def _packet(item: Item) -> str:
    first = item.packets[0]
    layer = IP if first[0] >> 4 == 4 else IPv6
    return f"{len(item.packets)} x {layer(first).summary()}"
