"""What a box shows of its roster and its commits, believed only as far as it is signed.

The part of the box that we speak to could be anybody's. So every statement is checked here, from the console's key on,
each following the one before; and what was seen once is remembered: a box that later shows less, or something else in
its place, is not believed. What only the box can know (whether a commit was rolled back) is held against what the
signed commits allow.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from septum.admin.v1 import admin_pb2 as pb

from appliance.ctl import say
from appliance.ctl.connection import TRANSFER, Box
from appliance.ctl.contexts import Context
from appliance.ctl.trouble import Exit, Trouble
from appliance.signed import canonical
from appliance.signed.refusal import Refusal
from appliance.signed.roster import Roster, Trust
from appliance.signed.statements import NONE, Commit, RosterStatement, Signed, parse

_PAGE: Final = 200
_ATTEMPTS: Final = 20  # to read head and history while others commit

PEERS: Final[int] = pb.SECTION_PEERS
RULESET: Final[int] = pb.SECTION_RULESET
RULES: Final[int] = pb.SECTION_RULES
_FIELDS: Final = {PEERS: "peers", RULESET: "ruleset", RULES: "rules"}
_MOST: Final = {PEERS: 4 << 20, RULESET: 4 << 20, RULES: 1 << 20}

FATES: Final[Mapping[int, str]] = {
    pb.FATE_STANDS: "stands",
    pb.FATE_AWAITS: "waits to be confirmed",
    pb.FATE_CONFIRMED: "confirmed",
    pb.FATE_ROLLED_BACK: "rolled back",
}


class Unbelievable(Trouble):
    """The box shows what cannot be."""

    def __init__(self, why: str) -> None:
        then = "look at the box itself (septum ps; septum logs): its `admin` may be somebody else's. Nothing was sent"
        super().__init__(Exit.NOT_BELIEVED, why, then)


class Entry(NamedTuple):
    """A commit of the history: ``commit`` and who made it are signed, ``fate`` is the box's word."""

    commit: Commit
    signed: Signed
    fate: int
    fate_at: int
    has_content: bool

    @property
    def digest(self) -> bytes:
        return canonical.digest(self.signed.statement)


@dataclass(frozen=True)
class Known:
    """Where a box stands. ``entries``: the newest commits, newest first, down to the one in force at the least."""

    roster: Roster
    statements: tuple[tuple[RosterStatement, Signed], ...]  # of the roster, from the first
    revision: int  # of the last commit; 0: there is none yet
    digest: bytes  # of its statement
    active: int  # the revision in force
    oldest: int  # whose statement the box still has
    confirm_left_ms: int
    entries: tuple[Entry, ...]

    @property
    def in_force(self) -> Entry | None:
        """The commit in force; None before the first."""
        return self.find(self.active)

    def find(self, revision: int) -> Entry | None:
        return next((one for one in self.entries if one.commit.revision == revision), None)


