"""From a file to a running box: what `septum up` does, and the reading of it for `check` and `graph`.

The process that does this becomes the monitor. So nothing here imports what it would then hold for as long as the box
is up: what speaks to people (screen.py) is imported only to say that it failed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from appliance.assembly.load import AssemblyError
from appliance.assembly.load import load as from_assembly
from appliance.assembly.model import ValidatedAssembly
from appliance.assembly.wgquick import from_wgquick


def _fail(why: str, then: str = "") -> NoReturn:
    from appliance.cli import screen

    screen.fail(why, then)


def load(file: Path, lan: str | None = None, wan: str | None = None) -> ValidatedAssembly:
    """The validated assembly of ``file``, or the end of the command with every finding on a line of its own."""
    if not file.is_file():
        # As wg-quick has it: a bare name means the file of that name in the usual folder
        usual = Path("/etc/wireguard") / f"{file.stem}.conf"
        if file.suffix or not usual.is_file():
            _fail(f"{file}: there is no such file", f"septum up /path/to/wg0.conf, or put it at {usual}")
        file = usual
    try:
        read = from_assembly if file.suffix == ".toml" else from_wgquick
        assembly = read(file, lan=lan, wan=wan)
    except AssemblyError as refused:
        _refuse(file, refused)
    except OSError as error:
        _fail(f"{file}: {error.strerror}")
    for warning in assembly.warnings:
        print(_coloured(f"septum: {warning}", "33", sys.stderr), file=sys.stderr)
    return assembly


def _refuse(file: Path, refused: AssemblyError) -> NoReturn:
    from appliance.cli import screen

    for finding in refused.findings:
        screen.err.print(str(finding), soft_wrap=True, markup=False)
    count = len(refused.findings)
    screen.fail(f"{file}: refused, {count} finding{'s' if count != 1 else ''}; nothing was changed")


def _coloured(text: str, colour: str, stream: Any) -> str:
    """``text`` in an ANSI ``colour`` if ``stream`` is a terminal whose user wants any (no-color.org)."""
    return f"\x1b[{colour}m{text}\x1b[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else text


def up(
    file: Path, lan: str | None = None, wan: str | None = None, name: str | None = None, foreground: bool = False
) -> int:
    """Builds the box and starts it; the exit code. In the foreground it returns once the box is down."""
    from appliance.assembly.resolve import ResolveError, resolve
    from appliance.monitor.main import BuildError, run, start_background

    assembly = load(file, lan, wan)
    box = name or file.stem
    try:
        assembly = resolve(assembly)
        if foreground:
            return run(assembly, name=box)
        start_background(assembly, name=box)
    except (BuildError, ResolveError) as error:
        _fail(str(error), "as root: building namespaces and interfaces needs it" if os.geteuid() else "")
    print(_coloured(f"{box} is up: {len(assembly.domains)} sealed domains", "32", sys.stdout))
    return 0
