"""Reading back what was kept. The store is the next domain, and may be hostile: what it has is looked at as if somebody
had just brought it, signatures and chains and all.

It can lose everything, or show what was there some time ago; that, nothing in the box can tell. It cannot make
anything up: not a commit, not that one was confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s

from appliance.signed import canonical
from appliance.signed.refusal import Refusal
from appliance.signed.roster import Roster
from appliance.signed.statements import NONE, Confirm, Signed, parse
from appliance.signed.trust import Trust
from components.config.book import Book, Head, Leaf, decode_head
from components.config.effects import Steps
from components.config.pages import Damaged, Pages, Ref
from components.config.records import CommitRecord, Fate, Record, commit_of, unpack


def load(pages: Pages, trust: Trust) -> Steps[tuple[Roster, Book, tuple[int, ...]]]:
    """Roster, book, and the spare pages. Errors: Away, Damaged."""
    roster = Roster(trust)
    untrusted = yield from pages.read_head()
    if untrusted is None:
        return roster, Book(), ()
    head = decode_head(untrusted)
    roster_leaves, roster_records = yield from _read(pages, head.roster)
    commit_leaves, commit_records = yield from _read(pages, head.commits)
    book = Book(
        statements=_replayed(roster, roster_records),
        commits=_chained(commit_records),
        active=head.active,
        before=head.before,
        deadline=head.deadline,
        sections=head.sections,
        roster_leaves=roster_leaves,
        commit_leaves=commit_leaves,
    )
    _check(book, roster, head)
    return roster, book, head.spare


def _read(pages: Pages, refs: Iterable[Ref]) -> Steps[tuple[tuple[Leaf, ...], list[Record]]]:
    leaves: list[Leaf] = []
    records: list[Record] = []
    for ref in refs:
        untrusted = yield from pages.read(ref)
        records += unpack(untrusted)
        leaves.append(Leaf(blake2s(untrusted).digest(), ref))
    return tuple(leaves), records


def _replayed(roster: Roster, records: Iterable[Record]) -> tuple[Signed, ...]:
    try:
        for record in records:
            roster.take(record.signed, None)
    except Refusal as refusal:
        raise Damaged(f"the roster is not what was signed: {refusal}") from None
    return tuple(record.signed for record in records)


def _chained(records: Iterable[Record]) -> tuple[CommitRecord, ...]:
    """The commits, each behind the one that it follows; the first may follow one that is kept no more."""
    chain: list[CommitRecord] = []
    follows, revision, serial = NONE, 0, 0
    for record in records:
        commit = commit_of(record)
        is_next = commit.revision == revision + 1 and commit.follows == follows
        if (not is_next and chain) or commit.roster < serial:
            raise Damaged(f"revision {commit.revision} does not follow {revision}")
        follows, revision, serial = canonical.digest(record.signed.statement), commit.revision, commit.roster
        chain.append(CommitRecord(commit, record))
    return tuple(chain)


def _check(book: Book, roster: Roster, head: Head) -> None:
    """That what is in force was signed, and is in force rightly. Errors: Damaged."""
    if any(one.record.fate is Fate.AWAITS for one in book.commits[:-1]):
        raise Damaged("a commit waits to be confirmed that others follow")
    if book.is_pending != bool(head.deadline) or (book.before and not book.is_pending):
        raise Damaged("the head does not know whether a commit waits to be confirmed")
    if book.is_pending and (head.active != book.revision or head.before >= head.active):
        raise Damaged("a commit waits to be confirmed that is not in force")
    for one in book.commits:
        if one.commit.revision > head.active:
            _check_rolled_back(one, roster)
    for revision in (head.active, head.before):
        if revision:
            _check_in_force(book.find(revision), book, roster)


def _check_rolled_back(found: CommitRecord, roster: Roster) -> None:
    """A commit behind that in force was rolled back, and asked for it; or the store has put back an older one."""
    if found.record.fate is not Fate.ROLLED_BACK or not found.commit.confirm:
        raise Damaged(f"revision {found.commit.revision} should be in force, or one behind it")
    try:
        roster.vouch(found.record.signed, found.commit)
    except Refusal as refusal:
        raise Damaged(f"revision {found.commit.revision} is not what was signed: {refusal}") from None


def _check_in_force(found: CommitRecord | None, book: Book, roster: Roster) -> None:
    if found is None or not book.has_content(found.commit):
        raise Damaged("what is in force is not there")
    record, commit = found.record, found.commit
    try:
        roster.vouch(record.signed, commit)
        if record.fate is Fate.CONFIRMED:
            confirm = parse(record.confirmation.statement)
            digest = canonical.digest(record.signed.statement)
            if not isinstance(confirm, Confirm) or (confirm.revision, confirm.commit) != (commit.revision, digest):
                raise Damaged(f"revision {commit.revision} was confirmed by something else")
            roster.vouch(record.confirmation, confirm)
    except Refusal as refusal:
        raise Damaged(f"revision {commit.revision} is not what was signed: {refusal}") from None
    if record.fate is Fate.ROLLED_BACK or (commit.confirm and record.fate is Fate.STANDS):
        raise Damaged(f"revision {commit.revision} is in force, and should not be")
