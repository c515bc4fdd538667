"""A file of rules, read: the rule set that it means, or every reason why it is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from appliance.rules.compile import Compiler
from appliance.rules.parse import parse
from appliance.rules.problems import Place, Problem, RulesError
from components.filter.model import RuleSet

MAX_BYTES: Final = 1 << 22
"""Of a file: some forty thousand lines."""

_EVERY: Final = 256  # statements between two reports of how far it is

Peers = Mapping[str, Sequence[int]]
"""What a peer may be called (a name, a public key), and the numbers of those called so; more than one is ambiguous."""


class Loaded(NamedTuple):
    """A file that was accepted. ``peers`` are those that its rules name, ``lines`` its text, for what shows a line."""

    ruleset: RuleSet
    warnings: tuple[Problem, ...]
    peers: Mapping[str, int]
    lines: tuple[str, ...]


def from_text(
    text: str,
    file: str,
    peers: Peers | None = None,
    progress: Callable[[float], None] | None = None,
    numbered: dict[str, int] | None = None,
) -> Loaded:
    """The rule set that ``text`` means; ``file`` is what to call it. Without ``peers``, any name of one is taken, and
    numbered as it comes, after those that are ``numbered`` already. ``progress`` is told how much is done, from 0 to 1.

    Errors: RulesError with every problem.
    """
    problems: list[Problem] = []
    compiler = Compiler(file, problems, peers, numbered)
    lines = text.split("\n")
    for count, (statement, node) in enumerate(parse(text, file, problems)):
        compiler.take(statement, node)
        if progress is not None and count % _EVERY == 0:
            progress(statement.line / len(lines))
    ruleset = compiler.done()
    if progress is not None:
        progress(1.0)
    if any(not problem.is_warning for problem in problems):
        raise RulesError(problem for problem in problems if not problem.is_warning)
    return Loaded(ruleset, tuple(problems), compiler.peers, tuple(lines))


def from_file(
    path: Path,
    peers: Peers | None = None,
    progress: Callable[[float], None] | None = None,
    numbered: dict[str, int] | None = None,
) -> Loaded:
    """The rule set that the file at ``path`` means. Errors: RulesError, also for a file that cannot be read."""

    def refuse(why: str, line: int = 0) -> RulesError:
        return RulesError([Problem(str(path), Place(line), "", why)])

    try:
        with path.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise refuse(f"has more than {MAX_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise refuse("is not UTF-8", raw.count(b"\n", 0, error.start) + 1) from None
    return from_text(text, str(path), peers, progress, numbered)
