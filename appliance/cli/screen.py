"""How `septum` speaks: tables and colour on a terminal, JSON for machines, one clear line for what went wrong; and for
those who asked for JSON, an object of that too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
SLOW = 2.0  # seconds after which one wants to know how far it is

_asked = {"json": False}

COLOURS = {"RED": "red", "BLACK": "bright_black", "KEY": "yellow", "CONTROL": "cyan", "PUBLIC": "green"}


def set_json(value: bool) -> bool:
    """Machines read what is said, or people do; returns ``value``."""
    _asked["json"] = value
    return value


def is_json() -> bool:
    return _asked["json"]


def as_json(value: object) -> None:
    """Prints ``value`` for machines."""
    json.dump(value, sys.stdout, indent=2, sort_keys=True, default=str)
    sys.stdout.write("\n")


def fail(why: str, then: str = "", code: int = 1, findings: Iterable[tuple[str, str]] = ()) -> NoReturn:
    """Ends the command: what is wrong, and what to do next. ``findings`` are all the reasons, one by one: a line each,
    and the excerpt of the file that it is about, or nothing.
    """
    if is_json():
        told: dict[str, object] = {"error": why, "code": code} | ({"then": then} if then else {})
        told |= {"findings": listed} if (listed := [line for line, _ in findings]) else {}
        print(json.dumps(told), file=sys.stderr)
        raise SystemExit(code)
    for line, excerpt in findings:
        err.print(line, soft_wrap=True, markup=False)
        if excerpt:
            err.print(excerpt, soft_wrap=True, markup=False, style="dim")
    err.print(Text.assemble(("septum: ", "bold red"), why), soft_wrap=True)
    if then:
        err.print(Text.assemble(("  try: ", "bold"), then), soft_wrap=True)
    raise SystemExit(code)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table; a column whose cells are all numbers is set flush right."""
    body = [[cell if isinstance(cell, Text) else str(cell) for cell in row] for row in rows]
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for i, column in enumerate(columns):
        cells = [str(row[i]).rstrip("%") for row in body]
        numeric = bool(cells) and all(cell.replace(".", "", 1).replace(",", "").isdigit() for cell in cells)
        shown.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        shown.add_row(*row)
    out.print(fitted(shown, columns, body))


def fitted(shown: Table, columns: Sequence[str], body: Sequence[Sequence[str | Text]]) -> RenderableType:
    """``shown``, which has ``columns`` and ``body``; where not even its longest words stand side by side, its rows one
    below the other, a line a cell.
    """
    for i, column in enumerate(shown.columns):
        column.no_wrap = all(len(str(row[i]).split()) < 2 for row in body)  # the room is made by those with many words
    if shown.__rich_measure__(out, out.options).minimum <= out.width:
        return shown
    width = max(map(len, columns))
    lines = [Text(shown.title, "bold")] if isinstance(shown.title, str) else []
    for first, *others in body:
        lines.append(Text.assemble(first, style="bold"))
        named = zip(columns[1:], others, strict=True)
        lines += [Text.assemble((f"  {name:{width}}  ", "dim"), cell) for name, cell in named if str(cell)]
    return Group(*lines)


@contextmanager
def progress(what: str) -> Iterator[Callable[[float], None]]:
    """How far it is, on a terminal, of what takes longer than two seconds."""
    if not err.is_terminal:
        yield lambda done: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    begin = time.monotonic()
    bar = Progress(
        TextColumn(what, markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )
    task = bar.add_task("", total=1.0)

    def tell(done: float) -> None:
        if time.monotonic() - begin >= SLOW and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done)

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()


def good(flag: bool, text: str) -> Text:
    return Text(text, style="green" if flag else "bold red")


def amount(count: float) -> str:
    """Bytes with a binary unit, as ``wg show`` prints them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
