"""A file as its statements: one a line, unless the line ends in a backslash or within braces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_NO_CODE: Final = re.compile(r'"[^"\n]*"|#.*')
# A brace that nobody closed should cost one statement, not the rest of the file
_BEGINS: Final = re.compile(r"\s*(allow|drop|reject|set|ports|lan|nat|forward)(?![\w.:-])")


class Statement(NamedTuple):
    """One statement: the line it begins on, and its text, line breaks and comments and all."""

    line: int
    text: str


def statements(text: str) -> Iterator[Statement]:
    """Every statement of ``text``. What is blank or comment only is none."""
    parts: list[str] = []
    first = depth = 0
    continued = False
    for number, line in enumerate(text.split("\n"), 1):
        if parts and depth and not continued and _BEGINS.match(line):
            yield Statement(first, "\n".join(parts))
            parts, depth = [], 0
        bare = _NO_CODE.sub("", line).rstrip()
        if not parts and not bare:
            continue
        first = first if parts else number
        depth = max(0, depth + bare.count("{") - bare.count("}"))
        continued = bare.endswith("\\") and line.rstrip().endswith("\\")
        # A blank in its place keeps every column where it was
        parts.append(line[: line.rindex("\\")] + " " if continued else line)
        if not continued and not depth:
            yield Statement(first, "\n".join(parts))
            parts = []
    if parts:
        yield Statement(first, "\n".join(parts))
