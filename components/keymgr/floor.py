"""The TAI64N floor: per peer the greatest timestamp received and the last one sent, across restarts (section 5.1).

Records are kept by the peer's public key, in shards by a hash of it, so that a shard fits one blob however many peers
there are, and so that a change of the settings' order moves nothing. A blob is sealed with a key derived from our
private key: the store can lose or roll back a floor, but can neither read nor forge one. What that lets it do is let
one recorded initiation pass once more, which gains its sender a response that it cannot use.

A peer that is removed keeps its record as long as there is room in the shard: one that comes back, if only because its
removal was rolled back, is not open to what was recorded before.

Blobs are written at most once a second, so that what is read back may be a second old. For timestamps received that
means the same as a rolled back blob; those sent are moved ahead by SENT_MARGIN when loaded.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Final

from nacl.bindings import (
    crypto_secretbox,
    crypto_secretbox_MACBYTES,
    crypto_secretbox_NONCEBYTES,
    crypto_secretbox_open,
)
from nacl.exceptions import CryptoError

from components.keymgr import tai64n
from components.keymgr.constants import KEY, PERSIST_EVERY, PERSIST_RETRY
from components.keymgr.events import PersistFloor

LABEL: Final = b"septum timestamp floor v1"
SENT_MARGIN: Final = 2_000_000_000  # nanoseconds
NONCE: Final = crypto_secretbox_NONCEBYTES
SHARDS: Final = 32  # few enough for the store's names, many enough for MAX_PEERS records in blobs of 64 KiB
VERSIONS: Final = 2**63  # more than a write a second ever uses up; a store at the last of them made it up

_HEADER: Final = struct.Struct("<4sBQ")  # magic, shard, version: a blob cannot pass for another one
_MAGIC: Final = b"SFL2"  # 1 had 256 shards: what it says is of other peers
_RECORD: Final = struct.Struct(f"<{KEY}s12s12s")
_LARGEST_BLOB: Final = 65_535  # the bound in the schema
RECORDS: Final = (_LARGEST_BLOB - NONCE - crypto_secretbox_MACBYTES - _HEADER.size) // _RECORD.size  # of one shard


class FloorError(Exception):
    """A blob that this private key did not seal, or not for this place."""


@dataclass(slots=True)
class _Record:
    received: bytes = tai64n.NEVER
    sent: bytes = tai64n.NEVER


@dataclass(slots=True)
class _Shard:
    members: dict[bytes, None] = field(default_factory=dict)
    former: dict[bytes, None] = field(default_factory=dict)  # who was one, or was found in the blob; the latest is last
    version: int = 0
    loaded: bool = False
    not_before: float = 0.0


class Floor:
    """The floors of all peers of one private key."""

    def __init__(self, private: bytes, public: bytes, peers: list[bytes], grows: bool = False) -> None:
        """``private``, ``public``: our key pair; ``peers``: their public keys. ``grows``: others may be added later."""
        self._key = hashlib.blake2s(LABEL, key=private).digest()
        self._name = "tai64n." + hashlib.blake2s(public, digest_size=8).hexdigest()
        self._records: dict[bytes, _Record] = {}
        self._shards: dict[int, _Shard] = {number: _Shard() for number in range(SHARDS)} if grows else {}
        for peer in peers:
            self.add(peer)
        self._missing = len(self._shards)
        self._dirty: dict[int, None] = {}  # in the order in which they became so

    @staticmethod
    def _shard_of(peer: bytes) -> int:
        return hashlib.blake2s(peer, digest_size=1).digest()[0] % SHARDS

    # peers ----------------------------------------------------------------------------------------------------------

    def add(self, peer: bytes) -> None:
        """``peer`` is one from now on."""
        shard = self._shards.setdefault(self._shard_of(peer), _Shard())
        shard.former.pop(peer, None)
        shard.members[peer] = None
        self._records.setdefault(peer, _Record())

    def remove(self, peer: bytes) -> None:
        """``peer`` is one no more."""
        shard = self._shards[self._shard_of(peer)]
        del shard.members[peer]
        shard.former[peer] = None
        self._trim(shard)

    def _trim(self, shard: _Shard) -> None:
        while shard.former and len(shard.members) + len(shard.former) > RECORDS:
            peer = next(iter(shard.former))
            del shard.former[peer], self._records[peer]

    # timestamps -----------------------------------------------------------------------------------------------------

    def accept(self, peer: bytes, untrusted_timestamp: bytes) -> bool:
        """Takes a timestamp received from ``peer`` if it is greater than all before it; False if it is not."""
        record = self._records[peer]
        if not tai64n.is_newer(untrusted_timestamp, record.received):
            return False
        record.received = untrusted_timestamp
        self._touch(peer)
        return True

    def stamp(self, peer: bytes, wall: float) -> bytes:
        """The timestamp to send to ``peer``: the clock's, or if that stepped back, one just above the last."""
        record = self._records[peer]
        stamp = tai64n.stamp(wall)
        if stamp <= record.sent:
            stamp = tai64n.after(record.sent)
        record.sent = stamp
        self._touch(peer)
        return stamp

    def _touch(self, peer: bytes) -> None:
        self._dirty.setdefault(self._shard_of(peer))

    # blobs ----------------------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        return not self._missing

    def _name_of(self, shard: int) -> str:
        return f"{self._name}.{shard:02x}"

    def _number(self, name: str) -> int:
        return int(name.rpartition(".")[2], 16)

    def missing(self) -> list[str]:
        """Names of the blobs that are still to be loaded."""
        if self.is_loaded:
            return []
        return [self._name_of(number) for number, shard in self._shards.items() if not shard.loaded]

    def load(self, name: str, version: int, untrusted_blob: bytes) -> None:
        """Takes the stored blob ``name``; version 0 and no bytes if there is none yet.

        Errors: FloorError if it is not ours. The floor of its peers then starts at nothing, as if it were absent, and
        the next write replaces it. A version that leaves no room for others is not gone on from: nothing vouches for it
        but the store.
        """
        number = self._number(name)
        shard = self._shards[number]
        if not shard.loaded:
            shard.loaded = True
            self._missing -= 1
        if version >= VERSIONS:
            raise FloorError("has a version that writing cannot lead to")
        shard.version = version
        if not untrusted_blob:
            return
        for peer, received, sent in _RECORD.iter_unpack(self._open(number, version, untrusted_blob)):
            record = self._records.get(peer)
            if record is None:
                record = self._records[peer] = _Record()
                shard.former[peer] = None
            record.received = max(record.received, received)
            if sent != tai64n.NEVER:
                record.sent = max(record.sent, tai64n.after(sent, SENT_MARGIN))
        self._trim(shard)

    def _open(self, number: int, version: int, untrusted_blob: bytes) -> bytes:
        try:
            plain = crypto_secretbox_open(untrusted_blob[NONCE:], untrusted_blob[:NONCE], self._key)
            records = plain[_HEADER.size :]
            if _HEADER.unpack_from(plain) != (_MAGIC, number, version) or len(records) % _RECORD.size:
                raise FloorError("is sealed for another place or version")
        except (CryptoError, ValueError, struct.error) as refused:
            raise FloorError("is not sealed by our private key") from refused
        return records

    def due(self) -> float | None:
        """When the next write may happen; None if there is nothing to write."""
        return min((self._shards[number].not_before for number in self._dirty), default=None)

    def write(self, now: float, nonce: bytes) -> PersistFloor:
        """The blob to put next, once ``due``. ``nonce``: NONCE fresh random bytes. ``stored`` or ``failed`` follows."""
        number = min(self._dirty, key=lambda number: self._shards[number].not_before)
        shard = self._shards[number]
        del self._dirty[number]
        shard.not_before = now + PERSIST_EVERY
        version = shard.version + 1
        known = [*shard.former, *shard.members][-RECORDS:]
        records = b"".join(_RECORD.pack(peer, self._records[peer].received, self._records[peer].sent) for peer in known)
        plain = _HEADER.pack(_MAGIC, number, version) + records
        return PersistFloor(self._name_of(number), version, nonce + crypto_secretbox(plain, nonce, self._key))

    def stored(self, put: PersistFloor) -> None:
        """The store took ``put``."""
        self._shards[self._number(put.name)].version = put.version

    def failed(self, put: PersistFloor, now: float) -> None:
        """The store did not take ``put``: it is tried again in a while."""
        number = self._number(put.name)
        self._shards[number].not_before = now + PERSIST_RETRY
        self._dirty.setdefault(number)
