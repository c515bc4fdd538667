"""A domain's end of ``applying``: signatures are looked at here, a section is prepared here, and applied at a word.

    nothing ── Begin, Chunk… ──► coming ── Prepare ──► prepared ── Apply ──► in force ── Revert ──► what was before
                                    └────── Abandon, Begin ◄──────┘              └────── Settle ──► for good

Whoever is at the other end can withhold and repeat; it cannot make up a section, apply one that this domain has not
prepared, or bring back one that was in force before, but for a commit that asked for it in its own, signed words.
A domain that was just born takes the one that it is handed: how fresh that is, it cannot know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from septum.v1.applying import (
    Apply,
    ApplyingRefused,
    ApplyingReply,
    ApplyingRequest,
    BeginSection,
    Chunk,
    Done,
    Enlist,
    Prepare,
    Revert,
    Settle,
)

from appliance.guest.settings import SettingsError
from appliance.signed import canonical
from appliance.signed.refusal import Refusal, Why
from appliance.signed.roster import Roster, Trust
from appliance.signed.statements import Commit, Rehearse, RosterStatement, Signed, parse
from appliance.vchan.message import cut

LARGEST_SECTION: Final = 4 << 20  # bytes, as the schema has it

Content = TypeVar("Content")


class Applied(NamedTuple):
    """What became of what was going on: flows or sessions that live on, and those that were ended."""

    kept: int = 0
    ended: int = 0


class _Version(NamedTuple):
    """A commit and what its section means."""

    commit: Commit | None  # None: nothing, as a domain is born
    statement: bytes
    content: Any


class Applier(Generic[Content]):
    """What is in force in this domain of ``section``, and what is about to be.

    ``prepare(bytes)`` makes content of a section and changes nothing (Errors: SettingsError naming the place);
    ``apply(content)`` puts it in force, and must not fail. ``nothing`` is what is in force before the first commit.
    ``admit`` is asked of a statement of the roster, before it is decided, if it makes sense here (Errors: Refusal).
    """

    def __init__(
        self,
        trust: Trust,
        section: Literal["peers", "ruleset"],
        nothing: Content,
        prepare: Callable[[bytes], Content],
        apply: Callable[[Content], Applied],
        admit: Callable[[RosterStatement], None] = lambda statement: None,
    ) -> None:
        self.roster = Roster(trust)
        self._section = section
        self._prepare_content = prepare
        self._apply_content = apply
        self._admit = admit
        self._in_force = _Version(None, b"", nothing)
        self._before: _Version | None = None  # to be reverted to
        self._prepared: _Version | None = None
        self._latest = 0  # revision: the highest that was ever in force here
        self._latest_digest = b""
        self._total = 0
        self._coming = bytearray()
        self._answers: dict[str, Callable[[Any], Done]] = {
            "enlist": self._enlist,
            "begin": self._begin,
            "chunk": self._chunk,
            "prepare": self._prepare,
            "apply": self._apply,
            "revert": self._revert,
            "settle": self._settle,
            "abandon": self._abandon,
        }

    @property
    def commit(self) -> Commit | None:
        """The commit in force; None before the first."""
        return self._in_force.commit

    @property
    def revision(self) -> int:
        """The revision in force; 0 before the first."""
        return self._in_force.commit.revision if self._in_force.commit else 0

    def answer(self, request: ApplyingRequest) -> ApplyingReply:
        """The reply to ``request``, which the channel has checked against its schema."""
        ask = request.WhichOneof("ask")
        assert ask is not None  # the schema has it so
        try:
            return ApplyingReply(done=self._answers[ask](getattr(request, ask)))
        except Refusal as refusal:
            return _refused(refusal.why, refusal.path, refusal.text)
        except SettingsError as error:
            return _refused(Why.INVALID, error.path, error.why)

    def forget(self) -> None:
        """Whoever was handing something over is gone: what was prepared is not to be."""
        self._prepared = None
        self._total = 0
        self._coming = bytearray()

    def _done(self, applied: Applied = Applied()) -> Done:  # noqa: B008 - a constant
        return Done(number=self.revision, kept=applied.kept, ended=applied.ended, serial=self.roster.serial)

    # the roster -------------------------------------------------------------------------------------------------------

    def _enlist(self, enlist: Enlist) -> Done:
        """One that was taken already may come again: whoever hands them over may have died in between."""
        signed = Signed(enlist.statement, enlist.signature)
        if enlist.rehearse:
            self._admit(self.roster.check(signed, None))
        elif canonical.digest(signed.statement) != self.roster.digest:
            self.roster.take(signed, None)
        return Done(number=self.roster.serial, serial=self.roster.serial)

    # a section --------------------------------------------------------------------------------------------------------

    def _begin(self, begin: BeginSection) -> Done:
        self.forget()
        self._total = begin.total
        return self._done()

    def _chunk(self, chunk: Chunk) -> Done:
        so_far, total = len(self._coming), self._total
        if chunk.offset != so_far or so_far + len(chunk.data) > total:
            self.forget()
            where = f"bytes {chunk.offset} to {chunk.offset + len(chunk.data)} after {so_far} of {total}"
            raise Refusal(Why.MALFORMED, f"{where}: begin again")
        self._coming += chunk.data
        return self._done()

    def _prepare(self, prepare: Prepare) -> Done:
        signed = Signed(prepare.statement, prepare.signature)
        section, total = self._coming, self._total
        if self._prepared is not None and self._prepared.statement == signed.statement and not total:
            return self._done()  # the same again: the answer came too late for who asked
        self.forget()
        if signed.statement == self._in_force.statement:
            self._prepared = self._in_force  # the same again: whoever carries them may have died in between
            return self._done()
        statement = parse(signed.statement)
        if not isinstance(statement, Commit | Rehearse):
            raise Refusal(Why.MALFORMED, "must be commit or rehearse", "kind")
        commit = self._believed(signed, statement)
        wanted: bytes = getattr(commit, self._section)
        in_force = self._in_force
        if in_force.commit is not None and getattr(in_force.commit, self._section) == wanted:
            content = in_force.content
        elif len(section) != total or canonical.digest(section) != wanted:
            raise Refusal(Why.INVALID, "is not the section that was signed", self._section)
        else:
            content = self._prepare_content(bytes(section))
        if isinstance(statement, Commit):
            self._prepared = _Version(commit, signed.statement, content)
        return self._done()

    def _believed(self, signed: Signed, statement: Commit | Rehearse) -> Commit:
        """The commit that was signed, or rehearsed, if who did may, and it is newer than any yet. Errors: Refusal."""
        self.roster.vouch(signed, statement)
        commit = Commit(*statement)
        if commit.revision <= self._latest:
            raise Refusal(Why.STALE, f"is not above the last, {self._latest}", "revision")
        if self._latest:
            if commit.roster != self.roster.serial:
                raise Refusal(Why.STALE, f"is not the last, {self.roster.serial}: sign again", "roster")
            # One that was rolled back may lie in between, unknown to who was born since
            if commit.revision == self._latest + 1 and commit.follows != self._latest_digest:
                raise Refusal(Why.STALE, f"does not follow revision {self._latest}", "follows")
        return commit

    def _apply(self, apply: Apply) -> Done:
        prepared, self._prepared = self._prepared, None
        if prepared is None or prepared.commit is None or prepared.commit.revision != apply.revision:
            if self.revision == apply.revision:
                return self._done()  # the same again
            raise Refusal(Why.UNKNOWN, "was not prepared", "revision")
        if prepared is self._in_force:
            return self._done()
        before, self._in_force = self._in_force, prepared
        self._before = before if prepared.commit.confirm else None
        self._latest = prepared.commit.revision
        self._latest_digest = canonical.digest(prepared.statement)
        return self._done(self._put_in_force(before.content))

    def _put_in_force(self, before: Content) -> Applied:
        content: Content = self._in_force.content
        return Applied() if content is before else self._apply_content(content)

    # back, or for good ------------------------------------------------------------------------------------------------

    def _revert(self, revert: Revert) -> Done:
        self.forget()
        if self._before is None or self.revision != revert.revision:
            raise Refusal(Why.UNKNOWN, "is not in force, or did not ask to be confirmed", "revision")
        undone, self._in_force, self._before = self._in_force, self._before, None
        return self._done(self._put_in_force(undone.content))

    def _settle(self, settle: Settle) -> Done:
        if self.revision == settle.revision:
            self._before = None
        return self._done()

    def _abandon(self, _: Any) -> Done:
        self.forget()
        return self._done()


def _refused(why: Why, path: str, text: str) -> ApplyingReply:
    return ApplyingReply(refused=ApplyingRefused(kind=int(why), path=cut(path, 256), why=cut(text, 1024)))
