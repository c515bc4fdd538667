"""On which line each key of a TOML file stands. ``tomllib`` does not say, and an error without a line helps nobody.

``lines(text)`` walks a text that ``tomllib`` has already accepted, so it need not check anything: it only follows
tables, keys, strings and brackets (TOML 1.0.0), and skips every other value.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]
"""The way to a value: keys of tables, indices of arrays."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_STRING: Final = re.compile(
    r'''"""(?:\\.|[^\\])*?"""(?!")|\'\'\'.*?\'\'\'(?!')|"(?:\\.|[^"\\\n])*"|'[^'\n]*\'''',
    re.DOTALL,
)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_OTHER: Final = re.compile(r"[^,\]}#\n]*")


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        # How many elements each array of tables has so far: [[a]] begins a new one, [a.b] goes into the last
        self.elements: dict[Path, int] = {}

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"not TOML at character {self.at}")
        self.at = match.end()
        return match.group()

    def peek(self, token: str) -> bool:
        return self.text.startswith(token, self.at)

    def take(self, token: str) -> bool:
        if not self.peek(token):
            return False
        self.at += len(token)
        return True

    def mark(self, path: Path, at: int) -> None:
        self.found.setdefault(path, self.text.count("\n", 0, at) + 1)

    def key(self) -> list[str]:
        """A dotted key, with the blanks around it."""
        parts = []
        while True:
            self.skip(_SPACE)
            quoted = self.peek('"') or self.peek("'")
            part = self.skip(_STRING if quoted else _BARE)
            parts.append(tomllib.loads(f"k = {part}")["k"] if quoted else part)
            self.skip(_SPACE)
            if not self.take("."):
                return parts

    def value(self, path: Path) -> None:
        if self.peek('"') or self.peek("'"):
            self.skip(_STRING)
        elif self.take("["):
            self.array(path)
        elif self.take("{"):
            self.inline_table(path)
        else:
            self.skip(_OTHER)

    def array(self, path: Path) -> None:
        index = 0
        self.skip(_BLANK)
        while not self.take("]"):
            self.mark((*path, index), self.at)
            self.value((*path, index))
            self.skip(_BLANK)
            self.take(",")
            self.skip(_BLANK)
            index += 1

    def inline_table(self, path: Path) -> None:
        self.skip(_BLANK)
        while not self.take("}"):
            self.pair(path)
            self.skip(_BLANK)
            self.take(",")
            self.skip(_BLANK)

    def pair(self, path: Path) -> None:
        at = self.at
        for part in self.key():
            path = (*path, part)
            self.mark(path, at)
        self.take("=")
        self.skip(_SPACE)
        self.value(path)

    def header(self) -> Path:
        at = self.at
        array = self.take("[[") or not self.take("[")
        *outer, last = self.key()
        path: Path = ()
        for part in outer:
            path = (*path, part)
            self.mark(path, at)
            if path in self.elements:
                path = (*path, self.elements[path] - 1)
        path = (*path, last)
        self.mark(path, at)
        if array:
            index = self.elements.get(path, 0)
            self.elements[path] = index + 1
            path = (*path, index)
            self.mark(path, at)
        self.take("]]" if array else "]")
        return path

    def document(self) -> None:
        table: Path = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            if self.peek("["):
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK)


def lines(text: str) -> dict[Path, int]:
    """The line, from 1, of every key, table and array element of ``text``, which ``tomllib`` must have accepted."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.found
