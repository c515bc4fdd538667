"""How the demo speaks: one line a step, a spinner while it lasts, a mark for how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

WIDEST = 100


class Failed(Exception):
    """A step did not do what it promises; the text says what was seen instead."""


@dataclass
class Line:
    """One step's line; `says` may be changed until it ends."""

    title: str
    says: str = ""


@dataclass
class Stage:
    console: Console = field(default_factory=lambda: Console(highlight=False))
    failures: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.console.width = min(self.console.width, WIDEST)

    def head(self, title: str) -> None:
        self.console.print()
        self.console.rule(f"[bold]{title}", align="left", style="dim")

    @contextmanager
    def step(self, title: str) -> Iterator[Line]:
        """Runs a step. What it raises ends the demo, after its line has been marked."""
        line = Line(title)
        try:
            with self.console.status(title):
                yield line
        except Exception:
            self.failures.append(title)
            self._mark("✗", "bold red", line)
            raise
        self._mark("✓", "green", line)

    def _mark(self, mark: str, style: str, line: Line) -> None:
        self.console.print(Text.assemble((f" {mark} ", style), line.title, ("  " + line.says, "bold")))

    def note(self, text: str) -> None:
        self.console.print(f"   [dim]{text}[/]")

    def table(self, *columns: str, right: tuple[str, ...] = ()) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
        return table

    def bar(self) -> Progress:
        """A bar that is drawn only when told to: no thread of its own, beside which no process may be cloned."""
        return Progress(
            TextColumn("   {task.description:44}"), BarColumn(28), TextColumn("{task.fields[says]}"),
            console=self.console, transient=True, auto_refresh=False,
        )  # fmt: skip