def look(box: Box, down_to: int = 0, most: int = 1) -> Known:
    """Where the box stands, with the ``most`` newest commits, and all down to revision ``down_to`` if that is not 0.

    Errors: Trouble.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0, 0.05 * attempt))
        seen = box.context.seen()  # before the box is asked: another of our commands may see more meanwhile
        head = box.ask(box.configuration.GetHead, pb.GetHeadRequest(), "the head of the configuration")
        known = _read(box, head, max(seen.get("revision", 0), head.oldest), down_to, most)
        if known is not None:
            _compare(seen, known)
            box.context.remember_newest(
                {
                    "serial": known.roster.serial,
                    "roster_digest": known.roster.digest.hex(),
                    "revision": known.revision,
                    "digest": known.digest.hex(),
                }
            )
            return known
    raise Trouble(Exit.OVERTAKEN, "others commit faster than the history can be read", "the same again")


Replayed = tuple[Roster, list[tuple[RosterStatement, Signed]]]


def roster_of(box: Box, serial: int = 0, digest: bytes = b"") -> Replayed:
    """The roster as the box shows it, replayed from the console's key on. What was read before is not read again if its
    last statement has this serial and digest. Errors: Trouble.
    """
    context = box.context
    with contextlib.suppress(Refusal):
        found = _replay(context, [Signed(*one) for one in context.roster()])
        if serial and (found[0].serial, found[0].digest) == (serial, digest):
            return found
    shown = [Signed(one.statement, one.signature) for one in _statements(box, pb.CHAIN_ROSTER, "the roster", _PAGE)]
    shown.reverse()
    try:
        found = _replay(context, shown)
    except Refusal as refusal:
        raise Unbelievable(f"a statement of the roster that it shows is false: {refusal}") from None
    context.keep_roster(shown)
    return found


def _replay(context: Context, statements: Sequence[Signed]) -> Replayed:
    """Errors: Refusal."""
    roster = Roster(Trust(bytes.fromhex(context.box), bytes.fromhex(context.console)))
    return roster, [(roster.take(signed, None), signed) for signed in statements]


def _statements(box: Box, chain: Any, what: str, at_once: int) -> Iterator[Any]:
    """From the newest to the oldest that is kept."""
    before = 0
    while True:
        request = pb.ListHistoryRequest(chain=chain, before=before, page_size=min(at_once, _PAGE))
        page = box.ask(box.configuration.ListHistory, request, what).statements
        yield from page
        if not page:
            return
        oldest = _number(page[-1])
        if before and oldest >= before:
            raise Unbelievable(f"it shows {what} without an end")
        before = oldest
        if before <= 1:
            return


def _number(shown: Any) -> int:
    try:
        statement = parse(shown.statement)
    except Refusal as refusal:
        raise Unbelievable(f"it shows a statement that is none: {refusal}") from None
    return int(getattr(statement, "serial", 0) or getattr(statement, "revision", 0))


def _read(box: Box, head: Any, seen: int, down_to: int, most: int) -> Known | None:
    """None if head and history do not belong together: somebody came in between."""
    roster, statements = roster_of(box, head.serial, bytes(head.roster_digest))
    if (roster.serial, roster.digest) != (head.serial, bytes(head.roster_digest)):
        return None
    lowest = min(head.active or head.revision, seen or head.revision)
    lowest = min(lowest, down_to or lowest)
    entries: list[Entry] = []
    if head.revision:
        at_once = max(most, head.revision - lowest + 1)
        for shown in _statements(box, pb.CHAIN_COMMITS, "the history", at_once):
            entries.append(_entry(roster, shown, entries[-1] if entries else None))
            if entries[0].commit.revision != head.revision or entries[0].digest != bytes(head.digest):
                return None
            if len(entries) >= most and entries[-1].commit.revision <= lowest:
                break
    known = Known(
        roster,
        tuple(statements),
        head.revision,
        bytes(head.digest) if head.revision else NONE,
        head.active,
        head.oldest,
        head.confirm_left_ms,
        tuple(entries),
    )
    _check_active(known)
    return known


def _entry(roster: Roster, shown: Any, newer: Entry | None) -> Entry:
    signed = Signed(shown.statement, shown.signature)
    try:
        commit = parse(signed.statement)
        if not isinstance(commit, Commit):
            raise Unbelievable("it shows something else than a commit in its history")
        roster.vouch(signed, commit)
    except Refusal as refusal:
        raise Unbelievable(f"a commit of the history that it shows is false: {refusal}") from None
    entry = Entry(commit, signed, shown.fate, shown.fate_at, shown.has_content)
    if newer is not None and (newer.commit.revision != commit.revision + 1 or newer.commit.follows != entry.digest):
        raise Unbelievable(
            f"revision {newer.commit.revision} follows another one than revision {commit.revision} shown"
        )
    if newer is not None and newer.commit.roster < commit.roster:
        why = f"revision {newer.commit.revision} was signed under an older roster than the one before it"
        raise Unbelievable(f"{why}: by {newer.commit.by}, who may have been revoked since")
    return entry


def _check_active(known: Known) -> None:
    """Only a commit that asked to be confirmed can have been rolled back by itself."""
    if known.active > known.revision:
        raise Unbelievable(f"it says that revision {known.active} is in force, and shows none after {known.revision}")
    for entry in known.entries:
        if entry.commit.revision > known.active and not entry.commit.confirm:
            raise Unbelievable(
                f"it says that revision {known.active} is in force; but {entry.commit.revision} came later, and did "
                "not ask to be confirmed"
            )
    if known.revision and known.active and known.in_force is None:
        raise Unbelievable(f"it says that revision {known.active} is in force, and does not show it")


def _compare(seen: Mapping[str, Any], known: Known) -> None:
    """Holds what the box shows against what it showed before. Errors: Unbelievable."""
    serial, revision = seen.get("serial", 0), seen.get("revision", 0)
    if serial > known.roster.serial:
        raise Unbelievable(f"it shows a roster of {known.roster.serial} statements; once it had {serial}")
    if serial and canonical.digest(known.statements[serial - 1][1].statement).hex() != seen.get("roster_digest"):
        raise Unbelievable(f"it shows another roster than before: statement {serial} is not what it was")
    if revision > known.revision:
        raise Unbelievable(f"it shows no revision after {known.revision}; once it showed {revision}")
    again = known.find(revision)
    if again is not None and again.digest.hex() != seen.get("digest"):
        raise Unbelievable(f"it shows another history than before: revision {revision} is not what it was")


def section(box: Box, commit: Commit, which: int, tell: Callable[[float], None] = lambda done: None) -> bytes:
    """A section of a commit, which is what was signed; downloaded only if it is not known already. Errors: Trouble."""
    wanted: bytes = getattr(commit, _FIELDS[which])
    kept = box.context.section(wanted.hex())
    if kept is not None and canonical.digest(kept) == wanted:
        return kept
    request = pb.DownloadRequest(revision=commit.revision, section=pb.Section.ValueType(which))
    content = bytearray()
    what = f"the {_FIELDS[which]} of revision {commit.revision}"
    for piece in box.stream(box.configuration.Download, request, what, TRANSFER):
        content += piece.data
        tell(len(content) / max(piece.total, 1))
        if len(content) > _MOST[which]:
            raise Unbelievable(f"{what} have no end")
    if canonical.digest(content) != wanted:
        raise Unbelievable(f"{what} are not those that {commit.by} signed")
    box.context.keep_section(wanted.hex(), bytes(content))
    return bytes(content)


def content(box: Box, commit: Commit, *which: int) -> list[bytes]:
    """Sections of a commit, with how far their download is. Errors: Trouble."""
    found = []
    for number, one in enumerate(which):
        with say.progress(f"downloading {_FIELDS[one]}, {number + 1} of {len(which)}") as tell:
            found.append(section(box, commit, one, tell))
    return found
