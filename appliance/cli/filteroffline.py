"""`septum filter explain`, `lint` and `diff`: what rules mean, before anybody goes by them; and of the running box."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer
from rich.text import Text

from appliance.cli import screen
from appliance.cli.options import Json

if TYPE_CHECKING:
    from septum.v1.filtering import Why

    from appliance.assembly.kinds import Kind
    from appliance.rules.explained import Told
    from appliance.rules.packets import Said
    from appliance.rules.read import Loaded
    from appliance.rules.space import Entry
    from components.filter.model import RuleSet
    from components.filter.ways import Ways

Box = Annotated[str, typer.Option("--box", "-b", help="The box's name; not needed while only one is up.")]
Peers = Annotated[
    Path | None,
    typer.Option("--peers", help="The wg-quick file whose peers the rules name; if absent, any name is taken."),
]
_COLOURS: Final = {"allow": "green", "drop": "red", "reject": "yellow"}
_KIND_COLOURS: Final = {"overlap": "yellow", "never-hit": "yellow", "unused": "yellow", "redundant": "yellow"}
_FAILED: Final = 2
_MOST_STEPS: Final = 8


def _known(peers: Path | None) -> dict[str, list[int]] | None:
    if peers is None:
        return None
    from appliance.assembly.rulesfile import names
    from appliance.assembly.wgquick import peers as peers_of

    try:
        return names(peers_of(peers))
    except OSError as error:
        screen.fail(f"{peers}: {error.strerror}", code=_FAILED)


def read(file: Path, peers: Path | None, numbered: dict[str, int] | None = None) -> Loaded:
    """The rules in ``file``, or the end of the command with everything that is wrong with them."""
    from appliance.rules.problems import RulesError
    from appliance.rules.read import from_file

    try:
        with screen.progress(f"reading {file}") as tell:
            return from_file(file, _known(peers), tell, numbered)
    except RulesError as refused:
        count = len(refused.problems)
        why = f"{file}: refused, {count} problem{'s' if count != 1 else ''}"
        screen.fail(why, code=_FAILED, findings=[(one.headline(), one.excerpt()) for one in refused.problems])


def _place(rules: RuleSet, number: int) -> str:
    rule = rules.rules[number]
    file = rules.files[rule.file] if rule.file < len(rules.files) else ""
    return f"{_clean(file)}:{rule.line}" if file else f"rule {number + 1}"


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _line(rules: RuleSet, number: int, peers: Mapping[int, str]) -> str:
    from appliance.rules import write

    return _clean(write.rule(rules.rules[number], peers))


# lint -----------------------------------------------------------------------------------------------------------------


def lint(
    file: Annotated[Path | None, typer.Argument(help="A file of rules; if absent, those of the running box.")] = None,
    peers: Peers = None,
    box: Box = "",
    json_: Json = False,
) -> None:
    """Find rules that do not do what they seem to.

    Shadowed, unreachable, redundant, duplicate, empty and expired rules; rules that overlap and do different things;
    sets that no rule uses. Without FILE, of the running box, whose rules that have matched nothing are shown too.
    What is found is exact: it holds for every packet there is, not for some that were tried.

    Exit code: 0 nothing was found, 1 something was, 2 the file was refused.
    """
    from appliance.rules import lint as linting

    unused: list[dict[str, Any]] = []
    hits: list[int] | None = None
    if file is not None:
        loaded = read(file, peers)
        rules, names = loaded.ruleset, {number: name for name, number in loaded.peers.items()}
        unused = [
            {
                "kind": "unused",
                "at": f"{one.file}:{one.place.line}",
                "rule": "",
                "why": one.why,
                "example": "",
                "others": [],
            }
            for one in loaded.warnings
        ]
    else:
        from appliance.cli.commands import ask
        from appliance.cli.filtering import peer_names, the_filter

        names = peer_names(ask(box, "status"))
        with the_filter(box) as running:
            rules, counted = running.rules_with_hits()
        hits = [one.packets for one in counted]
    with screen.progress("comparing rules") as tell:
        found = linting.lint(rules, time.time(), names, hits, tell)
    rows = [
        {
            "kind": one.kind,
            "at": _place(rules, one.number),
            "rule": _line(rules, one.number, names),
            "why": one.why,
            "example": one.example,
            "others": [_place(rules, other) for other in one.others if other >= 0],
        }
        for one in found
    ]
    rows += unused
    if json_:
        screen.as_json(rows)
    elif rows:
        _show_lint(rows)
    else:
        screen.out.print(f"{len(rules.rules)} rules, nothing to say about them", style="green")
    raise typer.Exit(1 if rows else 0)


def _show_lint(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        kind = Text(row["kind"], style=_KIND_COLOURS.get(row["kind"], "bold red"))
        screen.out.print(Text.assemble((row["at"], "bold"), ": ", kind, f": {row['why']}"), soft_wrap=True)
        if row["rule"]:
            screen.out.print(Text(f"    {row['rule']}"), soft_wrap=True)
        if row["example"]:
            screen.out.print(Text(f"    as: {row['example']}", style="dim"), soft_wrap=True)
    screen.out.print(f"{len(rows)} finding{'s' if len(rows) != 1 else ''}", style="bold")


# diff -----------------------------------------------------------------------------------------------------------------


def diff(
    old: Annotated[Path, typer.Argument(help="The file of rules as it was.")],
    new: Annotated[Path, typer.Argument(help="The file of rules as it shall be.")],
    peers: Peers = None,
    json_: Json = False,
) -> None:
    """Show which packets change their verdict, or are translated otherwise, with an example packet for each change.

    The answer is exact: what is not shown does not change. `septum filter apply FILE --dry-run` compares with the
    rules of the running box.

    Exit code: 0 nothing changes, 1 something does, 2 a file was refused, or it was too much work to be sure.
    """
    from appliance.rules import diff as comparing

    numbered: dict[str, int] = {}
    before, after = read(old, peers, numbered), read(new, peers, numbered)
    names = {number: name for name, number in numbered.items()}
    with screen.progress("comparing") as tell:
        found = comparing.diff(before.ruleset, after.ruleset, time.time(), names, tell)
    gave_up = [_place((after if is_new else before).ruleset, number) for is_new, number in found.gave_up if number >= 0]
    rows = [
        {
            "what": change.what,
            "before": _decision(change.before, change.what, before.ruleset),
            "after": _decision(change.after, change.what, after.ruleset),
            "example": change.example,
        }
        for change in found.changes
    ]
    if json_:
        screen.as_json({"changes": rows, "gave_up": gave_up})
    else:
        _show_diff(rows, gave_up)
    raise typer.Exit(_FAILED if found.gave_up else 1 if rows else 0)


def _decision(entries: Sequence[Entry], what: str, rules: RuleSet) -> dict[str, Any]:
    from appliance.rules.space import LAN
    from components.filter.model import Action

    *conditional, last = entries
    table: Sequence[Any] = rules.rules if what == "verdict" else rules.translations
    does = last.action.name.lower() if isinstance(last.action, Action) else last.action
    at = None
    if last.number >= 0:
        at = f"{rules.files[0]}:{table[last.number].line}"
    unless = [
        {
            "does": one.action.name.lower() if isinstance(one.action, Action) else one.action,
            "at": _place(rules, one.number),
        }
        for one in conditional
    ]
    return {"does": does, "at": "lan" if last.number == LAN else at, "unless": unless}


def _show_diff(rows: Sequence[Mapping[str, Any]], gave_up: Sequence[str]) -> None:
    for row in rows:
        before, after = (_spell(row[side]) for side in ("before", "after"))
        screen.out.print(Text.assemble(before, ("  ->  ", "bold"), after), soft_wrap=True)
        screen.out.print(Text(f"    as: {row['example']}", style="dim"), soft_wrap=True)
    for at in gave_up:
        screen.out.print(f"{at}: too much work to say what becomes of all that this rule matches", style="yellow")
    if not rows and not gave_up:
        screen.out.print("no packet is treated otherwise", style="green")
    elif rows:
        screen.out.print(f"{len(rows)} change{'s' if len(rows) != 1 else ''}", style="bold")


def _spell(decision: Mapping[str, Any]) -> Text:
    said = Text.assemble(
        (decision["does"], _COLOURS.get(decision["does"], "cyan")), f" ({decision['at'] or 'no rule'})"
    )
    for one in decision["unless"]:
        said.append(f", under conditions {one['does']} ({one['at']})")
    return said


# explain --------------------------------------------------------------------------------------------------------------


def explain(
    packets: Annotated[
        list[str] | None, typer.Argument(help="Packets, as 'tcp 10.1.0.5:51000 > 192.0.2.7:443'.", show_default=False)
    ] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="A file of rules; if absent, the running box is asked.")
    ] = None,
    pcap: Annotated[Path | None, typer.Option("--pcap", help="A capture (pcap or pcapng) with the packets.")] = None,
    origin: Annotated[
        str, typer.Option("--from", help="Where they come from: red, tunnel, black or 'peer NAME'.", show_default=False)
    ] = "",
    assembly: Annotated[
        str,
        typer.Option(
            "--assembly",
            help="What box it is: filter, vpn-split, … or a file; and its rules, if there is no --rules.",
            show_default=False,
        ),
    ] = "",
    peers: Peers = None,
    box: Box = "",
    json_: Json = False,
) -> None:
    """Say what becomes of a packet and why: the verdict, the rule that decides, and the state that mattered.

    Packets are written like these. What is not said is what begins a connection, from the red side:

      'tcp 10.1.0.5:51000 > 192.0.2.7:443'
      'from peer alice icmp6 fd00::1 > fd00::2 type packet-too-big'
      'icmp 10.1.0.5 > 192.0.2.7 type echo-request'
      'tcp 192.0.2.7:443 > 10.1.0.5:51000 flags syn,ack'
      'tcp 10.1.0.5:1 > 192.0.2.7:2 state established'
      'from black arp request vlan 10', 'stp' in a box that passes frames

    Several packets, and those of a capture, are met in their order with --rules: what one opens, the next may belong
    to. A capture's packets come from the red side if their source is in `lan`, else from the tunnel, or from the
    outside where that is what is across; --from says otherwise. The running box knows its own connections, and nothing
    is changed there. With --assembly vpn-split, the prefixes of the tunnel are those of the peers in --peers.

    Exit code: 0 every packet passes, 1 some do not, 2 something cannot be read.
    """
    if not packets and pcap is None:
        screen.fail(
            "no packet", "septum filter explain 'tcp 10.1.0.5:51000 > 192.0.2.7:443' --rules vpn.rules", _FAILED
        )
    kind = _kind(assembly, peers) if assembly else None
    file = rules or (kind.rules if kind is not None else None)
    if file is not None:
        loaded = read(file, peers)
        _fit(file, loaded, kind)
        ruleset = loaded.ruleset
        names: Mapping[int, str] = {number: name for name, number in loaded.peers.items()}
        told = _offline(ruleset, names, packets or [], pcap, origin, kind)
    else:
        ruleset, names, told = _running(box, packets or [], pcap, origin)
    if json_:
        screen.as_json([_as_json(number, one, ruleset, names) for number, one in told])
    elif pcap is not None:
        _show_capture(told, ruleset)
    else:
        for _, one in told:
            _show(one, ruleset, names)
    raise typer.Exit(0 if all(one.verdict.name == "ALLOW" for _, one in told) else 1)


def _kind(assembly: str, peers: Path | None) -> Kind:
    """What box the assembly makes, or the end of the command."""
    from appliance.assembly.findings import AssemblyError
    from appliance.assembly.kinds import of_assembly
    from appliance.assembly.wgquick import peers as peers_of
    from appliance.cli.building import ready_made

    file = ready_made(assembly)
    try:
        return of_assembly(file, peers_of(peers) if peers is not None else None)
    except AssemblyError as refused:
        screen.fail(f"{file}: refused", code=_FAILED, findings=[(str(one), one.excerpt) for one in refused.findings])
    except OSError as error:
        screen.fail(f"{peers}: {error.strerror}", code=_FAILED)


def _fit(file: Path, loaded: Loaded, kind: Kind | None) -> None:
    """Ends the command if that box cannot do what the rules say."""
    from appliance.assembly.rulesfile import unfit

    wrong = [one for one in unfit(loaded, kind.role) if not one.is_warning] if kind is not None else []
    if wrong:
        why = f"{file}: refused, this box cannot do that"
        screen.fail(why, code=_FAILED, findings=[(one.headline(), one.excerpt()) for one in wrong])


_Numbered = list[tuple[int, "Told"]]


class _Raw(NamedTuple):
    """A packet of a capture: as a box that passes frames sees it, with the header of its frame; or without."""

    packet: bytes
    origin: int
    when: float
    link: bytes


def _sources(
    ruleset: RuleSet,
    names: Mapping[int, str],
    packets: Sequence[str],
    pcap: Path | None,
    origin: str,
    has_frames: bool,
    ways: Ways | None,
) -> Iterator[tuple[int, Said | _Raw]]:
    """Each packet with its number: as it was described, or of a capture."""
    from appliance.rules import capture, space
    from appliance.rules.packets import parse, read_origin

    numbers = {name: number for number, name in names.items()}
    try:
        default = read_origin(origin, numbers) if origin else None
        for number, text in enumerate(packets, 1):
            said = parse(text, has_frames, numbers)
            if said.origin is None and default is not None:
                said = said._replace(sample=said.sample.moved(space.ORIGIN, default))
            yield number, said
        for one in capture.read(pcap) if pcap is not None else ():
            packet = one.payload if has_frames else one.packet
            if has_frames and not one.link:
                raise ValueError(f"packet {one.number} has no Ethernet header, and this box passes frames")
            if packet:
                side = default if default is not None else _side_of(one.packet, ruleset, has_frames, ways)
                yield one.number, _Raw(packet, side, one.when, one.link if has_frames else b"")
    except ValueError as error:
        screen.fail(str(error), code=_FAILED)
    except OSError as error:
        screen.fail(f"{pcap}: {error.strerror}", code=_FAILED)


def _side_of(packet: bytes, ruleset: RuleSet, has_frames: bool, ways: Ways | None) -> int:
    from appliance.rules import space
    from components.filter.model import Side

    if not packet or not ruleset.lan:
        return space.RED  # nothing tells
    source = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
    if any(prefix.has(source) for prefix in ruleset.lan):
        return space.RED
    is_outside = has_frames or (ways is not None and ways.leaves(source) is Side.BLACK)
    return space.BLACK if is_outside else space.FIRST_PEER


def _offline(
    ruleset: RuleSet,
    names: Mapping[int, str],
    packets: Sequence[str],
    pcap: Path | None,
    origin: str,
    kind: Kind | None,
) -> _Numbered:
    from appliance.rules.explained import Explainer

    ways = kind.ways if kind is not None else None
    explainer = Explainer(ruleset, names, time.time(), ways)
    told = []
    for number, one in _sources(ruleset, names, packets, pcap, origin, explainer.has_frames, ways):
        if isinstance(one, _Raw):
            told.append((number, explainer.raw(one.packet, one.origin, one.link, one.when)))
        else:
            told.append((number, explainer.described(one)))
    return told


def _running(
    box: str, packets: Sequence[str], pcap: Path | None, origin: str
) -> tuple[RuleSet, Mapping[int, str], _Numbered]:
    from appliance.cli.commands import ask
    from appliance.cli.filtering import filter_role, peer_names, the_filter
    from appliance.rules.explained import side_and_peer
    from appliance.rules.packets import link_header, payload, say

    status = ask(box, "status")
    names, has_frames = peer_names(status), filter_role(status) == "bridge"
    told: _Numbered = []
    with the_filter(box) as running:
        ruleset = running.ruleset()
        for number, one in _sources(ruleset, names, packets, pcap, origin, has_frames, None):
            if isinstance(one, _Raw):
                packet, start, link, shown = one.packet, one.origin, one.link, ""
            else:
                if one.state is not None:
                    screen.fail("a running box knows the state of its connections itself", code=_FAILED)
                sample = one.sample
                packet, start, shown = payload(sample), sample.origin, say(sample, names)
                link = link_header(sample) if has_frames else b""
            why = running.explain(packet, *side_and_peer(start), link)
            told.append((number, _told(why, shown, len(ruleset.rules))))
    return ruleset, names, told


def _told(why: Why, shown: str, rules: int) -> Told:
    """What a running filter said, made fit to be shown."""
    from appliance.cli.running import printable
    from appliance.rules.explained import Told
    from components.filter.model import Action, Side

    return Told(
        shown or printable(why.packet),
        Action(why.verdict),
        why.number - 1 if 0 < why.number <= rules else None,
        printable(why.why),
        f"{printable(why.state)}{f', it is {printable(why.tracking)}' if why.tracking else ''}",
        Side(why.leaves).name.lower() if why.leaves in set(Side) else "",
        printable(why.translation),
        tuple((step.number - 1, printable(step.why)) for step in why.steps),
    )


def _as_json(number: int, told: Told, ruleset: RuleSet, names: Mapping[int, str]) -> dict[str, Any]:
    return {
        "number": number,
        "packet": told.packet,
        "verdict": told.verdict.name.lower(),
        "rule": told.rule + 1 if told.rule is not None else None,
        "at": _place(ruleset, told.rule) if told.rule is not None else None,
        "text": _line(ruleset, told.rule, names) if told.rule is not None else None,
        "why": told.why,
        "state": told.state,
        "leaves": told.leaves or None,
        "translation": told.translation or None,
        "steps": [
            {"at": _place(ruleset, rule), "why": why} for rule, why in told.steps if 0 <= rule < len(ruleset.rules)
        ],
    }


def _show(told: Told, ruleset: RuleSet, names: Mapping[int, str]) -> None:
    verdict = told.verdict.name.lower()
    screen.out.print(Text.assemble((verdict, f"bold {_COLOURS[verdict]}"), "  ", told.packet), soft_wrap=True)
    if told.rule is not None:
        line = Text.assemble("  by     ", (_place(ruleset, told.rule), "bold"), f"  {_line(ruleset, told.rule, names)}")
        screen.out.print(line, soft_wrap=True)
    for label, text in (
        ("why", told.why),
        ("state", told.state),
        ("leaves", f"by {told.leaves}" if told.leaves else ""),
        ("as", told.translation),
    ):
        if text:
            screen.out.print(Text(f"  {label:6} {text}"), soft_wrap=True)
    for number, why in [step for step in told.steps if step[1] and 0 <= step[0] < len(ruleset.rules)][-_MOST_STEPS:]:
        screen.out.print(Text(f"  not    {_place(ruleset, number)}: {why}", style="dim"), soft_wrap=True)


def _show_capture(told: _Numbered, ruleset: RuleSet) -> None:
    rows = []
    for number, one in told:
        verdict = one.verdict.name.lower()
        at = _place(ruleset, one.rule) if one.rule is not None else "-"
        rows.append((number, Text(verdict, style=_COLOURS[verdict]), one.packet, at, one.state, one.why))
    passing = sum(one.verdict.name == "ALLOW" for _, one in told)
    screen.table(f"{len(told)} packets, of which {passing} pass", ("", "verdict", "packet", "by", "state", "why"), rows)
