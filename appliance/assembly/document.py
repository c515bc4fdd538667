"""A TOML file with the line of every key, and the tables in it read against a list of the keys they may have.

Nothing here raises for what a file says: whatever is wrong becomes a ``Finding``, so that all of it is reported at
once.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.assembly.findings import Finding, hint, show
from appliance.assembly.lines import Path as Way
from appliance.assembly.lines import lines

MAX_BYTES: Final = 1 << 18
"""No file that a person wrote is larger, and every step after this one may then be quadratic."""

WELL_FORMED: Final = ("well-formed", "The file is TOML 1.0, in UTF-8, and of at most 256 KiB.")
KEYS: Final = (
    "keys",
    "Every key is one that this table may have, every required key is there, every value has its type.",
)


@dataclass
class Document:
    """A file: its tables, and where each of them stands. ``places`` are keys that came from elsewhere (a wg-quick
    file).
    """

    file: Path
    tables: dict[str, object]
    lines: Mapping[Way, int]
    findings: list[Finding] = field(default_factory=list)
    places: dict[Way, tuple[Path, int]] = field(default_factory=dict)

    def place(self, way: Way) -> tuple[Path, int]:
        """File and line of the key at ``way``, or of the nearest table around it."""
        for length in range(len(way), 0, -1):
            if way[:length] in self.places:
                return self.places[way[:length]]
            if way[:length] in self.lines:
                return self.file, self.lines[way[:length]]
        return self.file, 0

    def finding(self, rule: tuple[str, str], way: Way, detail: str) -> Finding:
        file, line = self.place(way)
        return Finding(file, line, *rule, detail)

    def refuse(self, rule: tuple[str, str], way: Way, detail: str) -> None:
        self.findings.append(self.finding(rule, way, detail))


def read(file: Path) -> Document:
    """The document in ``file``; empty, with a finding, if it cannot be read or is not TOML."""
    document = Document(file, {}, {})

    def refuse(line: int, why: str) -> Document:
        document.findings.append(Finding(file, line, *WELL_FORMED, why))
        return document

    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        return refuse(0, f"cannot be read: {error.strerror}")
    if len(raw) > MAX_BYTES:
        return refuse(0, f"has more than {MAX_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return refuse(raw.count(b"\n", 0, error.start) + 1, "is not UTF-8")
    try:
        document.tables = tomllib.loads(text)
        document.lines = lines(text)
    except RecursionError:
        document.tables = {}
        return refuse(0, "is nested too deeply")
    except ValueError as error:  # TOMLDecodeError, or a number that Python will not convert
        return refuse(*_toml_error(str(error), text))
    return document


def _toml_error(message: str, text: str) -> tuple[int, str]:
    """tomllib has the line only in its text: "... (at line 3, column 7)"."""
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.DOTALL)
    if match is None:
        return 0, "is not TOML"
    # The message may quote the character it stumbled over, never more
    return int(match[2] or text.count("\n") + 1), f"is not TOML: {match[1][:80]}"


TEXT, WHOLE, TEXTS, TABLE = "a text", "a whole number", "a list of texts", "a table"
EITHER = "a text or a whole number"
FLAG = "true or false"


@dataclass(frozen=True)
class Key:
    """One key that a table may have: its type, the default (None: none), and what its value must look like.

    ``pattern`` (each) text must match, and ``looks`` says so in words; ``known`` are all texts there may be;
    ``low`` and ``high`` bound whole numbers, ``most`` the number of items.
    """

    kind: str
    default: object = None
    required: bool = False
    pattern: str = r"[^\x00-\x1f\x7f]{0,256}"
    looks: str = "one line of at most 256 characters"
    known: tuple[str, ...] = ()
    low: int = 0
    high: int = 2**32 - 1
    most: int = 512
    unique: bool = True

    def wrong(self, value: object) -> str | None:
        """What is wrong with ``value``, as the end of a sentence."""
        if self.kind == TEXT or (self.kind == EITHER and isinstance(value, str)):
            return self._wrong_text(value)
        if self.kind in (WHOLE, EITHER):
            # bool is an int to Python, and is not one to anybody who writes a file
            if not isinstance(value, int) or isinstance(value, bool):
                return f"must be {self.kind}, not {show(value)}"
            return (
                None if self.low <= value <= self.high else f"must be in {self.low} to {self.high}, not {show(value)}"
            )
        if self.kind == FLAG:
            return None if isinstance(value, bool) else f"must be {self.kind}, not {show(value)}"
        if self.kind == TABLE:
            return None if isinstance(value, dict) else f"must be a table, not {show(value)}"
        if not isinstance(value, list):
            return f"must be a list of texts, not {show(value)}"
        if len(value) > self.most:
            return f"must have at most {self.most} items, not {len(value)}"
        wrongs = [wrong for item in value if (wrong := self._wrong_text(item))]
        if not wrongs and self.unique and len(set(value)) < len(value):
            return "names one thing twice"
        return wrongs[0] if wrongs else None

    def _wrong_text(self, value: object) -> str | None:
        if not isinstance(value, str):
            return f"must be a text, not {show(value)}"
        if self.known:
            return None if value in self.known else f"{show(value)} is not known{hint(value, self.known)}"
        return None if re.fullmatch(self.pattern, value) else f"must be {self.looks}, not {show(value)}"


Shape = Mapping[str, Key]


def take(document: Document, way: Way, table: object, shape: Shape) -> dict[str, object]:
    """What ``table`` says, key by key: every key of ``shape``, its default where the file has none or a wrong one."""
    if not isinstance(table, dict):
        document.refuse(KEYS, way, f"{spell(way)} must be a table, not {show(table)}")
        table = {}
    for key in table:
        if key not in shape:
            document.refuse(KEYS, (*way, key), f"{show(key)} is not a key of {spell(way)}{hint(key, tuple(shape))}")
    taken: dict[str, object] = {}
    for name, key in shape.items():
        taken[name] = [] if key.kind == TEXTS and key.default is None else {} if key.kind == TABLE else key.default
        if name not in table:
            if key.required:
                document.refuse(KEYS, way, f"{spell((*way, name))} is missing; it must be {key.kind}")
        elif wrong := key.wrong(table[name]):
            document.refuse(KEYS, (*way, name), f"{spell((*way, name))} {wrong}")
        else:
            taken[name] = table[name]
    return taken


def spell(way: Iterable[str | int]) -> str:
    """The way to a key as its writer would say it: ``settings.keymgr.peers[2].endpoint``."""
    text = ""
    for part in way:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if re.fullmatch(r"[\w-]{1,64}", part) else ".(…)"
    return text.removeprefix(".") or "the file"
