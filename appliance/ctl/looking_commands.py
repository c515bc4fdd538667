"""`septumctl status`, `top`, `domains`, `logs`, `version`: what a box does."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer

from appliance.cli import helping
from appliance.ctl import reach, say
from appliance.ctl.say import Json
from appliance.ctl.trouble import Exit, Trouble

_SKEW: Final = 60.0  # seconds that two clocks may differ before one is told

SEVERITIES: Final = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
"""RFC 5424 section 6.2.1."""

_STYLES: Final = {"error": "red", "warning": "yellow", "notice": "bold", "debug": "dim"}


def _fetch_status(box: Any) -> Any:
    from septum.admin.v1 import admin_pb2 as pb

    return box.ask(box.box.GetStatus, pb.GetStatusRequest(), "the status")


def status_as_json(found: Any) -> dict[str, Any]:
    """A status for machines."""
    return {
        "name": found.name,
        "assembly": found.assembly,
        "backend": found.backend,
        "uptime": round(found.uptime, 1),
        "time": say.stamp(found.time),
        "revision": found.revision,
        "confirm_left_ms": found.confirm_left_ms,
        "peers": found.peers,
        "listen_port": found.listen_port,
        "tunnel": found.tunnel,
        "addresses": list(found.addresses),
        "domains": [domain_as_json(domain) for domain in found.domains],
        "channels": [{"client": one.client, "server": one.server, "schema": one.schema} for one in found.channels],
    }


def domain_as_json(domain: Any) -> dict[str, Any]:
    return {
        "name": domain.name,
        "component": domain.component,
        "role": domain.role or None,
        "state": domain.state,
        "restarts": domain.restarts,
        "memory": domain.memory or None,
        "heartbeat_age": round(domain.heartbeat_age, 2),
        "cpu_seconds": round(domain.cpu_seconds, 2),
        "last_death": domain.last_death or None,
        "rebuild_ms": round(domain.rebuild_ms, 1) or None,
        "counters": {one.name: one.value for one in domain.counters},
    }


def _tell_of_clock(box_time: int) -> None:
    skew = box_time / 1000 - time.time() if box_time else 0.0
    if abs(skew) > _SKEW:
        say.warn(
            f"the box's clock is {say.span(abs(skew))} {'ahead of' if skew > 0 else 'behind'} this machine's; "
            "invitations and certificates go by both"
        )


def status(json_: Json = False) -> None:
    """Show the box: what is in force, what its domains do, and whether anything is wrong."""
    with reach.the_box() as box:
        found = _fetch_status(box)
    _tell_of_clock(found.time)
    if say.is_json():
        say.as_json(status_as_json(found))
        return
    say.out.print(headline(found), soft_wrap=True)
    if found.confirm_left_ms:
        left = say.span(found.confirm_left_ms / 1000)
        say.out.print(say.Text(f"  waits to be confirmed: rolled back in {left}", style="bold yellow"))
        say.hint("  septumctl config confirm")
    say.out.print()
    show_domains(found)
    counted = [(say.clean(one.name), say.clean("  ".join(_counters(one)))) for one in found.domains if _counters(one)]
    if counted:
        say.out.print()
        say.table("Counted by each domain (its own word)", ("domain", "counters"), counted)


def headline(found: Any) -> Any:
    """One or two lines about a box."""
    name, tunnel = say.clean(found.name), say.clean(found.tunnel)
    text = say.Text.assemble(
        (name, "bold"), f": up {say.span(found.uptime)}, revision {found.revision}, {say.plural(found.peers, 'peer')}"
    )
    if tunnel:
        text.append(f"\n  {tunnel}: {', '.join(map(say.clean, found.addresses))}")
        text.append(f", port {found.listen_port}" if found.listen_port else "")
    return text


def _counters(domain: Any) -> list[str]:
    return [f"{one.name.replace('_', ' ')} {one.value:,}" for one in domain.counters if one.value]


def show_domains(found: Any) -> None:
    rows = [
        (
            say.clean(domain.name),
            say.good(domain.state == "running", say.clean(domain.state)),
            domain.restarts,
            say.amount(domain.memory) if domain.memory else "-",
            f"{domain.cpu_seconds:,.1f} s",
            f"{domain.heartbeat_age:.1f} s ago",
            say.Text(say.clean(domain.last_death) or "", style="red"),
        )
        for domain in found.domains
    ]
    columns = ("domain", "state", "rebuilt", "memory", "cpu", "heard", "last death")
    dead = any(domain.last_death for domain in found.domains)
    say.table("Domains", columns[: 7 if dead else 6], [row[: 7 if dead else 6] for row in rows])


# domains --------------------------------------------------------------------------------------------------------------

domains = helping.App(help="The box's domains: list them, restart one.")


@domains.command("list")
def list_domains(json_: Json = False) -> None:
    """List the domains: their state, how often each was rebuilt, memory and processor."""
    with reach.the_box() as box:
        found = _fetch_status(box)
    if say.is_json():
        say.as_json([domain_as_json(one) for one in found.domains])
        return
    show_domains(found)


@domains.command()
def restart(
    name: Annotated[str, typer.Argument(help="Name of a domain.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_: Json = False,
) -> None:
    """End a domain, so that the monitor builds it anew. While `filter` is rebuilt, nothing passes."""
    from septum.admin.v1 import admin_pb2 as pb

    with reach.the_box() as box:
        found = _fetch_status(box)
        before = _domain(found, name)
        say.confirmed(f"Restart {name} of {box.context.name}?", yes)
        begin = time.monotonic()
        try:
            box.ask(box.box.RestartDomain, pb.RestartDomainRequest(name=name), f"{name} to be restarted")
        except Trouble as trouble:
            # `admin` is what we speak through: that it is gone is what was asked for
            if before.component != "admin" or trouble.code is not Exit.UNREACHED:
                raise
        with say.waiting(f"waiting for {name} to run again"):
            after = _until_reborn(box, before, _XEN_REBUILD if found.backend == "xen" else _REBUILD)
    took = time.monotonic() - begin
    told = {"domain": name, "restarts": after.restarts, "seconds": round(took, 2)}
    say.done(
        f"{name} runs again after {took:.1f} s; it was rebuilt {say.plural(after.restarts, 'time')} so far", **told
    )


def _domain(found: Any, name: str) -> Any:
    for domain in found.domains:
        if domain.name == name:
            return domain
    names = ", ".join(say.clean(one.name) for one in found.domains)
    raise Trouble(Exit.REFUSED, f"there is no domain {name}", f"one of: {names}", reason="NOT_FOUND")


_REBUILD: Final = 15.0  # seconds
_XEN_REBUILD: Final = 60.0  # a guest has a kernel to start besides, and there may be others before it


def _until_reborn(box: Any, before: Any, seconds: float) -> Any:
    until = time.monotonic() + seconds
    while True:
        say.tick()
        try:
            now = _domain(_fetch_status(box), before.name)
            if now.restarts > before.restarts and now.state == "running":
                return now
        except Trouble as trouble:
            if trouble.code is not Exit.UNREACHED or time.monotonic() >= until:
                raise
        if time.monotonic() >= until:
            why = f"{before.name} does not run again after {seconds:g} s"
            raise Trouble(Exit.REFUSED, why, "septumctl domains; septumctl logs")
        time.sleep(0.2)


say.bare(domains, list_domains)


# log ------------------------------------------------------------------------------------------------------------------


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, until Ctrl-C.")] = False,
    most: Annotated[int, typer.Option("--lines", "-n", help="So many of the newest.", min=1, max=1000)] = 50,
    severity: Annotated[str, typer.Option("--severity", "-s", help=f"This and graver: {', '.join(SEVERITIES)}.")] = "",
    domain: Annotated[str, typer.Option("--domain", "-d", help="Only of one domain.")] = "",
    json_: Json = False,
) -> None:
    """Show the audit log; with -f also what comes. A connection that is lost is made again, and nothing is missed."""
    from septum.admin.v1 import admin_pb2 as pb

    if severity and severity not in SEVERITIES:
        raise Trouble(Exit.USAGE, f"there is no severity {severity!r}", f"one of {', '.join(SEVERITIES)}")
    said: dict[str, Any] = {"severity": SEVERITIES.index(severity) + 1 if severity else 0, "domain": domain}
    with reach.the_box() as box:
        request = pb.QueryLogRequest(lines=most, newest=True, **said)
        page = box.ask(box.audit.QueryLog, request, "the log")
        _print_lines(page, True)
        life, after = page.life, page.lines[-1].number if page.lines else 0
        while follow:
            request = pb.QueryLogRequest(life=life, after=after, **said)
            try:
                for page in box.stream(box.audit.FollowLog, request, "the log"):
                    if page.life != life:
                        say.warn("the log was rebuilt: what it had not written before is lost")
                    _print_lines(page, False)
                    life, after = page.life, page.lines[-1].number if page.lines else after
            except Trouble as trouble:
                if trouble.code is not Exit.UNREACHED:
                    raise
                say.warn(f"{trouble}; trying again")
            time.sleep(1.0)


def _print_lines(page: Any, is_first: bool) -> None:
    if page.lost and not is_first:
        say.warn(f"{page.lost:,} lines are missing: they came faster than they were read")
    for line in page.lines:
        name = SEVERITIES[min(line.severity, 7)]
        if say.is_json():
            told = {"number": line.number, "at": say.stamp(line.at), "severity": name, "domain": line.domain}
            say.json_line(told | {"event": line.event, "text": line.text})
            continue
        text = say.Text.assemble(
            (say.when(line.at), "dim"),
            " ",
            (f"{name:8}", _STYLES.get(name, "bold red" if line.severity < 3 else "")),
            f" {say.clean(line.domain):10} ",
            (say.clean(line.event), "bold" if line.severity <= 4 else ""),
            f"  {say.clean(line.text)}" if line.text else "",
        )
        say.out.print(text, soft_wrap=True)


# version -----------------------------------------------------------------------------------------------------


def version(json_: Json = False) -> None:
    """Show which Septum runs here and there, and which box it is."""
    from importlib.metadata import version as version_of

    from septum.admin.v1 import admin_pb2 as pb

    own = version_of("septum")
    with reach.the_box() as box:
        found = box.ask(box.box.GetVersion, pb.GetVersionRequest(), "its version")
        context = box.context
    _tell_of_clock(found.time)
    if found.box != context.box:
        said = say.clean(found.box)[:64]
        why = f"{context.address} says that it is the box {said}, and has the certificate of {context.box}"
        raise Trouble(Exit.NOT_BELIEVED, why, "look at the box itself")
    if say.is_json():
        told = {"septumctl": own, "septum": found.septum, "python": found.python, "name": found.name, "box": found.box}
        say.as_json(told | {"time": say.stamp(found.time)})
        return
    say.note(f"septumctl {own}")
    say.note(f"{say.clean(found.name)}: septum {say.clean(found.septum)}, python {say.clean(found.python)}")
    say.note(f"  fingerprint {context.box}")


# top ------------------------------------------------------------------------------------------------------------------


def top(
    every: Annotated[float, typer.Option("--every", "-e", help="Seconds between two looks.", min=0.2, max=3600)] = 2.0,
    count: Annotated[int, typer.Option("--count", "-n", help="End after so many looks; 0: never.", min=0)] = 0,
    json_: Json = False,
) -> None:
    """Watch the box: domains, channels, peers, rates, and what is denied for which reason. `q` ends it.

    With --json, or where there is no terminal, each look is a line of JSON.
    """
    from appliance.ctl import board

    with reach.the_box() as box:
        board.watch(box, every, count)
