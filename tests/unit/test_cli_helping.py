"""Help is broken into lines by the terminal, not by the source; it names what a command takes, nothing for switches."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from appliance.cli.commands import app as septum
from appliance.cli.helping import flowing
from appliance.ctl.main import app as septumctl


def test_paragraphs_flow_and_what_is_indented_stays() -> None:
    text = """First
    line.

    One
    paragraph:

      'a'
      'b'
    """
    assert flowing(text) == "First line.\n\nOne paragraph:\n\n  'a'\n  'b'"


@pytest.mark.parametrize(
    ("app", "words", "usage"),
    [
        (septum, "up", "septum up [OPTIONS] {FILE}"),
        (septum, "ps", "septum ps [OPTIONS] [BOX]"),
        (septum, "filter explain", "septum filter explain [OPTIONS] [PACKETS]..."),
        (septumctl, "peers show", "septumctl peers show [OPTIONS] {NAME}"),
        (septumctl, "", "septumctl [OPTIONS] COMMAND [ARGS]..."),
    ],
)
def test_what_a_command_takes(app: object, words: str, usage: str) -> None:
    name = "septum" if app is septum else "septumctl"
    helped = CliRunner().invoke(app, [*words.split(), "--help"], prog_name=name, env={"COLUMNS": "100"})  # type: ignore[arg-type]
    assert helped.exit_code == 0
    assert f"Usage: {usage}" in helped.stdout and "<bool>" not in helped.stdout


def test_a_docstring_is_wrapped_once() -> None:
    helped = CliRunner().invoke(septum, ["up", "--help"], env={"COLUMNS": "200"})
    assert any(
        "both interfaces leave the host" in line and "Without them" in line for line in helped.stdout.splitlines()
    )
