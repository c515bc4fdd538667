"""What is wrong with a file: one line each, all of them at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One reason to refuse a file. ``line`` and ``column`` count from 1; 0 is the file, or the line, as a whole.

    ``validator`` is the name of the rule, ``sentence`` the rule itself, ``detail`` how this file breaks it, ``excerpt``
    the line with a mark under what is meant, where that may be shown.
    """

    file: Path
    line: int
    validator: str
    sentence: str
    detail: str
    column: int = 0
    excerpt: str = ""

    def __str__(self) -> str:
        place = ":".join(map(str, (self.file, *filter(None, (self.line, self.line and self.column)))))
        return f"{place}: {self.detail} [{self.validator}]"


class AssemblyError(Exception):
    """The file is refused, whole. ``findings`` has every reason, in the order of the lines."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = sorted(set(findings), key=lambda f: (str(f.file), f.line, f.column, f.validator, f.detail))
        super().__init__("\n".join(map(str, self.findings)))


# A WireGuard key in base64 is 43 characters and a '='. Half of one, if it is mixed as only random letters are, is
# already more than anybody should read in a log; paths and host names of that length are not mixed so.
_RUN = re.compile(r"[A-Za-z0-9+/]{22,}")
_WHOLE = 40
_LONGEST = 64


def _is_key(run: str) -> bool:
    return len(run) >= _WHOLE or (sum(map(str.isupper, run)) > 2 and sum(map(str.islower, run)) > 2)


def scrub(text: str) -> str:
    """``text`` without what could be a key: for sentences that quote a value somebody else chose."""
    return _RUN.sub(lambda run: "(not shown)" if _is_key(run.group()) else run.group(), text)


def show(value: object) -> str:
    """``value`` as it may be printed: quoted, short, and never what could be a key pasted into the wrong place."""
    if isinstance(value, str):
        if scrub(value) != value:
            return "(not shown: it looks like a key)"
        return ascii(value) if len(value) <= _LONGEST else f"(a text of {len(value)} characters)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        text = repr(value) if not isinstance(value, int) or abs(value) < 2**64 else "(a huge number)"
        return text
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a date or time"


def hint(word: str, known: Sequence[str]) -> str:
    """The end of a sentence that names the known word nearest to ``word``, or all of them if they are few."""
    near = difflib.get_close_matches(word, known, 1) or difflib.get_close_matches(word.lower(), known, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if 0 < len(known) <= 12 else ""
