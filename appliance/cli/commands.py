"""All commands of `septum`: build, look at and take down the box."""

from __future__ import annotations

import json
import os
import stat
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.cli import building, filteroffline, helping, images, keys, screen
from appliance.cli.filtering import app as filtering
from appliance.cli.options import Json

app = helping.App(
    name="septum",
    help="An inline encryption, filtering and tunneling box in which every security concern is a domain of its own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (filteroffline.explain, filteroffline.lint, filteroffline.diff):
    filtering.command()(command)
app.add_typer(filtering)

app.add_typer(images.app)


class Backend(StrEnum):
    """What domains can be built of."""

    PROCESS = "process"
    XEN = "xen"


Box = Annotated[str, typer.Argument(help="The box's name; not needed while only one is up.")]
File = Annotated[Path, typer.Argument(help="A wg-quick file (wg0.conf) or an assembly (vpn.toml).")]
Over = Annotated[
    str | None,
    typer.Option("--assembly", help="What a wg-quick file is laid over: a ready-made one (vpn, vpn-2) or a file."),
]


Rules = Annotated[
    Path | None, typer.Option("--rules", help="A file of filter rules, in place of the one the assembly names.")
]


def the_box(name: str) -> str:
    """The box of that name, or the only one there is."""
    from appliance.monitor.control import list_boxes

    boxes = list_boxes()
    if name:
        if name not in boxes:
            screen.fail(
                f"no box named {name!r} is up", f"one of: {', '.join(boxes)}" if boxes else "septum up wg0.conf"
            )
        return name
    if len(boxes) == 1:
        return boxes[0]
    if not boxes:
        screen.fail("no box is up", "septum up wg0.conf")
    screen.fail("more than one box is up", f"name one of: {', '.join(boxes)}")


def ask(name: str, operation: str) -> dict[str, Any]:
    """The monitor's answer."""
    from appliance.monitor.control import ControlError, request

    try:
        return request(the_box(name), operation)
    except ControlError as error:
        screen.fail(str(error))


@app.command()
def up(
    file: File,
    lan: Annotated[
        str | None, typer.Option(help="Interface of the protected side; moves into red's namespace.")
    ] = None,
    wan: Annotated[str | None, typer.Option(help="Interface to the world; moves into black's namespace.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the box; the file's name if not given.")] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and log to the terminal (for systemd).")
    ] = False,
    assembly: Over = None,
    rules: Rules = None,
    backend: Annotated[
        Backend,
        typer.Option(help="Processes of this Linux, or guests of the Xen under it (young: docs/xen.md)."),
    ] = Backend.PROCESS,
    admin: Annotated[
        str | None,
        typer.Option(
            help="Where administrators call a managed box: an address of this host and a port, 192.0.2.1:50051."
        ),
    ] = None,
) -> None:
    """Build the box from FILE and start it.

    With --lan and --wan the box is inline: both interfaces leave the host, and come back on `septum down`. Without
    them the tunnel interface appears on the host, as wg-quick makes it.
    """
    raise typer.Exit(building.up(file, lan, wan, name, foreground, assembly, rules, backend.value, admin))


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="The box's name, as `septum up` has it: wg0 for wg0.conf.")],
    address: Annotated[
        str, typer.Option(help="Where administrators will call: what `septum up --admin` is given.")
    ] = "127.0.0.1:50051",
    context: Annotated[
        str | None, typer.Option(help="What the console's septumctl calls the box; its name if not given.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Make another box of it: nobody who administered it does so any more.")
    ] = False,
    json_: Json = False,
) -> None:
    """Make NAME a box that is administered from elsewhere: its certificates, and this user as its first administrator.

    Once for each box, on the box, before `septum up --assembly vpn-managed`. The box's private authority stays in its
    state directory; the console's keys go to this user's contexts of septumctl.
    """
    from appliance.cli import managing

    managing.init(name, address, context or name, replace, json_)


@app.command()
def down(box: Box = "") -> None:
    """Take the box down: domains end, interfaces go back to the host with their addresses."""
    from appliance.monitor.control import ControlError, down_and_wait

    name = the_box(box)
    try:
        down_and_wait(name)
    except ControlError as error:
        screen.fail(str(error))
    screen.out.print(f"{name} is down")


@app.command()
def ps(
    box: Box = "",
    seals: Annotated[bool, typer.Option("--seals", help="Show each domain's seal, read from outside.")] = False,
    json_: Json = False,
) -> None:
    """List the domains of a box: what runs, since when, how much memory, how often rebuilt."""
    status = ask(box, "status")
    if seals:
        if status["backend"] == "xen":
            from appliance.cli import xenseals as evidence
        else:
            from appliance.cli import seals as evidence  # type: ignore[no-redef]

        found = evidence.seals_of(status)
        if json_:
            screen.as_json(found)
        sealed = all(entry["sealed"] for entry in found) if json_ else evidence.show(found)
        raise typer.Exit(0 if sealed else 1)
    if json_:
        screen.as_json(status["domains"])
        return
    from appliance.cli.views import domains

    domains(status)


@app.command()
def status(box: Box = "", json_: Json = False) -> None:
    """Show the tunnel's peers and what the domains count, as `wg show` and more."""
    answer = ask(box, "status")
    if json_:
        screen.as_json(answer)
        return
    from appliance.cli.views import overview

    overview(answer)


