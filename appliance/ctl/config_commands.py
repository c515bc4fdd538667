"""`septumctl config`: a configuration as a transaction. What is edited is here; what is signed goes to the box."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.cli import helping
from appliance.ctl import reach, say
from appliance.ctl.say import Json
from appliance.ctl.trouble import Exit, Trouble

app = helping.App(
    help="The configuration: edit, diff, commit, confirm, rollback, history, export, import.",
)

_WEEK = 7 * 86_400

Message = Annotated[str, typer.Option("--message", "-m", help="Why, for the history.")]
Confirm = Annotated[
    str,
    typer.Option("--confirm", metavar="TIME", help="Roll back after 5m, 90s, 1h, unless `config confirm` comes first."),
]
All = Annotated[bool, typer.Option("--all", "-a", help="Show everything, however much.")]
NoPackets = Annotated[
    bool, typer.Option("--no-packets", help="Do not look for packets that are treated otherwise: that may take long.")
]


def seconds(confirm: str) -> int:
    """Of --confirm; 0 for none. Errors: Trouble."""
    from appliance.ctl.admins_commands import seconds_of

    return seconds_of(confirm, _WEEK) if confirm else 0


def _the_candidate() -> Any:
    from appliance.ctl import candidate

    found = candidate.load(reach.the_context())
    if found is None:
        raise Trouble(
            Exit.REFUSED, "there is no candidate", "septumctl config edit, peers add, rules set", reason="UNKNOWN"
        )
    return found


@app.command()
def show(
    revision: Annotated[int, typer.Argument(help="Which one; what is in force if absent.", min=0)] = 0,
    full: Annotated[bool, typer.Option("--full", "-f", help="Peers and rules too.")] = False,
    json_: Json = False,
) -> None:
    """Show what is in force: which revision, by whom, when and why; whether it waits to be confirmed."""
    from appliance.ctl import candidate, chain, configuration, editing

    with reach.the_box() as box:
        known = chain.look(box, revision)
        entry = known.find(revision) if revision else known.in_force
        if revision and entry is None:
            raise _unknown(revision, known)
        made = candidate.fetch(box, entry) if entry is None or entry.has_content else None
        context = box.context
    mine = candidate.load(context)
    if say.is_json():
        told: dict[str, Any] = {
            "revision": known.revision,
            "active": known.active,
            "confirm_left_ms": known.confirm_left_ms,
            "commit": _entry_json(entry) if entry else None,
            "candidate": mine.revision if mine else None,
        }
        if made is not None:
            told |= {"peers": [configuration.as_json(one) for one in made.peers], "rules": made.rules}
        say.as_json(told)
        return
    if entry is None:
        say.note(f"{context.name} has no configuration yet: no peer is known, and nothing passes")
        say.hint("septumctl config edit; septumctl config import")
        return
    _show_entry(entry, known, made)
    if mine is not None:
        say.hint(f"  candidate: begun at revision {mine.revision}; septumctl config diff")
    if full and made is not None:
        say.out.out("\n" + editing.write(made.peers, f"revision {entry.commit.revision}").partition("\n\n")[2])
        say.out.out("\n".join(say.clean_lines(made.rules)))


def _show_entry(entry: Any, known: Any, made: Any) -> None:
    commit = entry.commit
    is_active = commit.revision == known.active
    say.note(f"revision {commit.revision}{', in force' if is_active else ''}: {commit.comment or '(no comment)'}")
    say.note(f"  by {commit.by}, {say.when(commit.at)} ({say.ago(commit.at)}); signature checked")
    if commit.restores:
        say.note(f"  restores revision {commit.restores}")
    if made is not None:
        count = len([line for line in made.rules.splitlines() if line.strip() and not line.strip().startswith("#")])
        say.note(f"  {say.plural(len(made.peers), 'peer')}, {say.plural(count, 'line')} of rules")
    if is_active and known.confirm_left_ms:
        left = say.span(known.confirm_left_ms / 1000)
        say.out.print(say.Text(f"  waits to be confirmed; rolled back in {left} if it is not", style="yellow"))
    if known.revision != known.active:
        say.note(f"  revision {known.revision} came later, and was rolled back: nobody confirmed it")


def _unknown(revision: int, known: Any) -> Trouble:
    why = f"there is no revision {revision}: there are {known.oldest} to {known.revision}"
    return Trouble(Exit.REFUSED, why, "septumctl config history", reason="UNKNOWN")


def _entry_json(entry: Any) -> dict[str, Any]:
    from appliance.ctl.chain import FATES

    commit = entry.commit
    return {
        "revision": commit.revision,
        "by": commit.by,
        "at": say.stamp(commit.at),
        "comment": commit.comment,
        "confirm": commit.confirm,
        "restores": commit.restores or None,
        "fate": FATES.get(entry.fate, "?"),
        "fate_at": say.stamp(entry.fate_at),
        "has_content": entry.has_content,
        "digest": entry.digest.hex(),
    }


@app.command()
def history(
    most: Annotated[int, typer.Option("--lines", "-n", help="So many of the newest.", min=1)] = 20, json_: Json = False
) -> None:
    """List who committed what, when and why, newest first; every signature is checked."""
    from appliance.ctl import chain

    with reach.the_box() as box:
        known = chain.look(box, most=most)
    entries = known.entries[:most]
    if say.is_json():
        say.as_json([_entry_json(entry) | {"in_force": entry.commit.revision == known.active} for entry in entries])
        return
    if not entries:
        say.hint(f"nothing was committed to {box.context.name} yet: septumctl config edit")
        return
    rows = []
    for entry in entries:
        commit = entry.commit
        fate = chain.FATES.get(entry.fate, "?") if commit.confirm else ""
        style = {"rolled back": "red", "waits to be confirmed": "yellow"}.get(fate, "")
        mark = say.Text("*" if commit.revision == known.active else "", style="bold green")
        said = commit.comment or (f"(restores {commit.restores})" if commit.restores else "")
        rows.append((mark, commit.revision, say.when(commit.at), commit.by, say.Text(fate, style=style), said))
    say.table(f"History of {box.context.name} (* in force)", ("", "revision", "when", "by", "", "why"), rows)
    if entries and entries[-1].commit.revision > max(known.oldest, 1):
        say.hint(f"older ones: septumctl config history -n {most * 5}")


# the candidate --------------------------------------------------------------------------------------------------------


@app.command()
def edit(json_: Json = False) -> None:
    """Edit peers and rules in your editor ($VISUAL, $EDITOR); what is right becomes the candidate.

    Mistakes are shown with file and line, and you may edit on. Nothing is in force before `config commit`.
    """
    from appliance.ctl import candidate, editing

    with reach.the_box() as box, tempfile.TemporaryDirectory() as folder:
        mine = candidate.begin(box)
        peers, rules = Path(folder, editing.FILE), Path(folder, "rules")
        title = f"{box.context.name} as of revision {mine.revision}"
        peers.write_text(editing.write(mine.made.peers, title))
        rules.write_text(mine.made.rules)
        while True:
            _run_editor(peers, rules)
            try:
                made = _edited(box, mine.made, peers.read_text(), rules.read_text())
                break
            except Trouble as trouble:
                if say.is_json() or not typer.get_text_stream("stdin").isatty():
                    raise
                _show_mistakes(trouble)
                if not typer.confirm("Edit on? (If not, what you wrote is lost.)", default=True, err=True):
                    raise Trouble(Exit.REFUSED, "the candidate is as it was") from None
        mine = mine.with_(made)
    from appliance.ctl.changing import told

    if not mine.is_changed:
        mine.discard()
        say.note("nothing was changed")
        return
    told("edited", (mine, None))


def _show_mistakes(trouble: Trouble) -> None:
    for place in trouble.places:
        say.show_place(place)
    say.err.print(say.Text.assemble(("septumctl: ", "bold red"), str(trouble)), soft_wrap=True)


def _edited(box: Any, before: Any, peers: str, rules: str) -> Any:
    from appliance.ctl import configuration, editing, sealing
    from appliance.ctl.configuration import Configuration

    made = Configuration(editing.read(peers, before, sealing.sealer(box)), rules)
    configuration.compile_rules(made)
    return made


def _run_editor(*files: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(editor), *map(str, files)], check=False).returncode
    except (OSError, ValueError) as error:
        raise Trouble(Exit.REFUSED, f"the editor {editor!r} does not start: {error}", "export EDITOR=nano") from None
    if code:
        raise Trouble(Exit.REFUSED, f"{editor} ended with {code}; the candidate is as it was")


@app.command()
def diff(
    old: Annotated[int, typer.Argument(help="A revision; what your candidate began from, if absent.", min=0)] = 0,
    new: Annotated[int, typer.Argument(help="Another one; your candidate if absent.", min=0)] = 0,
    theirs: Annotated[
        bool, typer.Option("--theirs", help="What others committed since your candidate was begun.")
    ] = False,
    everything: All = False,
    no_packets: NoPackets = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if something differs.")] = False,
    json_: Json = False,
) -> None:
    """Show what the candidate changes: peers, the text of the rules, and which packets are treated otherwise.

    `diff 5` compares revision 5 with the candidate (or with what is in force), `diff 5 7` two revisions.
    """
    from appliance.ctl import candidate, chain
    from appliance.ctl.changing import compare, difference_as_json, show_difference

    mine = candidate.load(reach.the_context())
    if not old and not theirs:
        mine = mine or _the_candidate()
        before, after, names = mine.base, mine.made, (f"revision {mine.revision}", "candidate")
    else:
        with reach.the_box() as box:
            known = chain.look(box, min(one for one in (old, new or old) if one) if old else 0)
            if theirs:
                mine = mine or _the_candidate()
                before, first = mine.base, f"revision {mine.revision}"
            else:
                before, first = candidate.fetch(box, _kept(known, old)), f"revision {old}"
            if new or theirs or mine is None:
                entry = _kept(known, new or known.active) if new or known.active else None
                after, second = candidate.fetch(box, entry), f"revision {new or known.active}"
            else:
                after, second = mine.made, "candidate"
        names = first, second
    found = compare(before, after, names, not no_packets)
    if say.is_json():
        say.as_json(difference_as_json(found))
    else:
        show_difference(found, everything)
    raise typer.Exit(1 if exit_code and found else 0)


def _kept(known: Any, revision: int) -> Any:
    entry = known.find(revision)
    if entry is None:
        raise _unknown(revision, known)
    if not entry.has_content:
        why = f"the box keeps the statement of revision {revision}, and its content no longer"
        raise Trouble(Exit.REFUSED, why, "septumctl config import, if you exported it", reason="UNKNOWN")
    return entry


@app.command()
def check(json_: Json = False) -> None:
    """Find out whether the box would take the candidate, by going as far as one can without changing anything."""
    from appliance.ctl import chain, changing

    mine = _the_candidate()
    with reach.the_box() as box:
        known = chain.look(box)
        changing.check_base(known, mine)
        changing.commit(box, known, mine.made, "", is_rehearsal=True)
    say.done("the box would take it; nothing was changed", good=True, revision=known.revision + 1)


@app.command()
def commit(message: Message = "", confirm: Confirm = "", json_: Json = False) -> None:
    """Sign the candidate and put it in force: all domains take it, or none does.

    With --confirm 5m it is rolled back by the box itself, also across its restart, unless `config confirm` comes in
    time: for changes that might shut you out.
    """
    from appliance.ctl import chain, changing

    mine = _the_candidate()
    wait = seconds(confirm)
    with reach.the_box() as box:
        known = chain.look(box)
        changing.check_base(known, mine)
        try:
            committed = changing.commit(box, known, mine.made, message, wait)
        except Trouble as trouble:
            if trouble.reason == "UNCHANGED" and mine.made == mine.base:
                mine.discard()
            raise
        mine.discard()
    changing.say_committed(committed, message or "committed")


@app.command()
def confirm(json_: Json = False) -> None:
    """Keep the commit that waits to be confirmed."""
    from appliance.ctl import chain, changing

    with reach.the_box() as box:
        known = chain.look(box)
        confirmed = changing.confirm(box, known)
    say.done(f"revision {known.revision} stays", revision=known.revision, number=confirmed.revision)


@app.command()
def rollback(
    revision: Annotated[int, typer.Argument(help="Which one; the one before what is in force, if absent.", min=0)] = 0,
    message: Message = "",
    confirm: Confirm = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_: Json = False,
) -> None:
    """Put in force again what was at an earlier revision: a new commit, with that content."""
    from appliance.ctl import candidate, chain, changing

    wait = seconds(confirm)
    with reach.the_box() as box:
        known = chain.look(box, revision, 2)
        wanted = revision or next(
            (one.commit.revision for one in known.entries if one.commit.revision < known.active and one.has_content), 0
        )
        if not wanted:
            raise Trouble(Exit.REFUSED, "there is nothing before what is in force", "septumctl config history")
        entry = _kept(known, wanted)
        if wanted == known.active:
            raise Trouble(Exit.REFUSED, f"revision {wanted} is in force already", reason="UNCHANGED")
        if not yes and not say.is_json():
            now = candidate.fetch(box, known.in_force)
            before = candidate.fetch(box, entry)
            names = (f"revision {known.active}", f"revision {wanted}")
            changing.show_difference(changing.compare(now, before, names))
        say.confirmed(f"Go back to revision {wanted}, by {entry.commit.by}?", yes)
        said = message or f"back to revision {wanted}"
        committed = changing.restore(box, known, entry, said, wait)
    changing.say_committed(committed, said, restores=wanted)


@app.command()
def merge(
    ours: Annotated[bool, typer.Option("--ours", help="Where both changed the same, take ours.")] = False,
    theirs: Annotated[bool, typer.Option("--theirs", help="Where both changed the same, take theirs.")] = False,
    json_: Json = False,
) -> None:
    """Base the candidate on what others have committed meanwhile, with your changes on top."""
    from appliance.ctl import candidate, chain, configuration
    from appliance.ctl.candidate import Candidate

    mine = _the_candidate()
    with reach.the_box() as box:
        known = chain.look(box)
        there = candidate.fetch(box, known.in_force)
    merged = configuration.merge(mine.base, mine.made, there, theirs)
    if merged.conflicts and not ours and not theirs:
        why = f"both sides changed: {', '.join(merged.conflicts)}; the candidate is as it was"
        then = "septumctl config diff; config diff --theirs; then config merge --ours, or --theirs, and config edit"
        raise Trouble(Exit.OVERTAKEN, why, then, reason="CONFLICT")
    Candidate(mine.folder, known.revision, known.digest.hex(), there, merged.made).save()
    say.done(
        f"the candidate is based on revision {known.revision} now", revision=known.revision, conflicts=merged.conflicts
    )
    say.hint("septumctl config diff, then septumctl config commit -m WHY")


@app.command()
def discard(json_: Json = False) -> None:
    """Forget the candidate."""
    mine = _the_candidate()
    mine.discard()
    say.done("the candidate is forgotten", discarded=mine.revision)


# archives -------------------------------------------------------------------------------------------------------------


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; standard output if absent.")] = None,
    revision: Annotated[
        int, typer.Option("--revision", "-r", help="Which one; what is in force if absent.", min=0)
    ] = 0,
    json_: Json = False,
) -> None:
    """Write a configuration into a file, with the signatures that prove it. Preshared keys in it are sealed."""
    from appliance.ctl import archive, chain, configuration
    from appliance.management.files import write

    with reach.the_box() as box:
        known = chain.look(box, revision)
        if not known.active:
            raise Trouble(Exit.REFUSED, "there is no configuration yet", "septumctl config edit")
        entry = _kept(known, revision or known.active)
        section, rules = chain.content(box, entry.commit, chain.PEERS, chain.RULES)
        context = box.context
    made = configuration.of_sections(section, rules)
    roster = tuple(signed for _, signed in known.statements)
    text = archive.write(archive.Archive(context.box, entry.signed, roster, made), section)
    if file is None:
        typer.echo(text, nl=False)
        return
    try:
        write(file, text)
    except OSError as error:
        raise Trouble(Exit.REFUSED, f"{file}: {error.strerror}") from None
    say.done(f"revision {entry.commit.revision} is in {file}", revision=entry.commit.revision, file=str(file))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `config export` wrote; '-' is standard input.")],
    json_: Json = False,
) -> None:
    """Make an archive the candidate. Its signatures are checked if it is of this box.

    Of another box, preshared keys stay behind: they are sealed to that one.
    """
    from appliance.ctl import archive, candidate, changing

    try:
        raw = typer.get_binary_stream("stdin").read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise Trouble(Exit.REFUSED, f"{file}: {error.strerror}") from None
    found = archive.read(raw)
    made = found.made
    with reach.the_box() as box:
        context = box.context
        if found.box == context.box:
            commit = archive.verify(found, context.box, context.console)
            what = f"revision {commit.revision}, by {commit.by} {say.when(commit.at)}, signature checked"
        else:
            what = "the configuration of another box"
            lost = [peer.name for peer in made.peers if peer.preshared_key]
            made = made._replace(peers=tuple(peer._replace(preshared_key=b"") for peer in made.peers))
            if lost:
                say.warn(f"preshared keys are left out, which are sealed to that box: of {', '.join(lost[:10])}")
        mine = candidate.begin(box).with_(made)
    changing.told(f"imported: {what}", (mine, None))


SHORT = (diff, commit, confirm, rollback, history)


say.bare(app, lambda: show(revision=0, full=False))
