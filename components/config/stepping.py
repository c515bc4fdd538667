"""Bringing one domain in step with the book: the roster, and the commit in force. Handing over, two phases, and back.

A domain looks at every signature itself, and says in each answer where it stands; it may have been born a moment ago,
or have missed the word at which to apply. It is told the roster as far as a commit was signed under, then that commit,
and the rest of the roster last: a living domain takes no commit of an earlier roster than its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from septum.v1.applying import (
    Abandon,
    Apply,
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

from appliance.signed.refusal import Refusal, Why
from components.config.book import NOTHING, Book
from components.config.effects import Ask, Steps
from components.config.pages import PAGE, Damaged, Pages
from components.config.records import CommitRecord

_PREPARE: Final = 20.0  # seconds: ten thousand peers or rules are parsed


class OutOfStep(Exception):
    """The domain says something that cannot be, going by the book: it knows more than the store does, or lies."""


def say(port: str, patience: float = 5.0, **ask: Any) -> Steps[Done]:
    """One call to the domain at ``port``. Errors: Away; Refusal with what it refuses and why."""
    reply: ApplyingReply = yield Ask(port, ApplyingRequest(**ask), patience)
    if reply.WhichOneof("answer") == "done":
        return reply.done
    refused = reply.refused
    raise Refusal(Why(refused.kind), refused.why, refused.path)


def _where(port: str, book: Book) -> Steps[tuple[int, int]]:
    """The revision that the domain goes by, none that was rolled back, and the serial of its roster."""
    done = yield from say(port, abandon=Abandon())
    revision, serial = done.number, done.serial
    if serial > len(book.statements):
        raise OutOfStep(f"has heard of {serial} statements of the roster, and there are {len(book.statements)}")
    if revision > book.active:
        done = yield from say(port, revert=Revert(revision=revision))
        if done.number > book.active:
            raise OutOfStep(f"goes by revision {done.number}, and {book.active} is in force")
        revision = done.number
    return revision, serial


def make_ready(port: str, book: Book) -> Steps[CommitRecord | None]:
    """The domain at ``port``, which does not take what is in force, hears all that it needs to take what comes next.
    Gives what it goes by. Errors: as ``bring_in_step``.
    """
    revision, serial = yield from _where(port, book)
    yield from _enlist(port, book, serial, len(book.statements))
    return book.find(revision)


def bring_in_step(port: str, book: Book, pages: Pages) -> Steps[None]:
    """The domain at ``port`` goes by what ``book`` has in force, whatever it went by before. Errors: Away, Refusal,
    Damaged, OutOfStep.
    """
    revision, serial = yield from _where(port, book)
    for wanted in (book.before, book.active):
        if wanted <= revision:
            continue
        record = book.find(wanted)
        assert record is not None  # the book has seen to that
        serial = yield from _enlist(port, book, serial, record.commit.roster)
        known = book.find(revision)
        yield from prepare(port, record, known, book, pages, {})
        yield from say(port, apply=Apply(revision=wanted))
        revision = wanted
    yield from _enlist(port, book, serial, len(book.statements))
    if book.active and not book.is_pending:
        yield from say(port, settle=Settle(revision=book.active))


def _enlist(port: str, book: Book, serial: int, until: int) -> Steps[int]:
    for signed in book.statements[serial:until]:
        yield from say(port, enlist=Enlist(statement=signed.statement, signature=signed.signature))
    return max(serial, until)


def prepare(
    port: str,
    record: CommitRecord,
    known: CommitRecord | None,
    book: Book,
    pages: Pages,
    coming: Mapping[bytes, bytes],
) -> Steps[None]:
    """The first phase: the domain has all that ``record`` says, and agrees to it. ``known`` is what it goes by.
    ``coming`` are sections by digest that are not in the book yet.
    """
    digest: bytes = getattr(record.commit, port)
    if (known is None or getattr(known.commit, port) != digest) and digest != NOTHING:
        yield from _bring(port, digest, book, pages, coming)
    signed = record.record.signed
    yield from say(port, _PREPARE, prepare=Prepare(statement=signed.statement, signature=signed.signature))


def _bring(port: str, digest: bytes, book: Book, pages: Pages, coming: Mapping[bytes, bytes]) -> Steps[None]:
    section = coming.get(digest)
    if section is not None:
        yield from say(port, begin=BeginSection(total=len(section)))
        for at in range(0, len(section), PAGE):
            yield from say(port, chunk=Chunk(offset=at, data=section[at : at + PAGE]))
        return
    place = book.sections[digest]
    yield from say(port, begin=BeginSection(total=place.size))
    for number, ref in enumerate(place.refs):
        data = yield from pages.read(ref)
        if len(data) != min(PAGE, place.size - number * PAGE):
            raise Damaged(f"page {ref.page} has {len(data)} bytes")
        yield from say(port, chunk=Chunk(offset=number * PAGE, data=data))
