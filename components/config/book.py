"""What is kept: the chain of the roster, the chain of commits, their sections, and which of them is in force.

A Book is a value. It is written as one head: references to pages of statements and of sections, and a few numbers.
Whoever changes something makes another Book, writes its pages, and turns the head.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2s
from typing import Any, Final, NamedTuple

from appliance.signed import canonical
from appliance.signed.refusal import Refusal, Why
from appliance.signed.statements import NONE, Commit, Signed
from components.config.effects import Steps
from components.config.pages import LARGEST_HEAD, PAGE, PAGES, Damaged, Pages, Ref
from components.config.records import CommitRecord, Fate, Record, pack, unpack

FORMAT: Final = 1
LARGEST_SECTION: Final = 4 << 20  # bytes
MOST_SECTIONS: Final = 320  # so that the head has room for them
MOST_HISTORY: Final = 128  # pages of commits' statements: some ten thousand of them
RESERVE: Final = 160  # pages that are kept free, if giving up old content can do that: a commit of the largest size
SECTIONS: Final = ("peers", "ruleset", "rules")
NOTHING: Final = canonical.digest(b"")
"""The digest of a section that is empty, which is always at hand."""

_DIGEST: Final = re.compile("[0-9a-f]{64}")


class Place(NamedTuple):
    """Where a section is."""

    size: int
    refs: tuple[Ref, ...]


class Leaf(NamedTuple):
    """A page of statements, by the digest of its bytes."""

    digest: bytes
    ref: Ref


class Book(NamedTuple):
    """What is kept. ``active`` is the revision in force (0: none), ``before`` the one that it goes back to at
    ``deadline`` (ms since 1970) unless it is confirmed; both are 0 if none waits.
    """

    statements: tuple[Signed, ...] = ()  # of the roster, from serial 1
    commits: tuple[CommitRecord, ...] = ()  # from `oldest`
    active: int = 0
    before: int = 0
    deadline: int = 0
    sections: Mapping[bytes, Place] = {}
    roster_leaves: tuple[Leaf, ...] = ()
    commit_leaves: tuple[Leaf, ...] = ()

    @property
    def revision(self) -> int:
        """Of the last commit; 0 if there is none."""
        return self.commits[-1].commit.revision if self.commits else 0

    @property
    def digest(self) -> bytes:
        """Of the last commit's statement."""
        return canonical.digest(self.commits[-1].record.signed.statement) if self.commits else NONE

    @property
    def oldest(self) -> int:
        """The first revision whose statement is kept; 0 if there is none."""
        return self.commits[0].commit.revision if self.commits else 0

    @property
    def is_pending(self) -> bool:
        """Whether the last commit waits to be confirmed."""
        return bool(self.commits) and self.commits[-1].record.fate is Fate.AWAITS

    def find(self, revision: int) -> CommitRecord | None:
        """The commit of that revision, if it is kept."""
        at = revision - self.oldest
        return self.commits[at] if revision and 0 <= at < len(self.commits) else None

    def has_content(self, commit: Commit) -> bool:
        """Whether all sections of ``commit`` are kept."""
        return all(self.has(digest) for digest in digests(commit))

    def has(self, digest: bytes) -> bool:
        """Whether the section of that digest is kept."""
        return digest in self.sections or digest == NOTHING

    def refs(self) -> Iterator[Ref]:
        """All pages."""
        for leaf in (*self.roster_leaves, *self.commit_leaves):
            yield leaf.ref
        for place in self.sections.values():
            yield from place.refs

    # changing ---------------------------------------------------------------------------------------------------------

    def with_last(self, record: Record) -> Book:
        """The last commit's record is ``record``."""
        return self._replace(commits=(*self.commits[:-1], self.commits[-1]._replace(record=record)))

    def without_old_content(self, keep: frozenset[int]) -> Book | None:
        """Without the sections that have been out of use for longest, none of them of a revision in ``keep``; None if
        there are no such.
        """
        last_use = dict.fromkeys(self.sections, 0)
        for one in self.commits:
            last_use |= {digest: one.commit.revision for digest in digests(one.commit) if digest in last_use}
        kept = {digest for one in keep if (found := self.find(one)) for digest in digests(found.commit)}
        if not (idle := last_use.keys() - kept):
            return None
        oldest = min(last_use[digest] for digest in idle)
        given_up = {digest for digest in idle if last_use[digest] == oldest}
        return self._replace(sections={one: place for one, place in self.sections.items() if one not in given_up})

    def write(self, pages: Pages) -> Steps[Book]:
        """Writes the statements that are not on a page yet. Errors: Away, Refusal."""
        roster = yield from _write_leaves(pages, pack(map(Record, self.statements)), self.roster_leaves)
        book, leaves = self, pack(one.record for one in self.commits)
        while len(leaves) > MOST_HISTORY:
            forgotten = len(list(unpack(leaves.pop(0))))
            book = book._replace(commits=book.commits[forgotten:])
        if book.active and not (book.find(book.active) and book.find(book.before or book.active)):
            raise Refusal(Why.NO_ROOM, f"so many commits were rolled back that {book.active} would be forgotten")
        commits = yield from _write_leaves(pages, leaves, book.commit_leaves)
        return book._replace(roster_leaves=roster, commit_leaves=commits)


