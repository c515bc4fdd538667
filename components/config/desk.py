"""What admin asks, and hands over. Reading changes nothing; a statement is put on the desk, and worked on elsewhere.

Sections come in chunks and count for nothing until a statement speaks of them: by their digest, which is signed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from septum.v1 import configuring
from septum.v1.configuring import (
    AskSection,
    AskStatement,
    BeginSections,
    ConfiguringRefused,
    ConfiguringReply,
    ConfiguringRequest,
    ConfiguringTaken,
    Head,
    SectionChunk,
    SectionReply,
    StatementReply,
    Submit,
    Working,
)

from appliance.signed import canonical
from appliance.signed.refusal import Refusal, Why
from appliance.signed.statements import Signed
from appliance.vchan.message import cut
from components.config.book import NOTHING, SECTIONS
from components.config.keeper import Accepted, Keeper
from components.config.pages import PAGE, Ref
from components.config.records import Fate

_SECTIONS: Final = dict(enumerate(SECTIONS, 1))  # as enum Section
_CACHED: Final = 4  # pages
_LONGEST: Final = 2**32 - 1


class Submission(NamedTuple):
    """A statement to be worked on."""

    signed: Signed
    coming: dict[bytes, bytes]


class Desk:
    """The server's side of ``configuring``. ``read`` gives the bytes of a page. Errors of it: Refusal.

    ``why_not``: what keeps config from working at all, in words; empty if nothing does.
    """

    def __init__(self, keeper: Keeper, read: Callable[[Ref], bytes]) -> None:
        self._keeper = keeper
        self._read = read
        self._totals: dict[int, int] = {}
        self._coming: dict[int, bytearray] = {}
        self._cache: OrderedDict[Ref, bytes] = OrderedDict()
        self.why_not = "what is kept has not been read yet"
        self.submission: Submission | None = None
        self.steps = (0, 0)  # done, and of how many
        self._outcome: dict[str, Any] | None = None
        self._answers: dict[str, Callable[[Any, float], dict[str, Any]]] = {
            "begin": self._begin,
            "chunk": self._chunk,
            "submit": self._submit,
            "head": self._head,
            "statement": self._statement,
            "section": self._section,
            "outcome": self._ask_outcome,
        }

    def answer(self, request: ConfiguringRequest, now: float) -> ConfiguringReply:
        """The reply to ``request``, which the channel has checked against its schema."""
        ask = request.WhichOneof("ask")
        assert ask is not None  # the schema has it so
        try:
            if self.why_not:
                raise Refusal(Why.AWAY, self.why_not)
            return ConfiguringReply(**self._answers[ask](getattr(request, ask), now))
        except Refusal as refusal:
            return ConfiguringReply(refused=_refused(refusal))

    def forget(self) -> None:
        """Whoever was handing something over is gone. What is worked on goes on."""
        self._totals = {}
        self._coming = {}

    # handing over -----------------------------------------------------------------------------------------------------

    def _is_free(self) -> None:
        if self.submission is not None:
            raise Refusal(Why.PENDING, "another statement is being worked on: try again in a moment")

    def _begin(self, begin: BeginSections, now: float) -> dict[str, Any]:
        self._is_free()
        self._totals = {number: getattr(begin, name) for number, name in _SECTIONS.items()}
        self._coming = {number: bytearray() for number, total in self._totals.items() if total}
        return {"taken": ConfiguringTaken()}

    def _chunk(self, chunk: SectionChunk, now: float) -> dict[str, Any]:
        self._is_free()
        coming, total = self._coming.get(chunk.section), self._totals.get(chunk.section, 0)
        so_far = 0 if coming is None else len(coming)
        if coming is None or chunk.offset != so_far or so_far + len(chunk.data) > total:
            self.forget()
            where = f"bytes {chunk.offset} to {chunk.offset + len(chunk.data)} after {so_far} of {total}"
            raise Refusal(Why.MALFORMED, f"{where}: begin again", _SECTIONS[chunk.section])
        coming += chunk.data
        return {"taken": ConfiguringTaken(bytes=len(coming))}

    def _submit(self, submit: Submit, now: float) -> dict[str, Any]:
        self._is_free()
        sections = [bytes(coming) for number, coming in self._coming.items() if len(coming) == self._totals[number]]
        self.forget()
        signed = Signed(submit.statement, submit.signature)
        self._keeper.is_next(signed)
        coming = {canonical.digest(section): section for section in sections}
        self.submission = Submission(signed, coming)
        self.steps = (0, 0)
        self._outcome = None
        return {"working": Working()}

    def finish(self, outcome: Accepted | Refusal) -> None:
        """What became of the submission."""
        self.submission = None
        if isinstance(outcome, Refusal):
            self._outcome = {"refused": _refused(outcome)}
        else:
            self._outcome = {"accepted": configuring.Accepted(**outcome._asdict())}

    def _ask_outcome(self, ask: Any, now: float) -> dict[str, Any]:
        if self.submission is not None:
            done, of = self.steps
            return {"working": Working(done=min(done, 65536), of=min(max(done, of), 65536))}
        if self._outcome is None:
            raise Refusal(Why.UNKNOWN, "nothing was submitted")
        return self._outcome

    # reading ----------------------------------------------------------------------------------------------------------

    def _head(self, ask: Any, now: float) -> dict[str, Any]:
        book, expires = self._keeper.book, self._keeper.expires
        left = 0 if expires is None else min(max(1, int((expires - now) * 1000)), _LONGEST)
        head = Head(
            revision=book.revision,
            digest=book.digest,
            active=book.active,
            oldest=book.oldest,
            confirm_left_ms=left,
            serial=len(book.statements),
            roster_digest=self._keeper.roster.digest,
        )
        return {"head": head}

    def _statement(self, ask: AskStatement, now: float) -> dict[str, Any]:
        book = self._keeper.book
        if ask.chain == configuring.COMMITS:
            found = book.find(ask.number)
            if found is None:
                raise Refusal(Why.UNKNOWN, f"there is no revision {ask.number}, or it is kept no more")
            record = found.record
            reply = StatementReply(
                statement=record.signed.statement,
                signature=record.signed.signature,
                fate=record.fate,
                fate_at=record.fate_at,
                has_content=book.has_content(found.commit),
            )
        else:
            if ask.number > len(book.statements):
                raise Refusal(Why.UNKNOWN, f"the roster has {len(book.statements)} statements")
            signed = book.statements[ask.number - 1]
            reply = StatementReply(statement=signed.statement, signature=signed.signature, fate=Fate.STANDS)
        return {"statement": reply}

    def _section(self, ask: AskSection, now: float) -> dict[str, Any]:
        book, name = self._keeper.book, _SECTIONS[ask.section]
        found = book.find(ask.revision)
        digest: bytes = getattr(found.commit, name) if found is not None else b""
        if digest == NOTHING:
            return {"section": SectionReply()}
        place = book.sections.get(digest)
        if place is None:
            raise Refusal(Why.UNKNOWN, f"the {name} of revision {ask.revision} are kept no more, or never were", name)
        number, within = divmod(ask.offset, PAGE)
        data = self._page(place.refs[number])[within:] if ask.offset < place.size else b""
        return {"section": SectionReply(total=place.size, data=data)}

    def _page(self, ref: Ref) -> bytes:
        data = self._cache.pop(ref, None)
        if data is None:
            data = self._read(ref)[:PAGE]
            if len(self._cache) >= _CACHED:
                self._cache.popitem(last=False)
        self._cache[ref] = data
        return data


def _refused(refusal: Refusal) -> ConfiguringRefused:
    kind = int(refusal.why)
    return ConfiguringRefused(kind=kind, path=cut(refusal.path, 256), why=cut(refusal.text, 1024) or "refused")
