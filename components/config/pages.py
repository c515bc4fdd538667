"""Pages in the store: what is in use is never written over, and one put of the head turns from old to new.

A page is a blob of its own, named by number; its owner is who refers to it, and a reference names the version too, so
that a page that the store lost and replaced by an older one is noticed. A page is free for a new generation if neither
the head in force refers to it nor the one before that, to which the store falls back should the head decay. Pages are
lazy puts; the head is not, and so lies on the disk behind all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from septum.v1.blobs import BLOB_ABSENT, BLOB_FULL, BLOB_OK, BLOB_STALE, BlobReply, BlobRequest

from appliance.signed.refusal import Refusal, Why
from components.config.effects import BLOBS, Ask, Away, Rest, Steps

PAGE: Final = 61440  # bytes, as a chunk of a section, so that one that is asked for is one page
PAGES: Final = 1024
HEAD: Final = "head"
LARGEST_HEAD: Final = 65535
VERSIONS: Final = 2**53  # what the head can say, and more than writing leads to
_RETRY: Final = 1.0  # seconds
_PATIENCE: Final = 10.0  # seconds: behind a put a disk may have much to write


class Damaged(Exception):
    """What the store has is not what was put there."""


class Ref(NamedTuple):
    """A page, and which version of it."""

    page: int
    version: int


def page_name(page: int) -> str:
    """What the store knows it by."""
    return f"page.{page:04x}"


class Pages:
    """The pages of the store, and the head."""

    def __init__(self) -> None:
        self._versions: dict[int, int] = {}
        self._free: set[int] = set(range(PAGES))
        self._head = 0  # version

    @property
    def free(self) -> int:
        """Pages that can be written."""
        return len(self._free)

    def use(self, refs: Iterable[Ref], spare: Iterable[int]) -> None:
        """These are in use by the head in force, and ``spare`` by the one before: all others are free."""
        used = {ref.page: ref.version for ref in refs}
        self._versions.update(used)
        self._free = set(range(PAGES)) - used.keys() - set(spare)

    # reading ----------------------------------------------------------------------------------------------------------

    def read(self, ref: Ref) -> Steps[bytes]:
        """The bytes of a page. Errors: Away, Damaged."""
        reply: BlobReply = yield Ask(BLOBS, BlobRequest(name=page_name(ref.page)))
        if reply.status != BLOB_OK or reply.version != ref.version or not 0 < len(reply.blob) <= PAGE:
            raise Damaged(f"page {ref.page} is not there as it was put")
        return reply.blob

    def read_head(self) -> Steps[bytes | None]:
        """The head's bytes; None if there is none yet. Errors: Away, Damaged."""
        reply: BlobReply = yield Ask(BLOBS, BlobRequest(name=HEAD))
        if reply.status == BLOB_ABSENT:
            self._head = 0
            return None
        if reply.status != BLOB_OK or reply.version >= VERSIONS:
            raise Damaged("the store does not say what its head is")
        self._head = reply.version
        return reply.blob

    # writing ----------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> Steps[list[Ref]]:
        """Writes ``data`` into free pages. Errors: Away; Refusal (NO_ROOM)."""
        refs = []
        for at in range(0, len(data), PAGE):
            if not self._free:
                raise Refusal(Why.NO_ROOM, "the box keeps no more than it has")
            page = min(self._free)
            self._free.discard(page)
            refs.append((yield from self._put(page, data[at : at + PAGE])))
        return refs

    def _put(self, page: int, data: bytes) -> Steps[Ref]:
        version = self._versions.get(page, 0) + 1
        for _ in range(3):  # a version that an earlier life left behind is learnt by the first
            request = BlobRequest(name=page_name(page), version=version, blob=data, lazy=True)
            reply: BlobReply = yield Ask(BLOBS, request, _PATIENCE)
            if reply.status == BLOB_OK:
                self._versions[page] = version
                return Ref(page, version)
            if reply.status != BLOB_STALE or reply.version >= VERSIONS:
                break
            version = reply.version + 1
        raise Refusal(Why.NO_ROOM, "the store has no room for it")

    def write_head(self, data: bytes) -> Steps[None]:
        """Turns to a new generation. When this returns it is on the disk; when it raises, it never was.

        Where nobody answers, nobody knows which: then the store is asked until it does. Errors: Refusal (NO_ROOM).
        """
        request = BlobRequest(name=HEAD, version=self._head + 1, blob=data)
        try:
            reply: BlobReply = yield Ask(BLOBS, request, _PATIENCE)
            if reply.status == BLOB_OK:
                self._head += 1
                return
            if reply.status == BLOB_FULL:
                raise Refusal(Why.NO_ROOM, "the store has no room for it")
        except Away:
            pass
        before = self._head
        while True:
            yield Rest(_RETRY)
            try:
                found = yield from self.read_head()
            except Away:
                continue
            if self._head == before + 1 and found == data:
                return
            if self._head == before:
                raise Refusal(Why.AWAY, "the store did not take it")
            raise Damaged("somebody else has written the head")
