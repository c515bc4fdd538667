"""From a candidate to a commit: built, compared, signed and handed over; or refused, and nothing has changed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import unified_diff
from typing import Any, Final, NamedTuple

from septum.admin.v1 import admin_pb2 as pb

from appliance.ctl import candidate as candidates
from appliance.ctl import chain, configuration, identity, reach, say
from appliance.ctl.candidate import Candidate
from appliance.ctl.chain import Entry, Known
from appliance.ctl.configuration import Configuration, PeerChange, Sections
from appliance.ctl.connection import Box, pieces
from appliance.ctl.trouble import Exit, Trouble
from appliance.signed.statements import Commit, Confirm, Rehearse, Signed, comment, sign

_FIRST_REST: Final = 0.2  # seconds: a few commits take that
_LONGEST_REST: Final = 10.0
_ATTEMPTS: Final = 10  # of a change that is made anew where somebody else was faster
_SHOWN_PACKETS: Final = 10
_SHOWN_PEERS: Final = 40

Edit = Callable[[Box, Configuration], Configuration]


class Committed(NamedTuple):
    """``kept`` and ``ended``: the filter's flows."""

    revision: int
    kept: int
    ended: int
    confirm: int  # seconds; 0: it stands


def change(edit: Edit, said: str, is_committed: bool, confirm: int = 0) -> tuple[Candidate, Committed | None]:
    """Puts a change into the candidate; and commits it, if that is all there is in it. Errors: Trouble.

    Where another commit came first, the change is made to that one.
    """
    with reach.the_box() as box:
        for attempt in range(_ATTEMPTS):
            known = chain.look(box)
            there = candidates.load(box.context)
            if not is_committed:
                start = there or candidates.begin(box, known)
                return start.with_(edit(box, start.made)), None
            if there is not None and there.is_changed:
                why = "the candidate has other changes already, which --commit would take along"
                raise Trouble(Exit.REFUSED, why, "septumctl config diff; then commit, or the same without --commit")
            if there is not None:
                there.discard()
            start = candidates.begin(box, known)
            made = edit(box, start.made)
            try:
                return start, commit(box, known, made, said, confirm)
            except Trouble as trouble:
                if trouble.reason != "STALE" or attempt == _ATTEMPTS - 1:
                    raise
                rest(attempt)
        raise AssertionError("the last attempt returns or raises")


def rest(attempt: int) -> None:
    """Somebody was faster, for the ``attempt``-th time in a row, from 0. Waits for a time by chance, thrice as long
    each time, before anything is read again: of many who write at once few are at it at any time.
    """
    time.sleep(random.uniform(0, min(_FIRST_REST * 3**attempt, _LONGEST_REST)))


def told(what: str, found: tuple[Candidate, Committed | None], **more: Any) -> None:
    """Says what became of a change."""
    candidate, committed = found
    if committed is not None:
        say_committed(committed, what, **more)
        return
    count = len(configuration.peer_changes(candidate.base.peers, candidate.made.peers))
    count += candidate.base.rules != candidate.made.rules
    if say.is_json():
        say.as_json({"candidate": candidate.revision, "changes": count, "committed": False, **more})
        return
    if not count:
        say.note(f"{what}: nothing differs from revision {candidate.revision}")
        return
    changes = f"{say.plural(count, 'change')} to revision {candidate.revision}"
    say.note(f"{what}, in the candidate: {changes}, nothing in force yet")
    say.hint("septumctl config diff, then septumctl config commit -m WHY")


def say_committed(committed: Committed, what: str, **more: Any) -> None:
    """Says what a commit came to."""
    flows = (
        f"; {say.plural(committed.kept, 'flow')} kept, {committed.ended:,} ended"
        if committed.kept or committed.ended
        else ""
    )
    told = {"revision": committed.revision, "kept": committed.kept, "ended": committed.ended}
    told |= {"committed": True, "confirm": committed.confirm}
    say.done(f"{what}: revision {committed.revision} is in force{flows}", **told, **more)
    if committed.confirm and not say.is_json():
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + committed.confirm))
        say.out.print(
            say.Text(
                f"It is rolled back at {until}, in {say.span(committed.confirm)}, unless you confirm it.", "yellow"
            )
        )
        say.hint("septumctl config confirm")


# committing -----------------------------------------------------------------------------------------------------------


def check_base(known: Known, candidate: Candidate) -> None:
    """Errors: Trouble (OVERTAKEN) if others have committed since the candidate was begun."""
    if candidate.digest == known.digest.hex():
        return
    newest = known.entries[0].commit
    since = say.plural(max(known.revision - candidate.revision, 1), "commit")
    why = (
        f"{since} came since your candidate was begun, at revision {candidate.revision}; the last is {known.revision}, "
        f"by {newest.by} {say.ago(newest.at)}{f': {newest.comment}' if newest.comment else ''}"
    )
    raise Trouble(Exit.OVERTAKEN, why, "septumctl config merge", reason="STALE")


