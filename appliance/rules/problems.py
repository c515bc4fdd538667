"""What is wrong in a file of rules: where, why, and what may have been meant; all of it at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Place(NamedTuple):
    """Part of a line: ``line`` and ``column`` count from 1; ``width`` characters. Line 0 is the file as a whole."""

    line: int
    column: int = 1
    width: int = 1


class Problem(NamedTuple):
    """One reason to refuse a file, or (``is_warning``) to look at it once more. ``text`` is the line it is on."""

    file: str
    place: Place
    text: str
    why: str
    hint: str = ""
    is_warning: bool = False

    def headline(self) -> str:
        """All that fits on one line."""
        where = f":{self.place.line}:{self.place.column}" if self.place.line else ""
        return f"{self.file}{where}: {self.said()}"

    def said(self) -> str:
        return f"{self.why}; {self.hint}" if self.hint else self.why

    def show(self) -> str:
        """The line it is on too, with a mark under what is meant."""
        return f"{self.headline()}\n{self.excerpt()}" if self.text else self.headline()

    def excerpt(self) -> str:
        """The line, and the mark."""
        line, column, width = self.place
        margin = f"{line:5} | "
        blank = "".join("\t" if character == "\t" else " " for character in self.text[: column - 1])
        mark = "^" * max(1, min(width, len(self.text) - column + 1))
        return f"{margin}{self.text}\n{' ' * (len(margin) - 2)}| {blank}{mark}" if self.text else ""


class RulesError(ValueError):
    """The file is refused, whole. ``problems`` has every reason, in the order of the lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems), key=lambda problem: (problem.file, problem.place, problem.why))
        super().__init__("\n".join(problem.headline() for problem in self.problems))
