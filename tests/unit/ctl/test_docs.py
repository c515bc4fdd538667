"""docs/septumctl.md names commands, options and exit codes that there are, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

from appliance.ctl.main import app
from appliance.ctl.trouble import Exit

TEXT = (Path(__file__).parents[3] / "docs" / "septumctl.md").read_text()
ROOT = typer.main.get_command(app)


def spoken() -> list[str]:
    """What stands behind `septumctl` in examples and between backticks."""
    found = re.findall(r"^septumctl ([^#\n]+)", TEXT, re.MULTILINE) + re.findall(r"`septumctl ([^`]+)`", TEXT)
    return [one.strip() for one in found]


def command_of(words: list[str]) -> tuple[object, list[str]]:
    """The command that is named, and what is behind it."""
    here: object = ROOT
    while isinstance(here, TyperGroup) and words and words[0] in here.commands:
        here = here.commands[words.pop(0)]
    return here, words


@pytest.mark.parametrize("line", spoken())
def test_commands_are_there(line: str) -> None:
    words = line.split()
    if words[0].startswith("-"):
        assert any(words[0] in parameter.opts for parameter in ROOT.params)
        return
    found, rest = command_of(words)
    assert found is not ROOT, line
    known = {option for parameter in found.params for option in parameter.opts}  # type: ignore[attr-defined]
    assert {word for word in rest if word.startswith("-")} <= known
    assert isinstance(found, TyperCommand | TyperGroup)


def test_it_speaks_of_something() -> None:
    assert len(spoken()) > 12


@pytest.mark.parametrize("group", ["config", "peers", "rules", "admins", "contexts", "keys", "domains"])
def test_no_command_is_left_out(group: str) -> None:
    assert isinstance(ROOT, TyperGroup)
    commands = ROOT.commands[group]
    assert isinstance(commands, TyperGroup)
    missing = [
        name for name in commands.commands if not re.search(rf"\b{group}\b[^|]*\b{name}\b|`{group} {name}", TEXT)
    ]
    assert set(missing) <= {"list", "show", "remove", "address", "edit"}


def test_exit_codes() -> None:
    said = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    assert said == {int(code) for code in Exit}
