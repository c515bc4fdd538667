"""`septumctl rules`: what the filter goes by, what it has counted, and what it would do."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from appliance.cli import helping
from appliance.ctl import reach, say
from appliance.ctl.peers_commands import Commit, Confirm, Message
from appliance.ctl.say import Json
from appliance.ctl.trouble import Exit, Trouble

app = helping.App(help="The filter's rules: show, counters, edit, set, check, diff, explain.")

_COLOURS: Final = {"allow": "green", "drop": "red", "reject": "yellow"}

Mine = Annotated[bool, typer.Option("--candidate", help="Of the candidate, not of what is in force.")]


def _configuration(box: Any, of_candidate: bool = False) -> Any:
    from appliance.ctl import candidate, chain

    if of_candidate:
        mine = candidate.load(box.context)
        if mine is None:
            raise Trouble(Exit.REFUSED, "there is no candidate", "septumctl rules edit", reason="UNKNOWN")
        return mine.made
    return candidate.fetch(box, chain.look(box).in_force)


@app.command()
def show(mine: Mine = False, json_: Json = False) -> None:
    """Print the rules, as they were signed."""
    with reach.the_box() as box:
        found = _configuration(box, mine)
    if say.is_json():
        say.as_json({"rules": found.rules})
        return
    if not found.rules.strip():
        say.hint("there are no rules, and nothing passes: septumctl rules edit")
    for line in say.clean_lines(found.rules.rstrip("\n")) if found.rules.strip() else ():
        word = line.split(" ", 1)[0]
        style = "dim" if word.startswith("#") else _COLOURS.get(word, "")
        say.out.print(say.Text(line, style=style), soft_wrap=True)


@app.command()
def counters(
    unused: Annotated[bool, typer.Option("--unused", help="Only rules that have matched nothing.")] = False,
    drops: Annotated[bool, typer.Option("--drops", help="Only what was denied, and why.")] = False,
    json_: Json = False,
) -> None:
    """Show what each rule has matched, and what was denied for which reason."""
    from septum.admin.v1 import admin_pb2 as pb

    from appliance.ctl import chain, configuration
    from components.filter.explain import WHY

    with reach.the_box() as box:
        known = chain.look(box)
        made = _configuration(box)
        counted = box.ask(box.rules.GetCounters, pb.GetCountersRequest(), "what the filter has counted")
    entry = known.in_force
    rules = configuration.compile_rules(made).ruleset.rules
    if entry is not None and counted.digest and len(counted.rules) not in (0, len(rules)):
        say.warn("the filter has just been given other rules: these counters are not of those in force")
    lines = say.clean_lines(made.rules)
    rows = [
        {
            "number": one.number,
            "rule": _written(lines, rules, one.number),
            "line": rules[one.number - 1].line if 0 < one.number <= len(rules) else None,
            "packets": one.packets,
            "bytes": one.bytes,
            "last": one.last_ms,
        }
        for one in counted.rules
        if not (unused and one.packets)
    ]
    sums = [(say.clean(one.side), say.clean(one.what), one.count) for one in counted.sums if one.count]
    if say.is_json():
        told: dict[str, Any] = {"rules": [row | {"last": say.stamp(row["last"] or 0)} for row in rows]}
        told["sums"] = [{"side": side, "what": what, "count": count} for side, what, count in sums]
        say.as_json(told | {"digest": counted.digest})
        return
    if not drops:
        shown = [
            (
                row["line"] or "-",
                say.Text(str(row["rule"]), style=_COLOURS.get(str(row["rule"]).split(" ", 1)[0], "")),
                f"{row['packets']:,}",
                say.amount(row["bytes"] or 0),
                say.ago(row["last"] or 0),
            )
            for row in rows
        ]
        say.table("Rules, the first that matches decides", ("line", "rule", "packets", "", "last"), shown)
    if not unused and sums:
        if not drops:
            say.out.print()
        shown_sums = [(side, what, f"{count:,}", WHY.get(what, "")) for side, what, count in sums]
        say.table("Packets, by what became of them", ("from", "", "packets", "which means"), shown_sums)
    elif drops:
        say.hint("nothing was counted yet")


def _written(lines: list[str], rules: Any, number: int) -> str:
    if not 0 < number <= len(rules) or not 0 < rules[number - 1].line <= len(lines):
        return "?"
    text: str = lines[rules[number - 1].line - 1]
    return text.partition("#")[0].strip()


@app.command()
def edit(json_: Json = False) -> None:
    """Edit peers and rules in your editor: the same as `config edit`."""
    from appliance.ctl import config_commands

    config_commands.edit(json_)


def _read(file: Path) -> str:
    try:
        raw = typer.get_binary_stream("stdin").read() if str(file) == "-" else file.read_bytes()
        return raw.decode()
    except OSError as error:
        then = "another file, or - for standard input"
        if isinstance(error, FileNotFoundError) and file.parent.is_dir():
            then = f"septumctl rules show > {shlex.quote(str(file))} writes those in force, to begin with"
        raise Trouble(Exit.USAGE, f"{file}: {error.strerror}", then) from None
    except UnicodeDecodeError:
        raise Trouble(Exit.INVALID, f"{file} is not UTF-8", "a file of rules, which are text") from None


File = Annotated[Path, typer.Argument(help="A file of rules; '-' is standard input.")]


@app.command("set")
def set_(file: File, commit: Commit = False, message: Message = "", confirm: Confirm = "", json_: Json = False) -> None:
    """Take the rules from a file. A mistake in it is shown, and changes nothing."""
    from appliance.ctl import changing, configuration
    from appliance.ctl.config_commands import seconds

    text = _read(file)

    def change(box: Any, before: Any) -> Any:
        made = before._replace(rules=text)
        with say.progress(f"reading {file}") as tell:
            loaded = configuration.compile_rules(made, tell)
        for warning in loaded.warnings:
            say.warn(warning.headline())
        return made

    found = changing.change(change, message or f"rules set {file.name}", commit, seconds(confirm))
    changing.told(f"the rules of {file}", found, file=str(file))


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A file of rules; the candidate's, or those in force, if absent.")
    ] = None,
    json_: Json = False,
) -> None:
    """Look for mistakes, and for rules that do nothing: shadowed, redundant, expired, never matched by any packet.

    What is found is exact: it holds for every packet there is. Exit code 1 if something was found.
    """
    from appliance.ctl import candidate, configuration
    from appliance.rules import lint

    with reach.the_box() as box:
        mine = candidate.load(box.context)
        made = mine.made if mine else _configuration(box)
    if file is not None:
        made = made._replace(rules=_read(file))
    with say.progress("reading rules") as tell:
        loaded = configuration.compile_rules(made, tell)
    names = {peer.number: peer.name for peer in made.peers}
    with say.progress("comparing rules") as tell:
        found = lint.lint(loaded.ruleset, time.time(), names, None, tell)
    rules = loaded.ruleset.rules
    rows = [{"kind": one.kind, "line": rules[one.number].line, "why": one.why, "example": one.example} for one in found]
    rows += [{"kind": "unused", "line": one.place.line, "why": one.why, "example": ""} for one in loaded.warnings]
    if say.is_json():
        say.as_json(rows)
    elif not rows:
        say.done(f"{len(rules)} rules, nothing to say about them")
    else:
        lines = say.clean_lines(made.rules)
        for row in rows:
            head = say.Text.assemble((f"line {row['line']}", "bold"), ": ", (row["kind"], "yellow"), f": {row['why']}")
            say.out.print(head, soft_wrap=True)
            say.out.print(say.Text(f"    {lines[row['line'] - 1].strip()}"), soft_wrap=True)
            if row["example"]:
                say.out.print(say.Text(f"    as: {row['example']}", style="dim"), soft_wrap=True)
    raise typer.Exit(1 if rows else 0)


@app.command()
def diff(file: File, json_: Json = False) -> None:
    """Show what the rules of a file would change: their text, and which packets are treated otherwise."""
    from appliance.ctl.changing import compare, difference_as_json, show_difference

    text = _read(file)
    with reach.the_box() as box:
        made = _configuration(box)
    found = compare(made, made._replace(rules=text), ("in force", str(file)))
    if say.is_json():
        say.as_json(difference_as_json(found))
    else:
        show_difference(found)


@app.command()
def explain(
    packets: Annotated[list[str], typer.Argument(help="Packets, as 'tcp 10.1.0.5:51000 > 192.0.2.7:443'.")],
    mine: Mine = False,
    file: Annotated[Path | None, typer.Option("--rules", help="Of a file of rules, not of what is in force.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="By the rules alone: as if the box knew of no connection yet.")
    ] = False,
    json_: Json = False,
) -> None:
    """Say what becomes of a packet and why: the verdict, and the rule that decides (docs/filter.md).

    The box is asked, and the connections that it knows of count; nothing changes by that. What a candidate or a file
    would do is found out here, and so it is with --fresh: there packets are met in their order, and what one opens, the
    next may belong to. Exit code 1 if one does not pass.
    """
    from appliance.ctl import candidate, chain, explaining

    if sum((mine, file is not None, fresh)) > 1:
        raise Trouble(Exit.USAGE, "--candidate, --rules and --fresh do not go together", "one of them, or none")
    with reach.the_box() as box:
        if is_live := not (mine or fresh or file is not None):
            entry = chain.look(box).in_force
            made, digest = candidate.fetch(box, entry), entry.commit.ruleset if entry is not None else bytes(32)
        else:
            made, digest = _configuration(box, mine), b""
        if file is not None:
            made = made._replace(rules=_read(file))
        asked = explaining.read(made, packets)
        found = [explaining.live(box, asked, one, digest) if is_live else asked.alone(one) for one in asked.packets]
    rows = [asked.row(one) for one in found]
    if say.is_json():
        say.as_json(rows)
    else:
        for row in rows:
            verdict = str(row["verdict"])
            head = say.Text.assemble((verdict, f"bold {_COLOURS[verdict]}"), f"  {row['packet']}")
            say.out.print(head, soft_wrap=True)
            by = f"line {row['line']}: {row['rule']}" if row["line"] else row["why"]
            say.out.print(say.Text(f"  by     {by}"), soft_wrap=True)
            if row["line"] and row["why"] != explaining.PLAIN:
                say.out.print(say.Text(f"  since  {row['why']}"), soft_wrap=True)
            if row["state"]:
                say.out.print(say.Text(f"  state  {row['state']}"), soft_wrap=True)
    raise typer.Exit(0 if all(row["verdict"] == "allow" for row in rows) else 1)


say.bare(app, lambda: show(mine=False))