@app.command()
def check(
    file: File,
    over: Over = None,
    rules: Rules = None,
    backend: Annotated[
        Backend,
        typer.Option(
            help="With xen (in dom0): also whether its images, this Xen and the policy it enforces are right."
        ),
    ] = Backend.PROCESS,
    json_: Json = False,
) -> None:
    """Validate FILE without touching anything; exit 0 if a box could be built from it."""
    from appliance.assembly import schemas
    from appliance.assembly.graph import outsiders

    assembly = building.load(file, assembly=over, rules=rules)
    on_xen = None
    if backend is Backend.XEN:
        from appliance.cli import onxen

        on_xen = onxen.check(assembly)
    if json_:
        outside = [{"calls": str(channel.server), "schema": channel.schema} for channel in outsiders(assembly)]
        domains = [domain.name for domain in assembly.domains]
        bypasses = [{"port": str(bypass.port), "reason": bypass.reason} for bypass in assembly.bypasses]
        found = {"name": assembly.name, "domains": domains, "operator": outside, "bypasses": bypasses}
        screen.as_json(found if on_xen is None else {**found, "xen": on_xen})
        return
    screen.out.print(
        f"{file}: good; {len(assembly.domains)} domains, {len(assembly.channels)} channels",
        style="green",
        soft_wrap=True,
    )
    if on_xen is not None:
        says = "Xen enforces its policy" if on_xen["xsm"] == "enforcing" else "xsm = absent: colluding guests may meet"
        screen.out.print(
            f"  on this Xen: {on_xen['guests']} guests ({on_xen['type']}) of {on_xen['memory_mib']} MiB in all; their "
            f"images are as they were built; {says}",
            soft_wrap=True,
        )
    for channel in outsiders(assembly):
        labels = " ".join(sorted(schemas.forward(channel.schema) | schemas.backward(channel.schema)))
        screen.out.print(f"  the operator may call {channel.server} ({channel.schema}: {labels})", soft_wrap=True)
    for bypass in assembly.bypasses:
        line = f"  declared bypass: plaintext leaves by {bypass.port}: {bypass.reason}"
        screen.out.print(line, style="yellow", soft_wrap=True, markup=False)


@app.command()
def policy(
    file: File,
    xen: Annotated[Path, typer.Option(help="The source tree that the machine's Xen was built of: apt-get source xen.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to: a file for the boot menu, /boot/xenpolicy-4.17-septum.")
    ],
    over: Over = None,
    json_: Json = False,
) -> None:
    """Make the policy that Xen is to enforce for FILE: who may share memory and events with whom.

    It follows from domains and channels alone: keys, peers, addresses and rules may change without it. A policy belongs
    to one build of Xen. Needs m4 and checkpolicy. docs/xen.md says how a machine boots with it.
    """
    from appliance.cli import onxen

    onxen.policy(building.load(file, assembly=over), xen, output, json_)


@app.command()
def graph(
    file: Annotated[
        Path | None, typer.Argument(help="A wg-quick file or an assembly; the vpn assembly if absent.")
    ] = None,
    over: Over = None,
    svg: Annotated[bool, typer.Option("--svg", help="Print an SVG picture.")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print Graphviz DOT.")] = False,
) -> None:
    """Draw the domains and the channels between them, coloured by label."""
    from appliance.assembly import graph as drawing
    from appliance.assembly.load import VPN, load

    if file is None:
        assembly = load(building.ready_made(over) if over else VPN)
    else:
        assembly = building.load(file, assembly=over)
    if svg:
        sys.stdout.write(drawing.svg(assembly))
    elif dot:
        sys.stdout.write(drawing.dot(assembly))
    else:
        screen.out.print(drawing.text(assembly), soft_wrap=True)


def _warn_of_readers() -> None:
    """As wg does: a key that goes to a file which others may read is said to."""
    seen = os.fstat(1)
    if stat.S_ISREG(seen.st_mode) and seen.st_mode & 0o007:
        screen.err.print("septum: warning: others can read the file this key goes to; try: umask 077", style="yellow")


@app.command()
def genkey() -> None:
    """Print a new private key."""
    _warn_of_readers()
    print(keys.genkey())


@app.command()
def genpsk() -> None:
    """Print a new preshared key."""
    _warn_of_readers()
    print(keys.genpsk())


@app.command()
def pubkey() -> None:
    """Read a private key from standard input, print its public key."""
    try:
        print(keys.pubkey(sys.stdin.readline()))
    except ValueError as error:
        screen.fail(f"that is not a private key: {error}", "septum genkey | septum pubkey")


@app.command()
def unit() -> None:
    """Print the unit file for systemd: septum@.service, which starts this very program."""
    from appliance.cli import systemd

    try:
        sys.stdout.write(systemd.unit(sys.argv[0]))
    except OSError as error:
        screen.fail(str(error))


@app.command()
def version(json_: Json = False) -> None:
    """Print the version of Septum and of what it stands on."""
    from importlib.metadata import version as version_of

    versions = {name: version_of(name) for name in ("septum", "cryptography", "pynacl", "protobuf", "pyroute2")}
    versions["python"] = sys.version.split()[0]
    if json_:
        print(json.dumps(versions))
        return
    for name, number in versions.items():
        print(f"{name} {number}")
