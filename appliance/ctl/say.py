"""How `septumctl` speaks: `septum`'s tables, and what it waits for; with --json, also of what went wrong."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.table import Table
from rich.text import Text

from appliance.cli.screen import amount, as_json, err, fitted, good, is_json, out, progress, set_json
from appliance.ctl.trouble import Exit, Place, Trouble

PATIENCE: Final = 1.0  # seconds after which one wants to know what is being waited for


def _either(value: bool) -> bool:
    """It may stand before the command or behind it."""
    return set_json(is_json() or value)


Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, also of errors.", callback=_either)]


def bare(app: typer.Typer, usual: Callable[[], None]) -> None:
    """``app`` without the name of a command does what is usual."""

    @app.callback(invoke_without_command=True)
    def or_usual(context: typer.Context, json_: Json = False) -> None:
        if context.invoked_subcommand is None:
            usual()


def forget() -> None:
    """A new command line is read."""
    set_json(False)


def fail(trouble: Trouble) -> NoReturn:
    """Ends the command: what is wrong, where, and what to do next."""
    if is_json():
        told: dict[str, Any] = {"error": str(trouble), "reason": trouble.reason, "code": int(trouble.code)}
        told |= {"then": trouble.then} if trouble.then else {}
        told |= {"violations": [one._asdict() for one in trouble.places]} if trouble.places else {}
        print(json.dumps(told), file=sys.stderr)
        raise SystemExit(int(trouble.code))
    for place in trouble.places:
        err.print(
            Text.assemble(("  ", ""), (place.path, "bold"), ": " if place.path else "", place.why), soft_wrap=True
        )
    err.print(Text.assemble(("septumctl: ", "bold red"), str(trouble)), soft_wrap=True)
    if trouble.then:
        err.print(Text.assemble(("  try: ", "bold"), trouble.then), soft_wrap=True)
    raise SystemExit(int(trouble.code))


def show_place(place: Place) -> None:
    """Something that is wrong, and where."""
    err.print(Text.assemble("  ", (place.path, "bold"), ": " if place.path else "", place.why), soft_wrap=True)


def warn(why: str) -> None:
    """Something to know, on standard error."""
    err.print(Text.assemble(("septumctl: ", "bold yellow"), (why, "yellow")), soft_wrap=True)


_NUMBER: Final = re.compile(r"[\d.,]+( [KMGT]?i?B| s| min| h| d|%)?|-|")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table; a column whose cells are all numbers, or amounts, is set flush right."""
    body = [[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows]
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for i, column in enumerate(columns):
        is_number = bool(body) and all(_NUMBER.fullmatch(row[i].plain) for row in body)
        shown.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in body:
        shown.add_row(*row)
    out.print(Text(title, style="bold"), soft_wrap=True)
    if body:
        out.print(fitted(shown, columns, body))


def plural(count: int, what: str) -> str:
    """``1 peer``, ``2 peers``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def note(what: str) -> None:
    """What was done, for people."""
    if not is_json():
        out.print(Text(what), soft_wrap=True)


def hint(what: str) -> None:
    """What one may want next, for people."""
    if not is_json():
        out.print(Text(what, style="dim"), soft_wrap=True)


def done(what: str, **told: Any) -> None:
    """The end of a command that changed something: a line for people, ``told`` for machines."""
    if is_json():
        as_json(told)
    else:
        out.print(Text(what, style="green"), soft_wrap=True)


def json_line(value: object) -> None:
    """One of many values, each on a line of its own."""
    print(json.dumps(value, sort_keys=True, default=str), flush=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says on a terminal what is being waited for, if that takes long. It is asked again and again: ``tick``."""
    _waits.append(_Wait(what))
    try:
        yield
    finally:
        _waits.pop().stop()


class _Wait:
    def __init__(self, what: str) -> None:
        self._what = what
        self._begin = time.monotonic()
        self._status: Any = None

    def tick(self, more: str = "") -> None:
        passed = time.monotonic() - self._begin
        if not err.is_terminal or is_json() or passed < PATIENCE:
            return
        said = Text(f"{self._what}{f', {more}' if more else ''} ({passed:.0f} s)", style="dim")
        if self._status is None:
            self._status = err.status(said, spinner="dots")
            self._status.start()
        else:
            self._status.update(said)

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


_waits: list[_Wait] = []


def tick(more: str = "") -> None:
    """The innermost wait still lasts."""
    if _waits:
        _waits[-1].tick(more)


def confirmed(question: str, is_given: bool) -> None:
    """Goes on if the answer is yes, or ``--yes`` was ``is_given``. Who cannot be asked must have said so before."""
    if is_given:
        return
    if is_json() or not sys.stdin.isatty():
        raise Trouble(Exit.USAGE, f"{question} Nobody is there to answer", "the same with --yes")
    if not typer.confirm(question, err=True):
        raise Trouble(Exit.REFUSED, "nothing was done")


def span(seconds: float) -> str:
    """A length of time, in the largest unit that makes two or more of it."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(milliseconds: int, now: float | None = None) -> str:
    """How long ago that was, from milliseconds since 1970; 0 is never."""
    if not milliseconds:
        return "never"
    seconds = (time.time() if now is None else now) - milliseconds / 1000
    return f"{span(seconds)} ago" if seconds >= 1 else "now" if seconds > -2 else f"in {span(-seconds)}"


def when(milliseconds: int) -> str:
    """Local time, to the second."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"  # the box's own word


def stamp(milliseconds: int) -> str | None:
    """For machines: RFC 3339, in UTC; None for never."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat() if milliseconds else None
    except (ValueError, OverflowError, OSError):
        return None


def clean(text: str) -> str:
    """``text`` of a box, with nothing in it that a terminal would obey."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def clean_lines(text: str) -> list[str]:
    """The lines of a text of somebody's, each as ``clean`` has it; tabs stay."""
    return ["\t".join(map(clean, line.split("\t"))) for line in text.split("\n")]


__all__ = ["Json", "Text", "amount", "as_json", "err", "good", "is_json", "out", "progress"]
