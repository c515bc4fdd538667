"""The filter's rules: the assembly names a file of them, the domain is given what it means.

The file is read and compiled by a child, which hands back plain data and ends: the process that loads an assembly
becomes the monitor, and would otherwise hold the parser for as long as the box is up. Who knows early that there will
be rules to read calls ``begin``: the child then imports the parser while its parent does other things.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from appliance.assembly.document import Document
from appliance.assembly.findings import Finding, show
from appliance.assembly.lines import Path as Way
from appliance.assembly.model import Role
from components.filter.model import Side

if TYPE_CHECKING:
    from appliance.rules.problems import Problem
    from appliance.rules.read import Loaded

RULES: Final = (
    "rules",
    "The filter's rules are a file in the language of rules, named relative to the assembly (`rules = …`), in which "
    "nothing is misspelt, unknown or contradictory.",
)

# A filter's ports, and the side that packets come from there
_SIDES: Final = {"red_in": Side.RED, "tunnel_in": Side.TUNNEL, "black_in": Side.BLACK}
_FRAMES: Final = "frames"
_SLOW: Final = 2.0  # seconds after which one wants to know how far it is


def load(
    document: Document,
    way: Way,
    table: dict[str, object],
    role: Role,
    peers: Sequence[Mapping[str, object]] | None,
    warnings: list[str],
    override: Path | None = None,
    is_said: bool = True,
) -> dict[str, object]:
    """``table``, the settings of a filter at ``way``, with the ``ruleset`` in place of ``rules``, the name of a file.

    ``role`` is that of the filter; ``is_said``: rules must be named. ``override`` is a file to read in place of that
    one; ``peers`` are keymgr's, in their order, or None where they are not known yet: then any name is one.
    """
    loaded = dict(table)
    named = loaded.pop("rules", None)
    if "ruleset" in loaded:
        document.refuse(
            RULES, (*way, "ruleset"), "a compiled rule set is not written; rules = … names the file of rules"
        )
        return loaded
    if override is not None:
        file = override
    elif isinstance(named, str) and named and "\0" not in named:
        file = document.file.parent / named
    elif named is None and not is_said:
        return loaded  # a plan, which says nothing yet
    elif named is None:
        document.refuse(RULES, way, 'names no rules, and nothing would pass; write rules = "vpn.rules"')
        return loaded
    else:
        document.refuse(RULES, (*way, "rules"), f"rules must be the name of a file, not {show(named)}")
        return loaded
    found = _ask(str(file), names(peers) if peers is not None else None, *_has(role))
    warnings += found["warnings"]
    if "ruleset" in found:
        return loaded | {"ruleset": found["ruleset"]}
    document.findings += [
        Finding(file, line, *RULES, detail, column, excerpt) for line, column, detail, excerpt in found["problems"]
    ]
    return loaded


def names(peers: Sequence[Mapping[str, object]]) -> dict[str, list[int]]:
    """What peers may be called in a rule, their names and public keys, and the numbers (from 1) of those called so."""
    found: dict[str, list[int]] = {}
    for number, peer in enumerate(peers, 1):
        for called in {peer.get("name"), peer.get("public_key")}:
            if isinstance(called, str):
                found.setdefault(called, []).append(number)
    return found


def unfit(read: Loaded, role: Role) -> list[Problem]:
    """What of well written rules a filter of that role cannot do, and (warnings) what can never match there."""
    from appliance.rules import fitting

    return fitting.unfit(read.ruleset, *_has(role), read.lines)


def _has(role: Role) -> tuple[int, bool]:
    """Bits of the sides that a filter's packets come from, and whether they come in frames."""
    sides = sum(side for port, side in _SIDES.items() if port in role.ports)
    return sides, any(port.schema == _FRAMES for port in role.ports.values())


def _compile(name: str, peers: Mapping[str, Sequence[int]] | None, sides: int, has_frames: bool) -> dict[str, Any]:
    from appliance.rules.fitting import unfit
    from appliance.rules.problems import RulesError
    from appliance.rules.read import from_file
    from components.filter.ruleset import encode

    file = Path(name)
    try:
        read = from_file(file, peers, _telling(file))
        said = [*read.warnings, *unfit(read.ruleset, sides, has_frames, read.lines)]
        if wrong := [one for one in said if not one.is_warning]:
            raise RulesError(wrong)
    except RulesError as refused:
        problems = [(one.place.line, one.place.column, one.said(), one.excerpt()) for one in refused.problems]
        return {"warnings": [], "problems": problems}
    return {"warnings": [f"Warning: {one.headline()}" for one in said], "ruleset": encode(read.ruleset)}


def _telling(file: Path) -> Callable[[float], None] | None:
    """Says on a terminal how far the reading is, of what takes long."""
    if not sys.stderr.isatty():
        return None
    begin = time.monotonic()

    def tell(done: float) -> None:
        if time.monotonic() - begin > _SLOW:
            text = f"\rseptum: reading {file}: {done:.0%}" if done < 1 else "\r"
            print(f"{text}\x1b[K", end="", file=sys.stderr, flush=True)

    return tell


# the child -----------------------------------------------------------------------------------------------------------

_child: tuple[int, int, int] | None = None  # pid, where it is asked, where it answers; asked once


def begin() -> None:
    """Lets the child begin, if it has not; ``end`` is due after the reading. Errors: OSError."""
    global _child
    if _child is not None:
        return
    asked, asking = os.pipe()
    telling, told = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(asking)
        os.close(telling)
        _answer(asked, told)
    os.close(asked)
    os.close(told)
    _child = pid, asking, telling


def end() -> None:
    """No question is to come any more."""
    global _child
    if _child is not None:
        (pid, asking, telling), _child = _child, None
        os.close(asking)
        os.close(telling)
        os.waitpid(pid, 0)


def _answer(asked: int, told: int) -> NoReturn:
    """The child: one question, one answer; or none, and none."""
    status = 1
    try:
        from appliance.rules import parse

        parse.make_tables()
        with open(asked, "rb") as pipe:
            question = pipe.read()
        if question:
            with open(told, "wb") as pipe:
                pipe.write(json.dumps(_compile(*json.loads(question))).encode())
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _ask(*question: object) -> dict[str, Any]:
    """What ``_compile`` finds. Errors: ChildProcessError if it fails, its reason on standard error; OSError."""
    global _child
    begin()
    assert _child is not None
    (pid, asking, telling), _child = _child, None
    with suppress(BrokenPipeError), open(asking, "wb") as pipe:
        pipe.write(json.dumps(question).encode())
    with open(telling, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise ChildProcessError(f"reading the rules failed with status {os.waitstatus_to_exitcode(status)}")
    found: dict[str, Any] = json.loads(told)
    return found
