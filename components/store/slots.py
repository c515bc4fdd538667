"""Versioned blobs in a flat image that survives a crash at any moment.

Every name has a pair of slots of fixed size, and its versions go into them by turns: the odd ones into the first, the
even ones into the second. A put writes one slot, syncs, and only then answers, so that whatever becomes of the write,
the other slot holds the version before it, whole. No log to replay, nothing to compact, nothing ever moves.

A slot is valid if its digest is right, and what it covers could have been put. BLAKE2s finds torn writes and decay, not
forgers: the blobs are sealed by their owners, who alone can tell. A store that was broken into may leave slots behind
that are wrong under a right digest; the next one must start all the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2s
from typing import Final, NamedTuple

NAMES: Final = 64  # of all consumers together
LONGEST_NAME: Final = 64  # bytes, of a consumer's name too
LARGEST_BLOB: Final = 65535
VERSIONS: Final = 2**63  # no consumer gets there by ones
SLOT: Final = 17 * 4096
IMAGE: Final = NAMES * 2 * SLOT  # 8.5 MiB, and no more on the disk than was written

_MAGIC: Final = b"SEPTUM1\n"
_DIGEST: Final = 32
_HEADER: Final = struct.Struct("<8sQIBB")  # magic, version, bytes of blob, of consumer and of name
_FIRST: Final = _DIGEST + _HEADER.size


class Image(NamedTuple):
    """The effects that the store has. ``read`` gives less than asked at the end of a short image."""

    read: Callable[[int, int], bytes]  # offset, length
    write: Callable[[int, bytes], None]  # offset, data
    sync: Callable[[], None]


class _Pair:
    """Where a name lives, and what is there."""

    __slots__ = ("blob", "index", "version")

    def __init__(self, index: int, version: int, blob: bytes) -> None:
        self.index = index
        self.version = version
        self.blob = blob


class Stale(Exception):
    """A put whose version is not one above the stored one. ``version`` is the stored one, 0 if there is none."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the stored version is {version}")
        self.version = version


class Full(Exception):
    """No room for one more name, or for a blob or name of that size."""


class Store:
    """All blobs, each seen by its consumer alone."""

    def __init__(self, image: Image) -> None:
        """Reads the image. ``torn`` is then the number of slots that held something, but nothing whole."""
        self._image = image
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._free = []
        self.torn = 0
        for index in range(NAMES):
            slots = [self._load(2 * index + i) for i in range(2)]
            found = [slot for slot in slots if slot is not None]
            if not found:
                self._free.append(index)
                continue
            owner, version, blob = max(found, key=lambda slot: slot[1])
            self._pairs[owner] = _Pair(index, version, blob)
        self._free.reverse()

    def _load(self, slot: int) -> tuple[tuple[str, str], int, bytes] | None:
        untrusted_head = self._image.read(slot * SLOT, _FIRST)
        if not any(untrusted_head):
            return None
        self.torn += 1
        if len(untrusted_head) < _FIRST:
            return None
        digest = untrusted_head[:_DIGEST]
        magic, version, size, consumer, name = _HEADER.unpack_from(untrusted_head, _DIGEST)
        if magic != _MAGIC or size > LARGEST_BLOB or consumer > LONGEST_NAME or name > LONGEST_NAME:
            return None
        if version >= VERSIONS:  # nothing could ever be put over it
            return None
        rest = self._image.read(slot * SLOT + _FIRST, consumer + name + size)
        if blake2s(untrusted_head[_DIGEST:] + rest).digest() != digest:
            return None
        try:
            owner = rest[:consumer].decode(), rest[consumer : consumer + name].decode()
        except UnicodeDecodeError:
            return None
        self.torn -= 1
        return owner, version, rest[consumer + name :]

    @property
    def count(self) -> int:
        """Names in use."""
        return len(self._pairs)

    @property
    def size(self) -> int:
        """Bytes of all current blobs."""
        return sum(len(pair.blob) for pair in self._pairs.values())

    def get(self, consumer: str, name: str) -> tuple[int, bytes] | None:
        """Version and blob of ``consumer``'s ``name``."""
        pair = self._pairs.get((consumer, name))
        return None if pair is None else (pair.version, pair.blob)

    def put(self, consumer: str, name: str, version: int, blob: bytes) -> None:
        """Stores ``blob`` as the next version; it is on the disk when this returns. Errors: Stale, Full, OSError."""
        pair = self._pairs.get((consumer, name))
        stored = 0 if pair is None else pair.version
        if version != stored + 1 or version >= VERSIONS:
            raise Stale(stored)
        owner = consumer.encode(), name.encode()
        if len(blob) > LARGEST_BLOB or max(map(len, owner)) > LONGEST_NAME or (pair is None and not self._free):
            raise Full
        index = self._free[-1] if pair is None else pair.index
        header = _HEADER.pack(_MAGIC, version, len(blob), *map(len, owner))
        body = b"".join((header, *owner, blob))
        self._image.write((2 * index + (version + 1) % 2) * SLOT, blake2s(body).digest() + body)
        self._image.sync()
        if pair is None:
            self._free.pop()
        self._pairs[consumer, name] = _Pair(index, version, blob)
