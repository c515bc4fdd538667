"""Versioned blobs in a flat image that survives a crash at any moment.

Every name has a pair of slots of fixed size, and its versions go into them by turns: the odd ones into the first, the
even ones into the second. A put writes one slot, syncs, and only then answers, so that whatever becomes of the write,
the other slot holds the version before it, whole. No log to replay, nothing to compact, nothing ever moves.

A slot has a head, with its own digest and that of the blob. Starting reads the heads alone; a blob is read, and looked
at, when it is asked for. One that is not whole never was: the other slot of the pair has what counts. BLAKE2s finds
torn writes and decay, not forgers: the blobs are sealed or signed, and their owners can tell. A store that was broken
into may leave slots behind that are wrong under a right digest; the next one must start all the same.

A *lazy* put is written and not synced. Whatever was put before is on the disk before the next put begins that is not
lazy, and before the same pair is written again: of two slots at most one is ever at stake. That holds over the store's
own lives: what the last one wrote, or another holder of the image, is synced before the first put of this one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2s
from typing import Final, NamedTuple

NAMES: Final = 2048  # of all consumers together
NAMES_OF_ONE: Final = 1536  # so that none can take them all
LONGEST_NAME: Final = 64  # bytes, of a consumer's name too
LARGEST_BLOB: Final = 65535
VERSIONS: Final = 2**63  # no consumer gets there by ones
SLOT: Final = 17 * 4096
IMAGE: Final = NAMES * 2 * SLOT  # 272 MiB, and no more on the disk than was written

_DIGEST: Final = 32
_HEADER: Final = struct.Struct("<8sQIBB")  # magic, version, bytes of blob, of consumer and of name
_FIRST: Final = _DIGEST + _HEADER.size
_HEAD: Final = (
    _FIRST + 2 * LONGEST_NAME + _DIGEST
)  # at most: digest of the rest, header, consumer, name, digest of blob

_MAGIC: Final = b"SEPTUM2\n"
# One digest over header, names and blob. There were 64 names at most
_MAGIC_1: Final = b"SEPTUM1\n"


class Image(NamedTuple):
    """The effects that the store has. ``read`` gives less than asked at the end of a short image."""

    read: Callable[[int, int], bytes]  # offset, length
    write: Callable[[int, bytes], None]  # offset, data
    sync: Callable[[], None]


class _Slot(NamedTuple):
    """A slot whose head is whole. Its blob is where it says, if ``digest`` is that of ``before`` and the blob."""

    owner: tuple[str, str]
    version: int
    at: int
    size: int
    before: bytes
    digest: bytes


class _Pair:
    """Where a name lives: its slots, the newest last."""

    __slots__ = ("index", "is_sound", "is_unsynced", "slots")

    def __init__(self, index: int, slots: list[_Slot]) -> None:
        self.index = index
        self.slots = slots
        self.is_sound = False  # the newest is known to be whole
        self.is_unsynced = False


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
        """Reads the heads. ``torn`` is the number of slots found so far that held something, but nothing whole."""
        self._image = image
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._names: dict[str, int] = {}  # of each consumer
        self._free: list[int] = []
        self._unsynced: set[_Pair] = set()
        self._is_inherited = True  # what is in the image may have been written lazily, by another life
        self.torn = 0
        for index in range(NAMES):
            if not image.read(2 * index * SLOT, 1):
                self._free += range(index, NAMES)  # the image ends here
                break
            slots = [slot for i in range(2) if (slot := self._load(2 * index + i)) is not None]
            if not slots:
                self._free.append(index)
                continue
            slots.sort(key=lambda slot: slot.version)
            owner = slots[-1].owner
            if owner not in self._pairs:
                self._names[owner[0]] = self._names.get(owner[0], 0) + 1
            self._pairs[owner] = _Pair(index, [slot for slot in slots if slot.owner == owner])
        self._free.reverse()

    def _load(self, number: int) -> _Slot | None:
        start = number * SLOT
        untrusted_head = self._image.read(start, _HEAD)
        if not any(untrusted_head):
            return None
        slot = self._parse(start, untrusted_head)
        self.torn += slot is None
        return slot

    def _parse(self, start: int, untrusted_head: bytes) -> _Slot | None:
        if len(untrusted_head) < _FIRST:
            return None
        magic, version, size, consumer, name = _HEADER.unpack_from(untrusted_head, _DIGEST)
        if magic not in (_MAGIC, _MAGIC_1) or size > LARGEST_BLOB or consumer > LONGEST_NAME or name > LONGEST_NAME:
            return None
        if version >= VERSIONS:  # nothing could ever be put over it
            return None
        names = _FIRST + consumer + name
        digest = untrusted_head[:_DIGEST]
        if magic == _MAGIC_1:
            slot = _Slot(("", ""), version, start + names, size, untrusted_head[_DIGEST:names], digest)
            if self._read(slot) is None:
                return None
        else:
            end = names + _DIGEST
            if blake2s(untrusted_head[_DIGEST:end]).digest() != digest:
                return None
            slot = _Slot(("", ""), version, start + end, size, b"", untrusted_head[names:end])
        try:
            owner = (
                untrusted_head[_FIRST : _FIRST + consumer].decode(),
                untrusted_head[_FIRST + consumer : names].decode(),
            )
        except UnicodeDecodeError:
            return None
        return slot._replace(owner=owner)

    def _read(self, slot: _Slot) -> bytes | None:
        """The blob in ``slot``; None if it is not whole."""
        blob = self._image.read(slot.at, slot.size)
        return blob if blake2s(slot.before + blob).digest() == slot.digest else None

    @property
    def count(self) -> int:
        """Names in use."""
        return len(self._pairs)

    @property
    def size(self) -> int:
        """Bytes of all current blobs."""
        return sum(pair.slots[-1].size for pair in self._pairs.values())

    def get(self, consumer: str, name: str) -> tuple[int, bytes] | None:
        """Version and blob of ``consumer``'s ``name``."""
        pair = self._pairs.get((consumer, name))
        while pair is not None and pair.slots:
            slot = pair.slots[-1]
            blob = self._read(slot)
            if blob is not None:
                pair.is_sound = True
                return slot.version, blob
            self.torn += 1
            pair.slots.pop()
        if pair is not None:
            del self._pairs[consumer, name]
            self._names[consumer] -= 1
            self._free.append(pair.index)
            self._unsynced.discard(pair)
        return None

    def put(self, consumer: str, name: str, version: int, blob: bytes, lazy: bool = False) -> None:
        """Stores ``blob`` as the next version. Unless it is ``lazy``, all that was put is on the disk afterwards.

        Errors: Stale, Full, OSError.
        """
        pair = self._pairs.get((consumer, name))
        if pair is not None and not pair.is_sound:
            self.get(consumer, name)
            pair = self._pairs.get((consumer, name))
        stored = 0 if pair is None else pair.slots[-1].version
        if version != stored + 1 or version >= VERSIONS:
            raise Stale(stored)
        owner = consumer.encode(), name.encode()
        if len(blob) > LARGEST_BLOB or max(map(len, owner)) > LONGEST_NAME:
            raise Full
        if pair is None and (not self._free or self._names.get(consumer, 0) >= NAMES_OF_ONE):
            raise Full
        index = self._free[-1] if pair is None else pair.index
        if self._is_inherited or (self._unsynced and (not lazy or pair in self._unsynced)):
            self._sync()
        start = (2 * index + (version + 1) % 2) * SLOT
        header = _HEADER.pack(_MAGIC, version, len(blob), *map(len, owner))
        whole = blake2s(blob).digest()
        head = b"".join((header, *owner, whole))
        if pair is not None:
            pair.slots = pair.slots[-1:]  # whatever becomes of the write, the other slot is gone
        self._image.write(start, blake2s(head).digest() + head + blob)
        if not lazy:
            self._image.sync()
        slot = _Slot((consumer, name), version, start + _DIGEST + len(head), len(blob), b"", whole)
        if pair is None:
            self._free.pop()
            self._names[consumer] = self._names.get(consumer, 0) + 1
            pair = self._pairs[consumer, name] = _Pair(index, [])
        pair.slots.append(slot)
        pair.is_sound = True
        if lazy:
            self._unsynced.add(pair)

    def _sync(self) -> None:
        self._image.sync()
        self._is_inherited = False
        self._unsynced.clear()