def check_pending(known: Known) -> None:
    """Errors: Trouble (OVERTAKEN) while a commit waits to be confirmed."""
    if known.confirm_left_ms and (entry := known.find(known.revision)):
        left = say.span(known.confirm_left_ms / 1000)
        by = entry.commit.by
        why = f"revision {known.revision}, by {by}, waits to be confirmed; it is rolled back in {left} if not"
        raise Trouble(Exit.OVERTAKEN, why, "septumctl config confirm", reason="PENDING")


def commit(
    box: Box, known: Known, made: Configuration, said: str, confirm: int = 0, is_rehearsal: bool = False
) -> Committed:
    """``made`` signed and handed over, behind what is ``known``. Errors: Trouble."""
    check_pending(known)
    with say.progress("compiling the rules") as tell:
        sections, warnings = configuration.build(made, tell)
    for warning in warnings:
        say.warn(warning)
    in_force = known.in_force
    if in_force is not None and all(
        getattr(in_force.commit, key) == value for key, value in sections.digests().items()
    ):
        raise Trouble(
            Exit.REFUSED, f"nothing differs from revision {known.active}, which is in force", reason="UNCHANGED"
        )
    statement = _statement(box, known, said, confirm, sections.digests())
    held = [entry.commit for entry in known.entries if entry.has_content]
    return _hand_over(box, statement, sections.missing(held), is_rehearsal)


def restore(box: Box, known: Known, entry: Entry, said: str, confirm: int = 0) -> Committed:
    """What was in force at an earlier revision, signed anew. Errors: Trouble."""
    check_pending(known)
    old = entry.commit
    digests = {"peers": old.peers, "ruleset": old.ruleset, "rules": old.rules}
    statement = _statement(box, known, said, confirm, digests, old.revision)
    return _hand_over(box, statement, Sections(b"", b"", b""), False)


def _statement(
    box: Box, known: Known, said: str, confirm: int, digests: Mapping[str, bytes], restores: int = 0
) -> Commit:
    try:
        comment(said)
    except ValueError as error:
        raise Trouble(Exit.USAGE, f"the comment {error}") from None
    return Commit(
        box=bytes.fromhex(box.context.box),
        revision=known.revision + 1,
        follows=known.digest,
        roster=known.roster.serial,
        at=identity.now_ms(),
        by=box.context.administrator,
        comment=said,
        confirm=confirm,
        restores=restores,
        **digests,
    )


def _hand_over(box: Box, statement: Commit, sections: Sections, is_rehearsal: bool) -> Committed:
    # What is only to be tried is signed as that: nobody on the way can put it in force
    signed = sign(Rehearse(*statement) if is_rehearsal else statement, box.context.seed())
    header = pb.SubmitHeader(
        statement=signed.statement,
        signature=signed.signature,
        peers=len(sections.peers),
        ruleset=len(sections.ruleset),
        rules=len(sections.rules),
    )
    content: dict[int, bytes] = {
        chain.PEERS: sections.peers,
        chain.RULESET: sections.ruleset,
        chain.RULES: sections.rules,
    }
    what = "the rehearsal of the commit" if is_rehearsal else "the commit"
    with say.progress(f"sending {say.amount(sum(map(len, sections)))}") as tell:

        def requests() -> Iterable[Any]:
            yield pb.SubmitRequest(header=header)
            yield from pieces(content, tell)

        reply = box.send(box.configuration.Submit, requests(), what)
    return Committed(reply.number, reply.kept, reply.ended, statement.confirm)


def confirm(box: Box, known: Known) -> Committed:
    """The commit that waits stays. Errors: Trouble."""
    entry = known.find(known.revision)
    if not known.confirm_left_ms or entry is None:
        raise Trouble(Exit.REFUSED, "no commit waits to be confirmed", "septumctl config history", reason="UNKNOWN")
    context = box.context
    statement = Confirm(
        box=bytes.fromhex(context.box),
        revision=known.revision,
        commit=entry.digest,
        roster=known.roster.serial,
        at=identity.now_ms(),
        by=context.administrator,
    )
    signed = sign(statement, context.seed())
    header = pb.SubmitHeader(statement=signed.statement, signature=signed.signature)
    reply = box.send(box.configuration.Submit, [pb.SubmitRequest(header=header)], "the confirmation to be taken")
    return Committed(reply.number, reply.kept, reply.ended, 0)


# differences ----------------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """What ``after`` makes of ``before``. ``packets``: what is treated otherwise, None if it was not looked at."""

    peers: Sequence[PeerChange]
    rules: Sequence[str]  # a unified diff
    packets: Sequence[Mapping[str, str]] | None
    gave_up: int

    def __bool__(self) -> bool:
        return bool(self.peers or self.rules or self.packets)


