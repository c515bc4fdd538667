"""From a file to a running box: what `septum up` does, and the reading of it for `check` and `graph`.

The process that does this becomes the monitor. So nothing here imports what it would then hold for as long as the box
is up: what speaks to people (screen.py) is imported only to say that it failed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from appliance.assembly import rulesfile
from appliance.assembly.load import ASSEMBLIES, VPN, AssemblyError
from appliance.assembly.load import load as from_assembly
from appliance.assembly.model import ValidatedAssembly
from appliance.assembly.wgquick import from_wgquick


def _fail(why: str, then: str = "") -> NoReturn:
    from appliance.cli import screen

    screen.fail(why, then)


def ready_made(said: str) -> Path:
    """The assembly that ``--assembly`` names: one of the ready-made ones, or a file."""
    file = Path(said) if "/" in said or said.endswith(".toml") else ASSEMBLIES / f"{said}.toml"
    if not file.is_file():
        _fail(f"there is no assembly {said!r}", f"one of {_names()}, or the path of a file, as ./mine.toml")
    return file


def _names() -> str:
    """The ready-made assemblies."""
    return ", ".join(sorted(one.stem for one in ASSEMBLIES.glob("*.toml")))


def _meant(file: Path) -> Path:
    """The file that a bare name means: as wg-quick has it, the one in the usual folder, else a ready-made assembly."""
    usual, own = Path("/etc/wireguard") / f"{file.stem}.conf", ASSEMBLIES / f"{file}.toml"
    try:
        if not file.suffix and usual.is_file():
            return usual
    except PermissionError:
        # It may be what is meant: to take a ready-made assembly of that name for it would be a guess
        path = f"the file's own path{f', as {own}' if own.is_file() else ''}"
        _fail(f"{usual} may be there, and cannot be looked at by this user", f"sudo, or {path}")
    if str(file) == file.name and own.is_file():
        return own
    if file.is_dir():
        _fail(f"{file} is a directory", f"a file in it, as {file}/wg0.conf")
    if file.suffix == ".toml":
        _fail(f"{file}: there is no such file", f"one of the ready-made ones by its name: {_names()}")
    _fail(f"{file}: there is no such file", f"name it by its path, or put it at {usual}")


def load(
    file: Path,
    lan: str | None = None,
    wan: str | None = None,
    assembly: str | None = None,
    rules: Path | None = None,
) -> ValidatedAssembly:
    """The validated assembly of ``file``, or the end of the command with every finding on a line of its own.

    ``assembly`` is what a wg-quick file is laid over, if not the vpn assembly; ``rules`` is read in place of
    the file of rules that the assembly names.
    """
    if not file.is_file():
        file = _meant(file)
    if assembly and file.suffix == ".toml":
        _fail(f"{file} is an assembly itself; --assembly goes with a wg-quick file")
    base = ready_made(assembly) if assembly else VPN
    try:
        if file.suffix == ".toml":
            loaded = from_assembly(file, lan=lan, wan=wan, rules=rules)
        else:
            loaded = from_wgquick(file, lan=lan, wan=wan, base=base, rules=rules)
    except AssemblyError as refused:
        _refuse(file, refused)
    except OSError as error:
        _fail(f"{file}: {error.strerror}", "as root" if isinstance(error, PermissionError) else "")
    for warning in loaded.warnings:
        print(_coloured(f"septum: {warning}", "33", sys.stderr), file=sys.stderr)
    return loaded


def _refuse(file: Path, refused: AssemblyError) -> NoReturn:
    from appliance.cli import screen

    count = len(refused.findings)
    why = f"{file}: refused, {count} finding{'s' if count != 1 else ''}; nothing was changed"
    screen.fail(why, findings=[(str(one), one.excerpt) for one in refused.findings])


def _coloured(text: str, colour: str, stream: Any) -> str:
    """``text`` in an ANSI ``colour`` if ``stream`` is a terminal whose user wants any (no-color.org)."""
    return f"\x1b[{colour}m{text}\x1b[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else text


def _called_at(loaded: ValidatedAssembly, admin: str) -> ValidatedAssembly:
    """The same box, called by its administrators at ``admin``."""
    from appliance.assembly.addresses import service

    if "management" not in loaded.devices or loaded.network is None:
        _fail("--admin goes with a box that has the admin domain", "septum up wg0.conf --assembly vpn-managed")
    try:
        return loaded.called_at(service(admin))
    except ValueError as error:
        _fail(f"--admin: {error}", "an address of this host and a port: 192.0.2.1:50051")


def _managed(loaded: ValidatedAssembly, box: str) -> ValidatedAssembly:
    """The same box, born with what `septum init` made for it: whom to believe, and a certificate for its face, made
    anew once the old one has lived half its time.
    """
    import time

    from appliance.management.trust import is_due, trust
    from appliance.monitor.places import PlaceError, state_base

    try:
        state = state_base() / box
        found = trust(state)
        if found is None:
            _fail(
                f"{box} is administered from elsewhere, and nobody may yet", f"septum init {box}, then the same again"
            )
        if is_due(state, time.time()):
            import datetime

            from appliance.management.initialise import renew

            renew(state, datetime.datetime.now(datetime.UTC))
    except (OSError, ValueError, KeyError, PlaceError) as error:
        _fail(f"what septum init made for {box} cannot be used: {error}", f"septum init {box} --replace makes it anew")
    return loaded.with_trust(found)


def up(
    file: Path,
    lan: str | None = None,
    wan: str | None = None,
    name: str | None = None,
    foreground: bool = False,
    assembly: str | None = None,
    rules: Path | None = None,
    backend: str = "process",
    admin: str | None = None,
) -> int:
    """Builds the box and starts it; the exit code. In the foreground it returns once the box is down.

    ``backend`` is what its domains are: "process" or "xen". ``admin`` is where administrators call, in place of what
    the file says.
    """
    rulesfile.begin()
    from appliance.assembly.resolve import ResolveError, resolve
    from appliance.monitor.main import BuildError, run, start_background

    loaded = load(file, lan, wan, assembly, rules)
    rulesfile.end()
    box = name or file.stem
    if loaded.network is None:
        way = f"septum up {file} --lan eth1 --wan eth2" if "tun" not in loaded.devices else "septum up wg0.conf"
        _fail(f"{file} does not say where in the network the box stands", way)
    if admin is not None:
        loaded = _called_at(loaded, admin)
    if loaded.trusting:
        loaded = _managed(loaded, box)
    try:
        resolved = resolve(loaded)
        if foreground:
            return run(resolved, name=box, backend=backend)
        start_background(resolved, name=box, backend=backend)
    except (BuildError, ResolveError) as error:
        _fail(str(error), "as root: building namespaces and interfaces needs it" if os.geteuid() else "")
    print(_coloured(f"{box} is up: {len(resolved.domains)} sealed domains", "32", sys.stdout))
    return 0
