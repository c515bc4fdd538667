"""Statements as they are kept: what each was, and what became of it. Many go into a page.

A record is self-contained; a page is records end to end. Bytes from the store are read with every bound checked: what
does not fit was never written here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from appliance.signed.refusal import Refusal
from appliance.signed.statements import LONGEST, SIGNATURE, Commit, Signed, parse
from components.config.pages import PAGE, Damaged

_HEADER: Final = struct.Struct("<HHBQ")  # bytes of the statement, of the confirmation; fate; when
_SEAL: Final = Signed(b"", b"")


class Fate(IntEnum):
    """As in configuring.proto."""

    STANDS = 1
    AWAITS = 2
    CONFIRMED = 3
    ROLLED_BACK = 4


class Record(NamedTuple):
    """A statement, its ``fate`` since ``fate_at`` (ms since 1970; 0: as it was made), and the confirmation if any."""

    signed: Signed
    fate: Fate = Fate.STANDS
    fate_at: int = 0
    confirmation: Signed = _SEAL


class CommitRecord(NamedTuple):
    """A record of the chain of commits, with what it says."""

    commit: Commit
    record: Record


def pack(records: Iterable[Record]) -> list[bytes]:
    """The records as pages, each as full as can be: what was full before stays as it was."""
    pages = [bytearray()]
    for record in records:
        data = _encode(record)
        if len(pages[-1]) + len(data) > PAGE:
            pages.append(bytearray())
        pages[-1] += data
    return [bytes(page) for page in pages if page]


def _encode(record: Record) -> bytes:
    signed, confirmation = record.signed, record.confirmation
    header = _HEADER.pack(len(signed.statement), len(confirmation.statement), record.fate, record.fate_at)
    return b"".join((header, *signed, *confirmation))


def unpack(untrusted_page: bytes) -> Iterator[Record]:
    """The records of a page. Errors: Damaged."""
    at = 0
    while at < len(untrusted_page):
        if at + _HEADER.size > len(untrusted_page):
            raise Damaged("a page of statements ends in the midst of one")
        length, confirmation, fate, fate_at = _HEADER.unpack_from(untrusted_page, at)
        at += _HEADER.size
        if not 0 < length <= LONGEST or confirmation > LONGEST or fate not in set(Fate):
            raise Damaged("a page of statements has none")
        signed, at = _signed(untrusted_page, at, length)
        confirmed = _SEAL
        if confirmation:
            confirmed, at = _signed(untrusted_page, at, confirmation)
        yield Record(signed, Fate(fate), fate_at, confirmed)


def _signed(untrusted_page: bytes, at: int, length: int) -> tuple[Signed, int]:
    middle, end = at + length, at + length + SIGNATURE
    if end > len(untrusted_page):
        raise Damaged("a page of statements ends in the midst of one")
    return Signed(untrusted_page[at:middle], untrusted_page[middle:end]), end


def commit_of(record: Record) -> Commit:
    """What ``record`` says. Errors: Damaged if it is no commit."""
    try:
        statement = parse(record.signed.statement)
    except Refusal as refusal:
        raise Damaged(f"a statement that is kept is none: {refusal}") from None
    if not isinstance(statement, Commit):
        raise Damaged("a statement of another kind is among the commits")
    return statement