def compare(
    before: Configuration, after: Configuration, names: tuple[str, str], with_packets: bool = True
) -> Difference:
    """Errors: Trouble (INVALID) if the rules of ``after`` cannot be read."""
    first, second = (f"rules, {name}" for name in names)
    lines = list(unified_diff(before.rules.splitlines(), after.rules.splitlines(), first, second, lineterm=""))
    changes = configuration.peer_changes(before.peers, after.peers)
    packets, gave_up = None, 0
    if with_packets:
        packets, gave_up = _packets(before, after)
    return Difference(changes, lines, packets, gave_up)


def _packets(before: Configuration, after: Configuration) -> tuple[list[dict[str, str]], int]:
    from appliance.rules.diff import diff

    with say.progress("reading both rule sets") as tell:
        old = configuration.compile_rules(before, lambda done: tell(done / 2)).ruleset
        new = configuration.compile_rules(after, lambda done: tell(0.5 + done / 2)).ruleset
    if old == new:
        return [], 0
    names = {peer.number: peer.name for one in (before, after) for peer in one.peers}
    with say.progress("looking which packets are treated otherwise") as tell:
        found = diff(old, new, time.time(), names, tell)
    rows = [
        {
            "before": _decides(old, change.before),
            "after": _decides(new, change.after),
            "example": change.example,
        }
        for change in found.changes
    ]
    return rows, len(found.gave_up)


def _decides(rules: Any, trail: Sequence[Any]) -> str:
    from components.filter.model import Action

    last = trail[-1]
    does = last.action.name.lower() if isinstance(last.action, Action) else str(last.action)
    if not isinstance(last.action, Action):
        return does
    return f"{does} (line {rules.rules[last.number].line})" if last.number >= 0 else f"{does} (no rule)"


def difference_as_json(found: Difference) -> dict[str, Any]:
    return {
        "peers": [
            {
                "change": change.kind,
                "before": configuration.as_json(change.before) if change.before else None,
                "after": configuration.as_json(change.after) if change.after else None,
            }
            for change in found.peers
        ],
        "rules": list(found.rules),
        "packets": found.packets,
        "gave_up": found.gave_up,
    }


_STYLES: Final = {"added": "green", "removed": "red", "changed": "yellow"}
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}


def show_difference(found: Difference, everything: bool = False) -> None:
    """For people."""
    if not found:
        say.note("nothing differs")
        return
    shown = found.peers if everything else found.peers[:_SHOWN_PEERS]
    for change in shown:
        _show_peer(change)
    if len(found.peers) > len(shown):
        say.hint(f"  and {len(found.peers) - len(shown):,} more peers: --all shows them")
    for line in found.rules:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        say.out.print(
            say.Text("".join(say.clean_lines(line)), style="bold" if line.startswith(("+++", "---")) else style),
            soft_wrap=True,
        )
    _show_packets(found, everything)


def _show_peer(change: PeerChange) -> None:
    peer = change.after or change.before
    assert peer is not None  # one of them is there
    head = say.Text.assemble((f"{_SIGNS[change.kind]} peer {peer.name}", f"bold {_STYLES[change.kind]}"))
    if change.kind == "changed":
        say.out.print(head)
        for field, old, new in change.fields():
            line = say.Text.assemble(f"    {field}: ", (old or "none", "red"), " -> ", (new or "none", "green"))
            say.out.print(line, soft_wrap=True)
        return
    head.append(f"  {', '.join(peer.allowed_ips) or 'no addresses'}")
    head.append(f"  {peer.endpoint}" if peer.endpoint else "")
    say.out.print(head, soft_wrap=True)


def _show_packets(found: Difference, everything: bool) -> None:
    if found.packets is None:
        return
    if found.rules and not found.packets and not found.gave_up:
        say.hint("No packet is treated otherwise.")
    rows = found.packets if everything else found.packets[:_SHOWN_PACKETS]
    if rows:
        say.out.print(say.Text("Packets that are treated otherwise, an example each:", style="bold"))
    for row in rows:
        line = say.Text.assemble(
            "  ",
            (row["before"], _verdict(row["before"])),
            " -> ",
            (row["after"], _verdict(row["after"])),
            f": {row['example']}",
        )
        say.out.print(line, soft_wrap=True)
    if len(found.packets) > len(rows):
        say.hint(f"  and {len(found.packets) - len(rows):,} more: --all shows them")
    if found.gave_up:
        say.warn(
            f"of {say.plural(found.gave_up, 'rule')} it is too much work to say what becomes of all that they match"
        )


def _verdict(text: str) -> str:
    return {"allow": "green", "drop": "red", "reject": "yellow"}.get(text.split(" ", maxsplit=1)[0], "")


__all__ = ["Signed", "change", "commit", "compare", "confirm", "restore", "show_difference"]
