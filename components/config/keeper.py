"""What becomes of a signed statement. One thing at a time, each to its end or as if it had not begun.

A commit goes: is it signed, and does it follow? · every domain has it and agrees (prepare) · it is on the disk · every
domain goes by it (apply). The disk is where it is decided: before that whatever goes wrong ends it and nothing has
changed; behind that it is so, and a domain that was not told is brought in step until it is. The same for a rollback,
which nobody has to agree to, and for the roster. Whoever dies in between wakes up in one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from septum.v1.applying import Abandon, Apply, Enlist, Revert, Settle

from appliance.signed import canonical
from appliance.signed.refusal import Refusal, Why
from appliance.signed.roster import Roster
from appliance.signed.statements import Commit, Confirm, Rehearse, Rekey, Signed, parse
from appliance.signed.trust import Trust
from components.config import loading
from components.config.book import MOST_SECTIONS, RESERVE, SECTIONS, Book, Place, digests, encode_head
from components.config.effects import DOMAINS, Away, Now, Rest, Steps, Time
from components.config.pages import LARGEST_HEAD, PAGE, PAGES, Damaged, Pages
from components.config.records import CommitRecord, Fate, Record
from components.config.stepping import OutOfStep, bring_in_step, make_ready, prepare, say

_SLACK: Final = 8  # pages that statements take beside the sections, at most
_RETRY: Final = 1.0  # seconds
_FRESH: Final = 3_600_000  # milliseconds: what was signed longer ago, somebody has kept back
_APPLY: Final = 10.0  # seconds: a hundred thousand flows are judged anew


class Accepted(NamedTuple):
    """``number`` is the revision or serial. ``kept`` and ``ended``: flows of the filter."""

    number: int
    kept: int = 0
    ended: int = 0


class Note(NamedTuple):
    """A line for the log; ``severity`` is the name of a method of ``guest.log``."""

    severity: str
    event: str
    text: str


class Keeper:
    """What is in force, and who has heard of it."""

    def __init__(self, trust: Trust) -> None:
        self.roster = Roster(trust)
        self.book = Book()
        self.pages = Pages()
        self.in_step: set[str] = set()  # ports of domains that go by the book
        self.expires: float | None = None  # of the clock that only goes forward: when the last commit is rolled back
        self.rollbacks = 0
        self.notes: list[Note] = []
        self.expected = 0  # calls that the statement being worked on takes, about
        self._trust = trust
        self._spare: tuple[int, ...] = ()
        self._troubles: dict[str, str] = {}  # by port

    # the store --------------------------------------------------------------------------------------------------------

    def load(self) -> Steps[None]:
        """Reads what is kept, and looks at it as if somebody had just brought it. Errors: Away, Damaged."""
        self.in_step.clear()
        self.expires = None
        self.roster, self.book, self._spare = yield from loading.load(self.pages, self._trust)
        self.pages.use(self.book.refs(), self._spare)
        if self.book.is_pending:
            now: Now = yield Time()
            # A clock that went back gives no more time than there was
            left = min(max(0, self.book.deadline - now.wall), self.book.commits[-1].commit.confirm * 1000)
            self.expires = now.now + left / 1000

    def _persist(self, book: Book, coming: Mapping[bytes, bytes]) -> Steps[None]:
        """Makes ``book``, with the sections that are ``coming``, what is kept. Errors: Away, Refusal: then nothing has
        changed.
        """
        try:
            sections = dict(book.sections)
            for digest, section in coming.items():
                sections[digest] = Place(len(section), tuple((yield from self.pages.write(section))))
            book = yield from book._replace(sections=sections).write(self.pages)
            used = {ref.page for ref in book.refs()}
            spare = tuple(sorted({ref.page for ref in self.book.refs()} - used))
            head = encode_head(book, spare)
            if len(head) > LARGEST_HEAD:
                raise Refusal(Why.NO_ROOM, "there are more pages and sections than one head refers to")
            yield from self.pages.write_head(head)
        except (Away, Refusal):
            self.pages.use(self.book.refs(), self._spare)  # what was written is nobody's
            raise
        self.book, self._spare = book, spare
        self.pages.use(book.refs(), spare)

    def _make_room(self, coming: Mapping[bytes, bytes]) -> Steps[None]:
        """Gives up the content of old revisions, if what is coming needs their pages. Errors: Away, Refusal."""
        needed = _SLACK + sum(-(-len(section) // PAGE) for section in coming.values())
        if self.pages.free >= needed and len(self.book.sections) + len(coming) <= MOST_SECTIONS:
            return
        book = self.book
        while PAGES - len(list(book.refs())) < max(needed, RESERVE) or len(book.sections) + len(
            coming
        ) > MOST_SECTIONS - len(SECTIONS):
            smaller = book.without_old_content(frozenset({book.active, book.before}))
            if smaller is None:
                break
            book = smaller
        yield from self._persist(book, {})
        yield from self._persist(self.book, {})  # now the head before has let go of them too
        if self.pages.free < needed:
            raise Refusal(Why.NO_ROOM, "the box has no room for it beside the configuration in force")

    # domains ----------------------------------------------------------------------------------------------------------

    def step(self, port: str) -> Steps[None]:
        """Brings the domain at ``port`` in step, or says why it is not. Errors: Away."""
        try:
            yield from bring_in_step(port, self.book, self.pages)
        except (Refusal, OutOfStep, Damaged) as failure:
            if self._troubles.get(port) != str(failure):  # it is tried again, and said once
                self._troubles[port] = str(failure)
                self._note("error", "out-of-step", f"{port}: {failure}")
            return
        self._troubles.pop(port, None)
        self.in_step.add(port)
        self._note("info", "in-step", f"{port}: revision {self.book.active}, roster {len(self.book.statements)}")

    def lost(self, port: str) -> None:
        """The domain at ``port`` is gone, or about to be another one."""
        self.in_step.discard(port)

    def _tell(self, port: str, **word: Any) -> Steps[Any]:
        """Tells the domain what is decided already; one that does not take it is out of step."""
        try:
            return (yield from say(port, _APPLY, **word))
        except (Away, Refusal) as failure:
            self.in_step.discard(port)
            self._note("warning", "out-of-step", f"{port}: {failure}")
            return None

    def _tell_all(self, **word: Any) -> Steps[None]:
        for port in DOMAINS:
            if port in self.in_step:
                yield from self._tell(port, **word)

    def _note(self, severity: str, event: str, text: str) -> None:
        self.notes.append(Note(severity, event, text))

    # statements -------------------------------------------------------------------------------------------------------

    def take(self, signed: Signed, coming: Mapping[bytes, bytes]) -> Steps[Accepted]:
        """Does what ``signed`` says. ``coming``: sections by digest.

        Errors: Refusal: nothing has changed.
        """
        try:
            statement = parse(signed.statement)
            now: Now = yield Time()
            if abs(now.wall - statement.at) > _FRESH:
                text = f"was signed at {statement.at}, and here it is {now.wall}: is your clock right? Sign again"
                raise Refusal(Why.STALE, text, "at")
            if isinstance(statement, Commit | Rehearse):
                return (yield from self._commit(signed, statement, coming))
            if isinstance(statement, Confirm):
                return (yield from self._confirm(signed, statement))
            return (yield from self._enlist(signed))
        except Away as away:
            raise Refusal(Why.AWAY, f"{away}: nothing has changed") from None

    def is_next(self, signed: Signed) -> None:
        """Errors: Refusal (STALE) for a commit that follows another one than the last, whoever signed it: of many that
        come at once for the same place all but one are told so without any work.
        """
        statement = parse(signed.statement)
        if isinstance(statement, Commit | Rehearse) and statement.follows != self.book.digest:
            raise self._overtaken()

    def _overtaken(self) -> Refusal:
        return Refusal(Why.STALE, f"does not follow revision {self.book.revision}: somebody was faster", "follows")

    def _commit(self, signed: Signed, said: Commit | Rehearse, coming: Mapping[bytes, bytes]) -> Steps[Accepted]:
        """A commit; or one that is rehearsed, which goes as far as one can without changing anything."""
        self.roster.vouch(signed, said)
        rehearse, commit = isinstance(said, Rehearse), Commit(*said)
        self._check(commit)
        new = {}
        for section in SECTIONS:
            digest: bytes = getattr(commit, section)
            if not self.book.has(digest):
                if digest not in coming:
                    raise Refusal(Why.INVALID, "did not come as it was signed, and is not kept", section)
                new[digest] = coming[digest]
        known = {}
        for port in DOMAINS:
            known[port] = yield from self._ready(port)
        pieces = sum(-(-len(section) // PAGE) for section in new.values())
        self.expected = 2 * len(DOMAINS) + 3 + pieces * (1 if rehearse else 2)
        if not rehearse:
            yield from self._make_room(new)
        record = CommitRecord(commit, Record(signed, Fate.AWAITS if commit.confirm else Fate.STANDS))
        try:
            for port in DOMAINS:
                yield from prepare(port, record, known[port], self.book, self.pages, new)
            if rehearse:
                yield from self._tell_all(abandon=Abandon())
                return Accepted(commit.revision)
            now: Now = yield Time()
            book = self.book._replace(commits=(*self.book.commits, record), active=commit.revision)
            if commit.confirm:
                book = book._replace(before=self.book.active, deadline=now.wall + commit.confirm * 1000)
            yield from self._persist(book, new)
        except (Away, Refusal):
            yield from self._tell_all(abandon=Abandon())
            raise
        self.expires = now.now + commit.confirm if commit.confirm else None
        return (yield from self._apply(commit))

    def _ready(self, port: str) -> Steps[CommitRecord | None]:
        """What the domain at ``port`` goes by, which can be asked now to take something else. One that is out of step
        may be so because it does not take what is in force: no reason not to give it something better.
        """
        if port not in self.in_step:
            yield from self.step(port)
        if port in self.in_step:
            return self.book.find(self.book.active)
        try:
            return (yield from make_ready(port, self.book))
        except OutOfStep as out:
            raise Refusal(Why.AWAY, f"{port}: {out}. Nothing has changed") from None

    def _check(self, commit: Commit) -> None:
        """Whether ``commit`` comes next, and would change anything. Errors: Refusal."""
        book = self.book
        if commit.revision != book.revision + 1 or commit.follows != book.digest:
            raise self._overtaken()
        if commit.roster != self.roster.serial:
            raise Refusal(Why.STALE, f"is not the last, {self.roster.serial}: sign again", "roster")
        if book.is_pending:
            raise Refusal(Why.PENDING, f"revision {book.revision} waits to be confirmed, or to be rolled back")
        if commit.restores >= commit.revision:
            raise Refusal(Why.UNKNOWN, "is no revision before this one", "restores")
        active = book.find(book.active)
        if active is not None and digests(active.commit) == digests(commit):
            raise Refusal(Why.UNCHANGED, f"says what revision {book.active} says, which is in force")

    def _apply(self, commit: Commit) -> Steps[Accepted]:
        kept = ended = 0
        for port in DOMAINS:
            done = yield from self._tell(port, apply=Apply(revision=commit.revision))
            if done is not None:
                self.in_step.add(port)
                if port == "ruleset":
                    kept, ended = done.kept, done.ended
        waits = f", for {commit.confirm} s unless it is confirmed" if commit.confirm else ""
        text = f"revision {commit.revision} by {commit.by} is in force{waits}; {kept} flows live on, {ended} ended"
        self._note("info", "commit", text)
        return Accepted(commit.revision, kept, ended)

    def _confirm(self, signed: Signed, confirm: Confirm) -> Steps[Accepted]:
        self.roster.vouch(signed, confirm)
        found = self.book.find(confirm.revision)
        if found is None:
            raise Refusal(Why.UNKNOWN, "is not there", "revision")
        if confirm.commit != canonical.digest(found.record.signed.statement):
            raise Refusal(
                Why.STALE, f"is not the commit that revision {confirm.revision} is: look at it again", "commit"
            )
        if found.record.fate is Fate.CONFIRMED:
            raise Refusal(Why.UNCHANGED, f"{confirm.revision} is confirmed already", "revision")
        if found.record.fate is not Fate.AWAITS:
            raise Refusal(Why.UNKNOWN, f"{confirm.revision} does not wait to be confirmed", "revision")
        if confirm.roster != self.roster.serial:
            raise Refusal(Why.STALE, f"is not the last, {self.roster.serial}: sign again", "roster")
        now: Now = yield Time()
        record = Record(found.record.signed, Fate.CONFIRMED, now.wall, signed)
        yield from self._persist(self.book.with_last(record)._replace(before=0, deadline=0), {})
        self.expires = None
        self._note("info", "confirmed", f"revision {confirm.revision} by {confirm.by}")
        yield from self._tell_all(settle=Settle(revision=confirm.revision))
        return Accepted(confirm.revision)

    def roll_back(self) -> Steps[None]:
        """Nobody confirmed the last commit in time: what was before is in force again. Nothing holds that up: where it
        cannot be written down, it is done, and written down as soon as it can be.
        """
        now: Now = yield Time()
        last = self.book.commits[-1]
        record = last.record._replace(fate=Fate.ROLLED_BACK, fate_at=now.wall)
        book = self.book.with_last(record)._replace(active=self.book.before, before=0, deadline=0)
        word = {"revert": Revert(revision=last.commit.revision)}
        while True:
            try:
                yield from self._persist(book, {})
                break
            except (Away, Refusal) as failure:
                self._note("error", "rollback", f"is not on the disk yet: {failure}")
                yield from self._tell_all(**word)
                yield Rest(_RETRY)
        self.expires = None
        self.rollbacks += 1
        self._note("warning", "rollback", f"nobody confirmed {last.commit.revision}: {book.active} is in force again")
        yield from self._tell_all(**word)

    def _ask_keymgr(self, signed: Signed) -> Steps[None]:
        """Has it the key? Once it is decided, it cannot say no. Errors: Away, Refusal."""
        if "peers" not in self.in_step:
            raise Refusal(Why.AWAY, "keymgr is not in step with what is in force. Nothing has changed")
        asked = Enlist(statement=signed.statement, signature=signed.signature, rehearse=True)
        yield from say("peers", _APPLY, enlist=asked)

    def _enlist(self, signed: Signed) -> Steps[Accepted]:
        now: Now = yield Time()
        statement = self.roster.check(signed, now.wall)
        if isinstance(statement, Rekey):
            yield from self._ask_keymgr(signed)
        yield from self._make_room({})
        yield from self._persist(self.book._replace(statements=(*self.book.statements, signed)), {})
        self.roster.take(signed, None)
        what = type(statement).__name__.lower()
        name = getattr(statement, "name", statement.by)
        self._note("info", "roster", f"{what} {name}, by {statement.by}: serial {statement.serial}")
        yield from self._tell_all(enlist=Enlist(statement=signed.statement, signature=signed.signature))
        return Accepted(statement.serial)
