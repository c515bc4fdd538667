"""From text to syntax trees, statement by statement: what is wrong with one costs no other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from lark import Lark, Token, Transformer, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from appliance.rules import words
from appliance.rules.lines import Statement, statements
from appliance.rules.problems import Place, Problem
from appliance.rules.syntax import (
    Amount,
    Define,
    End,
    Items,
    Lan,
    Node,
    Origin,
    Protocols,
    Quantity,
    Rate,
    Rule,
    Spans,
    Translate,
    Types,
    Words,
)

_MOST_PROBLEMS: Final = 100
LONGEST: Final = 1 << 16
"""Characters of a statement."""

# What the terminals of the grammar are called where one is missing
_SPOKEN: Final = {
    "NAME": "a name",
    "REFERENCE": "a $name",
    "STRING": 'a "text in quotes"',
    "ADDRESS": "an address or prefix",
    "TARGET": "an address",
    "MAC": "a MAC address",
    "NUMBER": "a number",
    "HEXADECIMAL": "a number like 0x88cc",
    "PORT_RANGE": "a number or a range like 8000-8010",
    "SERVICE": "the name of a service",
    "ICMP_TYPE": "the name of an ICMP type",
    "FLAG_LIST": "flags like syn/syn,ack",
    "UNIT": "a unit (packets, bytes, kB, MB, GB, TB, KiB, MiB, GiB, TiB)",
    "PERIOD": "second, minute, hour or day",
    "DATE": "a date like 2027-12-31 or 2027-12-31T18:00",
    "DAYS": "days like mon-fri or sat,sun",
    "TIMES": "hours like 08:00-18:00",
    "_EQUALS": "'='",
    "_COMMA": "','",
    "_OPEN": "'{'",
    "_CLOSE": "'}'",
    "_SLASH": "'/'",
    "_ARROW": "'->'",
    "$END": "the end of the line",
}
_KEYWORDS: Final = {
    "ACTION": ("allow", "drop", "reject"),
    "SIDE": ("red", "tunnel", "black"),
    "PROTOCOL": tuple(words.PROTOCOLS),
    "VERSION": tuple(words.VERSIONS),
    "TRACKING": tuple(words.TRACKING),
    "OPERATION": tuple(words.OPERATIONS),
    "ETHERTYPE": tuple(words.ETHERTYPES),
    "NO_TAG": ("none",),
}
# Words that may stand where anything else may: naming each of them would say nothing
_MANY: Final = 8
_WORD: Final = re.compile(r'"[^"\n]*"?|[^\s{},=#"]+|.')


class _Tree(Transformer[Token, Node]):
    """Each node of the grammar as one of syntax.py."""

    def statement(self, found: list[Any]) -> Node:
        node: Node = found[0]
        return node

    def set(self, found: list[Any]) -> Define:
        return Define("set", found[0], found[1:])

    def ports(self, found: list[Any]) -> Define:
        return Define("ports", found[0], found[1:])

    def lan(self, found: list[Any]) -> Lan:
        return Lan(found)

    def rule(self, found: list[Any]) -> Rule:
        return Rule(found[0], found[1], found[2:])

    def nat(self, found: list[Any]) -> Translate:
        return Translate(True, found[0], found[1:-1], found[-1])

    def forward(self, found: list[Any]) -> Translate:
        return Translate(False, found[0], found[1:-1], found[-1])

    def source(self, found: list[Any]) -> End:
        return End(True, found[0], found[1] or [], *found[2:])

    def destination(self, found: list[Any]) -> End:
        return End(False, found[0], found[1] or [], *found[2:])

    def sides(self, found: list[Any]) -> Origin:
        return Origin(found, are_peers=False)

    def peers(self, found: list[Any]) -> Origin:
        return Origin(found, are_peers=True)

    def protocols(self, found: list[Any]) -> Protocols:
        return Protocols(found[:-1], found[-1])

    def macs(self, found: list[Any]) -> list[Any]:
        return found

    def hosts(self, found: list[Any]) -> Items:
        return _items(found)

    def services(self, found: list[Any]) -> Items:
        return _items(found)

    def types(self, found: list[Any]) -> Types:
        return Types(found)

    def type(self, found: list[Any]) -> tuple[Any, Any]:
        return found[0], found[1]

    def limit(self, found: list[Any]) -> Rate:
        return Rate(Amount(found[0], found[1]), found[2], found[3])

    def burst(self, found: list[Any]) -> Amount:
        return Amount(found[0], found[1])

    def quota(self, found: list[Any]) -> Quantity:
        return Quantity(Amount(found[0], found[1]))

    def hours(self, found: list[Any]) -> Spans:
        return Spans(found)

    def span(self, found: list[Any]) -> tuple[Any, Any]:
        return found[0], found[1]

    def __default__(self, data: Any, children: list[Any], meta: Any) -> Any:
        if data.startswith("_"):
            return Tree(data, children)  # lark puts what is in it where it was
        return Words(str(data), [child for child in children if child is not None])


def _items(found: list[Any]) -> Items:
    given = [token for token in found if token is not None and token.type != "ANY"]
    kinds = [token.type for token in given]
    if "NOT" in kinds:
        at = kinds.index("NOT")
        return Items(given[:at], given[at + 1 :])
    return Items(given, [])


@cache
def _parser() -> Callable[[str], Node]:
    folder = Path(__file__).parent
    lark = Lark(
        (folder / "grammar.lark").read_text(),
        parser="lalr",
        lexer="contextual",
        start="statement",
        transformer=_Tree(),
        # Its tables lie beside the bytecode, are as much believed as that, and made anew when the grammar changes: to
        # make them takes longer than to read a page of rules. Where nothing may be written they are made each time.
        cache=str(folder / "__pycache__" / "grammar.tables"),
    )
    parse: Any = lark.parse
    return parse  # type: ignore[no-any-return]


def make_tables() -> None:
    """Leaves the grammar's tables where whoever parses next finds them."""
    _parser()


