"""docs/filter.md does not lie: every example in it is run, and every word of the language is in one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from appliance.rules import compile as compiling
from appliance.rules import lint as linting
from appliance.rules import parse as parsing
from appliance.rules import read as reading
from appliance.rules import space, words
from appliance.rules.diff import diff
from appliance.rules.explained import Explainer
from appliance.rules.packets import parse
from appliance.rules.problems import RulesError
from appliance.rules.read import from_text
from components.filter import ruleset
from components.filter.flows import SHARES, TIMEOUTS, State
from components.filter.model import Action, Side

PAGE = Path(__file__).parents[3] / "docs" / "filter.md"
TEXT = PAGE.read_text()
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()


class Block(NamedTuple):
    line: int
    kind: str
    more: str
    text: str


def blocks() -> list[Block]:
    found = re.finditer(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [Block(TEXT.count("\n", 0, one.start()) + 1, one[1], one[2], one[3]) for one in found]


BLOCKS = [block for block in blocks() if block.kind != "toml"]
EXAMPLES = [
    (rules, packets)
    for at, packets in enumerate(BLOCKS)
    if packets.kind == "packets"
    for rules in [next(block for block in reversed(BLOCKS[:at]) if block.kind == "rules")]
]


@pytest.mark.parametrize(("rules", "packets"), [pytest.param(*one, id=f"line {one[1].line}") for one in EXAMPLES])
def test_an_example(rules: Block, packets: Block) -> None:
    assert not rules.more, "these rules are not ones that packets are tried on"
    loaded = from_text(rules.text, "example.rules")
    assert not loaded.warnings
    at = re.fullmatch(r"(?:at=(\S+))?", packets.more)
    assert at
    now = datetime.fromisoformat(at[1]).replace(tzinfo=UTC).timestamp() if at[1] else NOW
    numbers = dict(loaded.peers)
    explainer = Explainer(loaded.ruleset, {number: name for name, number in numbers.items()}, now)
    for line in packets.text.splitlines():
        match = re.fullmatch(r"(allow|drop|reject)\s+([^#]+?)\s*(?:#\s*(?:line (\d+))?.*)?", line)
        assert match, line
        for name in re.findall(r"from peer (\w+)", line):
            numbers.setdefault(name, len(numbers) + 1)
        told = explainer.described(parse(match[2], space.has_link(loaded.ruleset), numbers))
        assert told.verdict is Action[match[1].upper()], f"{line}: {told}"
        decided = loaded.ruleset.rules[told.rule].line if told.rule is not None else None
        assert decided == (int(match[3]) if match[3] else None), f"{line}: {told}"


def test_every_packet_block_belongs_to_rules() -> None:
    assert len(EXAMPLES) > 15
    assert {block.kind for block in BLOCKS} == {"rules", "packets", "problems", "findings", "changes"}


def test_every_word_is_in_an_example() -> None:
    text = "\n".join(block.text for block in BLOCKS if block.kind == "rules" and not block.more)
    used = set(re.findall(r"[a-z][a-z0-9]*", text))
    keywords = {name.strip("_").lower() for name in re.findall(r"^(_?[A-Z_]+): /[a-z]+\(\?!", GRAMMAR, re.MULTILINE)}
    keywords -= {"no_tag"}
    assert {"from", "to", "set", "lan", "burst", "vlan", "comment"} <= keywords, "the grammar is read well"
    assert keywords <= used
    assert set(words.SIDES) | set(words.TRACKING) | set(words.VERSIONS) - {"ip4"} <= used
    assert set("allow drop reject second minute none".split()) <= used
    # What examples leave out, tables and sentences name
    said = set(re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL))) | used
    for name in (*words.PROTOCOLS, *words.ETHERTYPES, *words.PERIODS, *words.VERSIONS):
        assert name in said or any(name in one.split() for one in said), name


GRAMMAR = (Path(parsing.__file__).parent / "grammar.lark").read_text()


def test_mistakes_are_shown_as_they_are_here() -> None:
    rules = next(block for block in BLOCKS if block.more == "refused")
    shown = next(block for block in BLOCKS if block.kind == "problems")
    with pytest.raises(RulesError) as refused:
        from_text(rules.text, "office.rules")
    assert "\n".join(problem.show() for problem in refused.value.problems) + "\n" == shown.text


def test_lint_finds_what_is_here() -> None:
    rules = from_text(next(block for block in BLOCKS if block.more == "lint").text, "x").ruleset
    shown = next(block for block in BLOCKS if block.kind == "findings")
    found = []
    for one in linting.lint(rules, NOW):
        others = [str(rules.rules[other].line) for other in one.others]
        link = {"overlap": " with line ", "unreachable": " for lines "}.get(one.kind, " by line ")
        example = f", as: {one.example}" if one.example else ""
        found.append(f"line {rules.rules[one.number].line}: {one.kind}{link}{', '.join(others)}{example}\n")
    assert "".join(found) == shown.text


def test_diff_finds_what_is_here() -> None:
    both = next(block for block in BLOCKS if block.more == "diff").text.splitlines()
    old, new = (
        from_text("\n".join(line.lstrip("+- ") for line in both if line[0] != sign), "x").ruleset for sign in "+-"
    )
    shown = next(block for block in BLOCKS if block.kind == "changes")
    said = [
        " -> ".join(
            f"{Action(entries[-1].action).name.lower()} (line {rules.rules[entries[-1].number].line})"  # type: ignore[arg-type]
            for entries, rules in ((change.before, old), (change.after, new))
        )
        + f", as: {change.example}\n"
        for change in diff(old, new, NOW).changes
    ]
    assert "".join(said) == shown.text


def rows(head: str) -> dict[str, str]:
    table = TEXT[TEXT.index(head) :].split("\n\n")[0].splitlines()[2:]
    return {cells[0].strip(" `"): cells[1].strip() for cells in (row.strip("|").split("|") for row in table)}


def test_bounds_are_these() -> None:
    assert {name: int(value.replace(",", "")) for name, value in rows("| what | at most |").items()} == {
        "bytes of a file": reading.MAX_BYTES,
        "characters of a statement": parsing.LONGEST,
        "rules": compiling.MOST_RULES,
        "translations": ruleset.MOST_TRANSLATIONS,
        "prefixes, of all lists together": compiling.MOST_PREFIXES,
        "ranges of ports in one condition": compiling.MOST_RANGES,
        "items in any other condition": compiling.MOST_ITEMS,
        "peers in one rule": compiling.MOST_PEERS,
    }
    assert compiling.MOST_RULES == ruleset.MOST_RULES


def test_timeouts_are_these() -> None:
    shown = rows("| a flow is forgotten")
    states = {
        "TCP, until both have answered": (State.OPENING, State.ANSWERING),
        "TCP, established": (State.ESTABLISHED,),
        "TCP, both ends closed": (State.CLOSING,),
        "TCP, after a reset": (State.RESET,),
        "UDP, unanswered": (State.ASKED,),
        "UDP, answered": (State.ANSWERED,),
        "ICMP echo": (State.ECHO,),
        "anything else": (State.OTHER,),
    }
    assert sorted(state for some in states.values() for state in some) == sorted(State)
    for name, some in states.items():
        assert {TIMEOUTS[state] for state in some} == {float(shown[name].replace(",", ""))}
    counts = (f"{SHARES[Side.RED]:,} that the red side opened", f"{SHARES[Side.TUNNEL]:,} from the tunnel")
    assert all(count in TEXT for count in counts)


def test_findings_are_those_of_lint() -> None:
    shown = rows("| finding | what is meant |")
    assert sorted(shown) == sorted(linting.KINDS)
    assert all(f"| `{kind}` | {meant} |" in (linting.__doc__ or "") for kind, meant in shown.items())
