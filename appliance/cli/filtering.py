"""`septum filter`: what the filter of a running box does, and its rules replaced while it does it."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text
from septum.v1.filtering import FlowRow, Hits

from appliance.cli import helping, screen
from appliance.cli.asking import AskError, Call
from appliance.cli.options import Json
from appliance.cli.running import RunningFilter, printable
from components.filter.model import Action, Rule, RuleSet, Side

app = helping.App(
    name="filter",
    help="Look into the filter of a running box, explain what it does, and replace its rules.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Box = Annotated[str, typer.Option("--box", "-b", help="The box's name; not needed while only one is up.")]

_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
_WITH_PORTS: Final = (6, 17)
_ACTIONS: Final = {Action.ALLOW: "green", Action.DROP: "red", Action.REJECT: "yellow"}
_SIDES: Final = {side: side.name.lower() for side in Side}
_SHOWN_CHANGES: Final = 10


@contextmanager
def the_filter(box: str) -> Iterator[RunningFilter]:
    """The filter of the box of that name, to be asked; whatever goes wrong ends the command with what to do next."""
    from appliance.cli.commands import the_box

    name = the_box(box)
    told: list[str] = []

    def waiting(why: str) -> None:
        if not told:
            told.append(why)
            screen.err.print(f"septum: waiting: {why}", style="yellow", soft_wrap=True, markup=False)

    try:
        with Call(name, "filter", waiting) as call:
            yield RunningFilter(call)
    except AskError as error:
        screen.fail(str(error), error.then)


# what its rules and peers are called ----------------------------------------------------------------------------------


def peer_names(status: Mapping[str, Any]) -> dict[int, str]:
    """What to call the tunnel's peers, by number."""
    peers = status["peers"]
    return {number: peer.get("name") or peer["public_key"] for number, peer in enumerate(peers, 1)}


def filter_role(status: Mapping[str, Any]) -> str:
    """What the filter of a running box is: filter, bridge or split."""
    roles = (str(domain["role"]) for domain in status["domains"] if domain["component"] == "filter")
    return next(roles, "filter")


def _status(box: str) -> dict[str, Any]:
    from appliance.cli.commands import ask

    return ask(box, "status")


def _line(rule: Rule, peers: Mapping[int, str]) -> str:
    from appliance.rules import write

    return printable(write.rule(rule, peers))


def _place(rules: RuleSet, rule: Rule) -> str:
    return f"{printable(rules.files[rule.file])}:{rule.line}" if rule.file < len(rules.files) else "-"


