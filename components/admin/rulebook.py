"""Compiled rules as the plain data that they are: each by its form and its place, to be shown, found and compared.

What they mean is not known here, on purpose: the language is read where rules are signed and where they are gone by.
Two rules have the same form if everything that was compiled of them is the same but where they are written.

Whoever brings rules to be compared is not believed: every list has its length, and prefixes that many rules share are
looked at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2s
from typing import Any, Final, NamedTuple

from appliance.guest.settings import SettingsError
from appliance.vchan.message import cut

LISTS: Final = {"rules": 16_384, "translations": 1024, "lan": 64}
"""What a set of rules consists of, and of how many each (components/filter/ruleset.py)."""

_MOST_FILES: Final = 64
_MOST_PREFIXES: Final = 65_536  # in all lists together
_MOST_FIELDS: Final = 64
_SHOWN_PREFIXES: Final = 64  # of one list, in a form that is shown
_LONGEST_LINE: Final = 1 << 24
_PLACE: Final = frozenset({"file", "line"})
_LISTED: Final = frozenset({"sources", "not_sources", "destinations", "not_destinations"})


class Prefixes:
    """A list of prefixes that rules name by its number; equal to another one of the same digest."""

    __slots__ = ("digest", "texts")

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts
        self.digest = _key(texts).hex()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefixes) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


class Item(NamedTuple):
    """A rule, a translation, or a prefix of the LAN. ``number`` is from 1; ``key`` is equal if the form is."""

    number: int
    file: str
    line: int
    fields: Mapping[str, Any]
    key: bytes

    def form(self, most: int) -> str:
        """Canonical JSON of what was compiled, without its place; cut to ``most`` bytes."""
        shown = {name: _shown(value) for name, value in self.fields.items()}
        return cut(json.dumps(shown, sort_keys=True, separators=(",", ":")), most)


class Rulebook(NamedTuple):
    """A set of rules: ``items`` by the name of their list, and the lines of the text that they are from."""

    digest: bytes  # of the compiled rules
    items: Mapping[str, tuple[Item, ...]]
    lines: tuple[str, ...]

    def rule(self, number: int) -> Item | None:
        """The rule of that number, from 1."""
        rules = self.items["rules"]
        return rules[number - 1] if 0 < number <= len(rules) else None

    def text(self, item: Item) -> str:
        """The line that ``item`` is written in; empty if there is none."""
        return self.lines[item.line - 1].strip() if 0 < item.line <= len(self.lines) else ""


NOTHING: Final = Rulebook(bytes(32), dict.fromkeys(LISTS, ()), ())
"""Before the first commit."""


def read(untrusted_ruleset: bytes, untrusted_text: bytes) -> Rulebook:
    """The set that is compiled in these bytes. Errors: SettingsError with the path of what is wrong."""
    try:
        table = json.loads(untrusted_ruleset)
    except (ValueError, RecursionError):
        raise SettingsError("", "is not JSON: compile the rules as they would be committed") from None
    if not isinstance(table, dict):
        raise SettingsError("", "must be a table of rules, translations, lan, files and prefixes")
    files = _texts("files", _list(table, "files", _MOST_FILES))
    prefixes = _prefixes(_list(table, "prefixes", 2 * _MOST_PREFIXES))
    items: dict[str, tuple[Item, ...]] = {}
    try:
        for name in ("rules", "translations"):
            items[name] = tuple(
                _item(f"{name}[{i}]", i + 1, fields, files, prefixes)
                for i, fields in enumerate(_list(table, name, LISTS[name]))
            )
        lan = _texts("lan", _list(table, "lan", LISTS["lan"]))
        items["lan"] = tuple(Item(i + 1, "", 0, {"prefix": text}, _key(text)) for i, text in enumerate(lan))
    except RecursionError:
        raise SettingsError("", "has tables within tables without an end") from None
    # A text is of one file; lines of others would be shown as what they are not
    text = untrusted_text.decode("utf-8", "replace") if len(files) < 2 else ""
    return Rulebook(blake2s(untrusted_ruleset).digest(), items, tuple(text.split("\n")))


def _list(table: Mapping[str, Any], name: str, most: int) -> list[Any]:
    found = table.get(name, [])
    if not isinstance(found, list) or len(found) > most:
        raise SettingsError(name, f"must be a list of at most {most}")
    return found


def _texts(path: str, values: list[Any]) -> tuple[str, ...]:
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise SettingsError(f"{path}[{i}]", "must be a text")
    return tuple(values)


def _prefixes(lists: list[Any]) -> list[Prefixes]:
    found, total = [], 0
    for i, one in enumerate(lists):
        if not isinstance(one, list) or (total := total + len(one)) > _MOST_PREFIXES:
            raise SettingsError(f"prefixes[{i}]", f"must be a list; all together have at most {_MOST_PREFIXES}")
        found.append(Prefixes(_texts(f"prefixes[{i}]", one)))
    return found


def _item(path: str, number: int, table: Any, files: tuple[str, ...], prefixes: list[Prefixes]) -> Item:
    if not isinstance(table, dict) or len(table) > _MOST_FIELDS:
        raise SettingsError(path, f"must be a table of at most {_MOST_FIELDS} fields")
    file, line = table.get("file", 0), table.get("line", 0)
    if type(file) is not int or not 0 <= file < max(len(files), 1):
        raise SettingsError(f"{path}.file", "must be the number of a file")
    if type(line) is not int or not 0 <= line <= _LONGEST_LINE:
        raise SettingsError(f"{path}.line", "must be the number of a line")
    fields = {}
    for name, value in table.items():
        if name in _LISTED:
            if type(value) is not int or not 0 <= value < len(prefixes):
                raise SettingsError(f"{path}.{name}", "must be the number of a list of prefixes")
            fields[name] = prefixes[value]
        elif name not in _PLACE:
            fields[name] = value
    named = {name: value.digest if isinstance(value, Prefixes) else value for name, value in fields.items()}
    return Item(number, files[file] if files else "", line, fields, _key(named))


def _key(value: Any) -> bytes:
    return blake2s(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).digest()


def _shown(value: Any) -> Any:
    if not isinstance(value, Prefixes):
        return value
    more = len(value.texts) - _SHOWN_PREFIXES
    return [*value.texts[:_SHOWN_PREFIXES], *([f"and {more} more"] if more > 0 else [])]
