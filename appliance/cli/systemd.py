"""The unit file for systemd. The service manager does not look where `make` or pip has put `septum`: it is told."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

TEMPLATE: Final = Path(__file__).resolve().parents[2] / "packaging" / "septum@.service"


def unit(started_as: str) -> str:
    """The text of ``septum@.service`` with the path of the program that was ``started_as`` (argv[0]).

    Errors: FileNotFoundError if there is no such program.
    """
    program = Path(started_as).absolute()
    if program.suffix == ".py":  # python -m appliance.cli.septum
        program = Path(sys.executable).with_name("septum")
    if not os.access(program, os.X_OK):
        raise FileNotFoundError(f"{program} is not there: install Septum, and have it print its unit by that path")
    return re.sub(r"(?m)^(Exec\w+=-?)septum ", lambda line: f"{line[1]}{_word(program)} ", TEMPLATE.read_text())


def _word(program: Path) -> str:
    """One word of a command line (systemd.service(5)), in which a per cent sign begins a specifier."""
    escaped = str(program).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if re.fullmatch(r"[\w/.+=@%-]+", escaped) else f'"{escaped}"'