def _ago(milliseconds: int) -> str:
    if not milliseconds:
        return "never"
    seconds = max(0.0, time.time() - milliseconds / 1000)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _when(milliseconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat() if milliseconds else None
    except (ValueError, OverflowError, OSError):
        return None  # its own word


# looking --------------------------------------------------------------------------------------------------------------


@app.command()
def rules(
    box: Box = "",
    unused: Annotated[bool, typer.Option("--unused", help="Only those that have matched nothing.")] = False,
    json_: Json = False,
) -> None:
    """Show the rules in force, how often each has decided, and when it did last.

    Counters begin with the rules: `septum filter apply` and a rebuilt filter begin at zero.
    """
    peers = peer_names(_status(box))
    with the_filter(box) as running:
        found, hits = running.rules_with_hits()
    rows = [
        (number, rule, hit)
        for number, (rule, hit) in enumerate(zip(found.rules, hits, strict=True), 1)
        if not (unused and hit.packets)
    ]
    if json_:
        screen.as_json([_rule_json(found, number, rule, hit, peers) for number, rule, hit in rows])
        return
    shown = [
        (
            number,
            Text(_line(rule, peers), style=_ACTIONS[rule.action]),
            f"{hit.packets:,}",
            screen.amount(hit.octets),
            _ago(hit.last),
            _place(found, rule),
        )
        for number, rule, hit in rows
    ]
    screen.table("Rules in force, the first that matches decides", ("", "rule", "packets", "", "last", "at"), shown)
    screen.out.print("What no rule matches is dropped.", style="dim")
    if found.translations:
        from appliance.rules import write

        for one in found.translations:
            screen.out.print(f"  {printable(write.translation(one))}", markup=False, soft_wrap=True)


def _rule_json(found: RuleSet, number: int, rule: Rule, hit: Hits, peers: Mapping[int, str]) -> dict[str, Any]:
    return {
        "number": number,
        "rule": _line(rule, peers),
        "name": rule.name,
        "action": rule.action.name.lower(),
        "file": found.files[rule.file] if rule.file < len(found.files) else None,
        "line": rule.line,
        "packets": hit.packets,
        "bytes": hit.octets,
        "last": _when(hit.last),
    }


def _address(raw: bytes) -> str:
    return str(ipaddress.ip_address(raw))


def _end(address: bytes, port: int, protocol: int) -> str:
    text = _address(address)
    if protocol not in _WITH_PORTS:
        return text
    return f"[{text}]:{port}" if len(address) == 16 else f"{text}:{port}"


def _flow_json(row: FlowRow, peers: Mapping[int, str]) -> dict[str, Any]:
    return {
        "protocol": _PROTOCOLS.get(row.protocol, str(row.protocol)),
        "source": _address(row.source),
        "source_port": row.source_port,
        "destination": _address(row.destination),
        "destination_port": row.destination_port,
        "opened_from": _SIDES.get(Side(row.side)) if row.side in set(Side) else "?",
        "peer": peers.get(row.peer, str(row.peer)) if row.peer else None,
        "state": printable(row.state),
        "answered": row.answered,
        "rule": row.number or None,
        "packets": row.packets,
        "bytes": row.octets,
        "ends_in": row.left,
        "translated": printable(row.translated) or None,
    }


def _chosen(
    protocol: str, address: str, port: int, side: str, peer: str, peers: Mapping[int, str]
) -> Callable[[FlowRow], bool]:
    """Whether a flow is one of those asked for."""
    numbers = {name: number for number, name in _PROTOCOLS.items()}
    if protocol and protocol not in numbers and not protocol.isdecimal():
        screen.fail(f"there is no protocol {protocol!r}", f"one of {', '.join(numbers)}, or a number")
    if side and side not in _SIDES.values():
        screen.fail(f"there is no side {side!r}", f"one of {', '.join(_SIDES.values())}")
    if peer and peer not in peers.values():
        screen.fail(f"there is no peer {peer!r}", f"one of {', '.join(peers.values()) or '(there is none)'}")
    try:
        network = ipaddress.ip_network(address, strict=False) if address else None
    except ValueError as error:
        screen.fail(f"{address!r} is not an address or a prefix: {error}")

    def within(row: FlowRow) -> bool:
        found = (ipaddress.ip_address(one) for one in (row.source, row.destination))
        return network is None or any(one in network for one in found)

    def chosen(row: FlowRow) -> bool:
        return (
            (not protocol or row.protocol == numbers.get(protocol, int(protocol) if protocol.isdecimal() else -1))
            and (not port or port in (row.source_port, row.destination_port))
            and (not side or _SIDES.get(Side(row.side)) == side)
            and (not peer or peers.get(row.peer) == peer)
            and within(row)
        )

    return chosen


@app.command()
def flows(
    box: Box = "",
    protocol: Annotated[str, typer.Option("--protocol", help="Only of tcp, udp, icmp, icmpv6, or a number.")] = "",
    address: Annotated[str, typer.Option("--address", help="Only from or to an address or prefix.")] = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Only from or to a port.")] = 0,
    side: Annotated[str, typer.Option("--from", help="Only opened from red, tunnel or black.")] = "",
    peer: Annotated[str, typer.Option("--peer", help="Only of that tunnel peer.")] = "",
    most: Annotated[int, typer.Option("--most", "-n", min=1, help="Show so many, those with most bytes.")] = 50,
    json_: Json = False,
) -> None:
    """Show the connections that the filter knows: who opened them, their state, and the rule that let them."""
    peers = peer_names(_status(box))
    chosen = _chosen(protocol, address, port, side, peer, peers)
    with the_filter(box) as running, screen.progress("reading flows") as tell:
        everything = list(running.flows(tell))
    found = sorted(filter(chosen, everything), key=lambda row: -row.octets)
    if json_:
        screen.as_json([_flow_json(row, peers) for row in found])
        return
    shown = [
        (
            _PROTOCOLS.get(row.protocol, row.protocol),
            _end(row.source, row.source_port, row.protocol),
            _end(row.destination, row.destination_port, row.protocol),
            _from(row, peers),
            Text(printable(row.state), style="green" if row.answered else "yellow"),
            row.number or "-",
            f"{row.packets:,}",
            screen.amount(row.octets),
            f"{row.left} s",
        )
        for row in found[:most]
    ]
    title = f"{len(found):,} of {len(everything):,} flows" + (
        f", the {most} with most bytes" if len(found) > most else ""
    )
    screen.table(title, ("", "opened by", "to", "from", "state", "rule", "packets", "", "ends in"), shown)


def _from(row: FlowRow, peers: Mapping[int, str]) -> str:
    side = _SIDES.get(Side(row.side), "?") if row.side in set(Side) else "?"
    return f"{side} ({peers.get(row.peer, row.peer)})" if row.peer and row.side == Side.TUNNEL else side


@app.command()
def top(
    box: Box = "",
    most: Annotated[int, typer.Option("--most", "-n", min=1, max=64, help="Show so many.")] = 20,
    every: Annotated[float, typer.Option("--every", min=0.0, help="Again after so many seconds, until Ctrl-C.")] = 0.0,
    json_: Json = False,
) -> None:
    """Show who has opened the connections that carry most."""
    while True:
        with the_filter(box) as running:
            found = running.talkers(most)
        if json_:
            screen.as_json(
                [
                    {
                        "address": _address(one.address),
                        "from": _side(one.side),
                        "flows": one.flows,
                        "packets": one.packets,
                        "bytes": one.octets,
                    }
                    for one in found
                ]
            )
        else:
            if every:
                screen.out.clear()
            rows = [
                (
                    _address(one.address),
                    _side(one.side),
                    f"{one.flows:,}",
                    f"{one.packets:,}",
                    screen.amount(one.octets),
                )
                for one in found
            ]
            screen.table("Who opened what flows now, both ways", ("address", "from", "flows", "packets", ""), rows)
        if not every:
            return
        time.sleep(max(every, 0.2))


def _side(number: int) -> str:
    return _SIDES.get(Side(number), "?") if number in set(Side) else "all"


@app.command()
def counters(box: Box = "", json_: Json = False) -> None:
    """Show how much passed, and what was denied from which side and why."""
    from components.filter.explain import WHY

    with the_filter(box) as running:
        totals = running.totals()
    found = [(_side(one.side), printable(one.what), one.count) for one in totals.counts]
    if json_:
        counts: dict[str, dict[str, int]] = {}
        for side, what, count in found:
            counts.setdefault(side, {})[what] = count
        screen.as_json({"rules": totals.digest.hex(), "replaced": totals.replaced, "counts": counts})
        return
    rows = [(side if side != "all" else "", what, f"{count:,}", WHY.get(what, "")) for side, what, count in found]
    screen.table("Packets since the filter began", ("denied from", "", "packets", "which means"), rows)
    screen.out.print(f"Rules {totals.digest.hex()[:16]}, replaced {totals.replaced} times since then.", style="dim")


# replacing ------------------------------------------------------------------------------------------------------------


def _read(file: Path, status: Mapping[str, Any]) -> Any:
    """The rules in ``file``, or the end of the command with everything that is wrong with them."""
    from appliance.assembly.kinds import of_role
    from appliance.assembly.rulesfile import names, unfit
    from appliance.rules.problems import RulesError
    from appliance.rules.read import from_file

    try:
        with screen.progress(f"reading {file}") as tell:
            loaded = from_file(file, names(status["peers"]), tell)
        role = of_role(filter_role(status))
        said = [*loaded.warnings, *(unfit(loaded, role) if role is not None else ())]
        if any(not problem.is_warning for problem in said):
            raise RulesError(problem for problem in said if not problem.is_warning)
    except RulesError as refused:
        count = len(refused.problems)
        why = f"{file}: refused, {count} problem{'s' if count != 1 else ''}; nothing was changed"
        screen.fail(why, findings=[(one.headline(), one.excerpt()) for one in refused.problems])
    for warning in said:
        screen.err.print(f"septum: warning: {warning.headline()}", style="yellow", soft_wrap=True, markup=False)
    return loaded


def _differences(old: RuleSet, new: RuleSet, peers: Mapping[int, str]) -> list[dict[str, Any]]:
    """What packets would be treated otherwise."""
    from appliance.rules.diff import diff

    with screen.progress("comparing with the rules in force") as tell:
        found = diff(old, new, time.time(), peers, tell)
    return [
        {
            "what": change.what,
            "before": _decided(old, change.before),
            "after": _decided(new, change.after),
            "example": change.example,
        }
        for change in found.changes
    ]


def _decided(rules: RuleSet, entries: Sequence[Any]) -> str:
    """The last of the entries: what decides, and where that is written."""
    last = entries[-1] if entries else None
    number = getattr(last, "number", -1)
    if last is None or not 0 <= number < len(rules.rules):
        return "drop (no rule)"
    rule = rules.rules[number]
    return f"{rule.action.name.lower()} ({_place(rules, rule)})"


def _show_differences(changes: Sequence[Mapping[str, Any]]) -> None:
    if not changes:
        screen.out.print("No packet is treated otherwise.")
        return
    for change in changes[:_SHOWN_CHANGES]:
        line = f"  {change['before']} -> {change['after']}: {change['example']}"
        screen.out.print(line, soft_wrap=True, markup=False)
    if len(changes) > _SHOWN_CHANGES:
        screen.out.print(f"  and {len(changes) - _SHOWN_CHANGES} more: septum filter diff OLD NEW")


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="The file of rules.")],
    box: Box = "",
    dry: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would change, and change nothing.")] = False,
    json_: Json = False,
) -> None:
    """Replace the rules of a running box by those in FILE, in one step.

    Connections that the new rules allow live on, the others end at once. A file that is refused changes nothing. The
    rules hold until the box goes down, also when the filter has to be rebuilt; at the next `septum up` those hold that
    the assembly names.
    """
    status = _status(box)
    peers = peer_names(status)
    loaded = _read(file, status)
    new: RuleSet = loaded.ruleset
    with the_filter(status["name"]) as running:
        changes = _differences(running.ruleset(), new, peers)
        if not json_:
            _show_differences(changes)
        done = None
        if not dry:
            with screen.progress("replacing") as tell:
                done = running.apply(new, tell)
            with screen.progress("judging connections by the new rules") as tell:
                done = running.judged(done, tell)
    if json_:
        answer: dict[str, Any] = {"rules": len(new.rules), "applied": done is not None, "changes": changes}
        if done is not None:
            answer |= {"flows_kept": done.kept, "flows_ended": done.ended, "flows_left": done.left}
            answer["digest"] = done.digest.hex()
        screen.as_json(answer)
        return
    if done is None:
        line = f"{file}: good, {_count(len(new.rules), 'rule')}; nothing was changed"
        screen.out.print(line, style="green", soft_wrap=True, markup=False)
        return
    screen.out.print(
        f"{status['name']} goes by {file}: {_count(len(new.rules), 'rule')}; {_count(done.kept, 'flow')} "
        f"{'lives' if done.kept == 1 else 'live'} on, {done.ended} ended"
        + (f"; {done.left} are judged when their next packet comes" if done.left else ""),
        style="green",
        soft_wrap=True,
        markup=False,
    )
    later = (
        f"Until it goes down. To keep them: rules = … in [settings.filter] of its assembly, or septum up --rules {file}"
    )
    screen.out.print(later, style="dim", soft_wrap=True, markup=False)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


__all__ = ["app", "filter_role", "peer_names", "the_filter"]