def digests(commit: Commit) -> tuple[bytes, ...]:
    """Of the sections of ``commit``."""
    return commit.peers, commit.ruleset, commit.rules


def _write_leaves(pages: Pages, leaves: list[bytes], old: tuple[Leaf, ...]) -> Steps[tuple[Leaf, ...]]:
    known = {leaf.digest: leaf for leaf in old}
    written = []
    for data in leaves:
        digest = blake2s(data).digest()
        leaf = known.get(digest)
        if leaf is None:
            (ref,) = yield from pages.write(data)
            leaf = Leaf(digest, ref)
        written.append(leaf)
    return tuple(written)


# the head -------------------------------------------------------------------------------------------------------------


def encode_head(book: Book, spare: Sequence[int]) -> bytes:
    """The head. ``spare`` are pages that only the head before refers to."""
    return canonical.encode(
        {
            "format": FORMAT,
            "active": book.active,
            "before": book.before,
            "deadline": book.deadline,
            "roster": [list(leaf.ref) for leaf in book.roster_leaves],
            "commits": [list(leaf.ref) for leaf in book.commit_leaves],
            "sections": {
                digest.hex(): [place.size, *(number for ref in place.refs for number in ref)]
                for digest, place in book.sections.items()
            },
            "spare": list(spare),
        }
    )


class Head(NamedTuple):
    """What a head says, well formed."""

    active: int
    before: int
    deadline: int
    roster: tuple[Ref, ...]
    commits: tuple[Ref, ...]
    sections: Mapping[bytes, Place]
    spare: tuple[int, ...]


def decode_head(untrusted: bytes) -> Head:
    """The head in these bytes. Errors: Damaged."""
    try:
        table = canonical.decode(untrusted, LARGEST_HEAD)
        if not isinstance(table, dict) or table.pop("format") != FORMAT:
            raise Damaged("the head is of another format")
        head = Head(
            _number(table.pop("active")),
            _number(table.pop("before")),
            _number(table.pop("deadline")),
            tuple(_ref(*row) for row in table.pop("roster")),
            tuple(_ref(*row) for row in table.pop("commits")),
            {_digest(text): _place(*row) for text, row in table.pop("sections").items()},
            tuple(_page(number) for number in table.pop("spare")),
        )
    except (Refusal, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Damaged(f"the head is none: {error!r}") from None
    pages = [ref.page for ref in (*head.roster, *head.commits)]
    pages += [ref.page for place in head.sections.values() for ref in place.refs]
    if table or len(set(pages)) != len(pages) or set(pages) & set(head.spare):
        raise Damaged("the head refers to one page twice")
    return head


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no number")
    return value


def _page(value: Any) -> int:
    if _number(value) >= PAGES:
        raise ValueError(f"there is no page {value}")
    return int(value)


def _ref(page: Any, version: Any) -> Ref:
    return Ref(_page(page), _number(version))


def _digest(text: str) -> bytes:
    if not _DIGEST.fullmatch(text):
        raise ValueError("is no digest")
    return bytes.fromhex(text)


def _place(size: Any, *numbers: Any) -> Place:
    refs = tuple(_ref(page, version) for page, version in zip(numbers[::2], numbers[1::2], strict=True))
    if not 0 < _number(size) <= LARGEST_SECTION or len(refs) != -(-size // PAGE):
        raise ValueError("has no size, or another number of pages than that takes")
    return Place(size, refs)