def parse(text: str, file: str, problems: list[Problem]) -> Iterator[tuple[Statement, Node]]:
    """Every statement of ``text`` that is well-formed; ``problems`` gets one for each that is not."""
    parser = _parser()
    for statement in statements(text):
        if len(problems) >= _MOST_PROBLEMS:
            why = "too many problems; from here on nothing was looked at"
            problems.append(Problem(file, Place(statement.line), "", why))
            return
        if len(statement.text) > LONGEST:
            place = Place(statement.line)
            problems.append(Problem(file, place, "", f"is one statement of more than {LONGEST} characters"))
            continue
        try:
            yield statement, parser(statement.text)
        except UnexpectedInput as error:
            problems.append(_problem(statement, file, error))


def _problem(statement: Statement, file: str, error: UnexpectedInput) -> Problem:
    at, expected = len(statement.text.rstrip()), set[str]()
    if isinstance(error, UnexpectedCharacters):
        at, expected = error.pos_in_stream or 0, set(error.allowed or ())
    elif isinstance(error, UnexpectedToken):
        expected = set(error.accepts or error.expected)
        if error.token.type != "$END":
            at = error.token.start_pos or 0
    match = _WORD.match(statement.text, at)
    word = match.group() if match and at < len(statement.text.rstrip()) else ""
    before = statement.text[:at]
    if not word:
        # The end: of the last line with anything on it
        before = re.sub(r"(\s|#[^\n]*)*\Z", "", before)
        at = len(before)
    line, column = before.count("\n"), at - (before.rfind("\n") + 1)
    place = Place(statement.line + line, column + 1, len(word) or 1)
    why = f"{_quoted(word)} is not what can stand here" if word else "the statement ends too early"
    if not re.match(r"\s*(nat|forward)\b", statement.text):
        expected -= {"_ARROW"}  # the same state of the parser, another statement
    return Problem(file, place, statement.text.split("\n")[line], why, _hint(word, expected))


def _quoted(word: str) -> str:
    return word if word.startswith('"') else f"'{word}'"


def _hint(word: str, expected: set[str]) -> str:
    spoken: list[str] = []
    keywords: list[str] = []
    for terminal in sorted(expected):
        if terminal in _SPOKEN:
            spoken.append(_SPOKEN[terminal])
        else:
            keywords += _KEYWORDS.get(terminal, (terminal.strip("_").lower(),))
    if word.startswith('"') and word.count('"') == 1:
        return "the quote is not closed"
    if word.lower() in keywords and word not in keywords:
        return f"words are written small: {word.lower()!r}"
    if word.lower() in words.FOREIGN:
        return f"here one writes: {words.FOREIGN[word.lower()]}"
    if near := difflib.get_close_matches(word.lower(), keywords, 1):
        return f"did you mean {near[0]!r}?"
    if len(keywords) > _MANY:
        keywords = []
        spoken = [one for one in spoken if one != _SPOKEN["$END"]] + ["another condition", _SPOKEN["$END"]]
    known = [*spoken, *map(repr, keywords)]
    if not known:
        return ""
    *some, last = known
    return f"expected {', '.join(some)} or {last}" if some else f"expected {last}"
