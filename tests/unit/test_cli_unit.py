"""`septum unit`: the unit file starts the program that printed it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli.systemd import TEMPLATE, unit

ARGUMENTS = " up --foreground --name %i /etc/wireguard/%i.conf"


def commands(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line.startswith("Exec"))


def program(path: Path) -> str:
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("folder", "written"),
    [
        ("opt/septum-1.0/.venv/bin", "{}"),
        ("with space", '"{}"'),
        ("100%", "{}"),
        ('a"b\\c', '"{}"'),
    ],
)
def test_the_unit_starts_this_very_program(tmp_path: Path, folder: str, written: str) -> None:
    path = program(tmp_path / folder / "septum")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    text = unit(path)
    assert commands(text) == {
        "ExecStart": written.format(escaped) + ARGUMENTS,
        "ExecStopPost": "-" + written.format(escaped) + " down %i",
    }
    rest = [line for line in text.splitlines() if not line.startswith("Exec")]
    assert rest == [line for line in TEMPLATE.read_text().splitlines() if not line.startswith("Exec")]


def test_a_relative_name_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "bin" / "septum")
    monkeypatch.chdir(tmp_path)
    assert commands(unit("bin/septum"))["ExecStart"] == path + ARGUMENTS


def test_a_program_that_is_not_there_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        unit(str(tmp_path / "septum"))


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "appliance.cli.septum", "unit"]
    said = subprocess.run(command, cwd=TEMPLATE.parents[1], check=True, capture_output=True, text=True).stdout
    assert commands(said)["ExecStart"] == str(Path(sys.executable).with_name("septum")) + ARGUMENTS
