"""Our private keys: the one of the settings, and those that were made here for the box to go over to.

There always is a spare: made of random bytes, kept in one blob of the store that is sealed with a key derived from the
private key of the settings, and known to others by its public half alone. It is used once an administrator has signed
that it is; the next write of the blob then has another spare, and the one that was given up is gone for good. What the
store can do is to lose the blob or to bring back an older one: then the box has not got the key that was signed, says
so, and answers nobody by another.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from nacl.bindings import crypto_secretbox, crypto_secretbox_open
from nacl.exceptions import CryptoError

from appliance.guest.secret import Secret
from components.keymgr.constants import KEY, PERSIST_RETRY
from components.keymgr.events import PersistFloor
from components.keymgr.floor import NONCE, VERSIONS, FloorError
from components.keymgr.noise import Buffer, PrivateKey

_LABEL: Final = b"septum own keys v1"
_HEADER: Final = struct.Struct("<4sQ")  # magic, version
_MAGIC: Final = b"SKY1"
_MOST: Final = 4  # keys in a blob


class _Made:
    """A key that was made here."""

    def __init__(self, scalar: Buffer) -> None:
        self.scalar = Secret(scalar)
        self.public = PrivateKey(scalar).public


class OwnKeys:
    """The keys beside the one of the settings. ``name`` is that of their blob."""

    def __init__(self, private: bytes, public: bytes) -> None:
        """``private``, ``public``: the key pair of the settings."""
        self.name = "keys." + hashlib.blake2s(public, digest_size=8).hexdigest()
        self.is_loaded = False
        self._key = hashlib.blake2s(_LABEL, key=private).digest()
        self._version = 0
        self._made: list[_Made] = []
        self._coming: list[_Made] | None = None  # in the blob that is under way to the store
        self._not_before = 0.0

    def find(self, public: bytes) -> PrivateKey | None:
        """The private key whose public half that is."""
        return next((PrivateKey(made.scalar.reveal()) for made in self._made if made.public == public), None)

    def spare(self, in_force: bytes) -> bytes:
        """The public half of the spare key; empty if there is none. ``in_force``: of the key that is used."""
        return next((made.public for made in reversed(self._made) if made.public != in_force), b"")

    # the blob -------------------------------------------------------------------------------------------------------

    def load(self, version: int, untrusted_blob: bytes) -> None:
        """Takes the stored blob; version 0 and no bytes if there is none yet.

        Errors: FloorError if it is not ours; there are no keys then, and the next write replaces it.
        """
        self.is_loaded = True
        if version >= VERSIONS:
            raise FloorError("has a version that writing cannot lead to")
        self._version = version
        if not untrusted_blob:
            return
        try:
            plain = crypto_secretbox_open(untrusted_blob[NONCE:], untrusted_blob[:NONCE], self._key)
            scalars = plain[_HEADER.size :]
            if _HEADER.unpack_from(plain) != (_MAGIC, version) or len(scalars) % KEY or len(scalars) > _MOST * KEY:
                raise FloorError("is sealed for another place or version")
        except (CryptoError, ValueError, struct.error) as refused:
            raise FloorError("is not sealed by our private key") from refused
        self._made = [_Made(scalars[at : at + KEY]) for at in range(0, len(scalars), KEY)]

    def due(self, in_force: bytes) -> float | None:
        """When a spare is to be made; None if there is one, or will be."""
        return None if not self.is_loaded or self._coming is not None or self.spare(in_force) else self._not_before

    def make(self, in_force: bytes, scalar: bytes, nonce: bytes) -> PersistFloor:
        """A spare, ``scalar``, once ``due``: the blob to put. ``stored`` or ``failed`` follows.

        ``scalar``, ``nonce``: KEY and NONCE fresh random bytes.
        """
        self._coming = [made for made in self._made if made.public == in_force] + [_Made(scalar)]
        version = self._version + 1
        plain = _HEADER.pack(_MAGIC, version) + b"".join(made.scalar.reveal() for made in self._coming)
        return PersistFloor(self.name, version, nonce + crypto_secretbox(plain, nonce, self._key))

    def stored(self, put: PersistFloor) -> None:
        """The store took ``put``: what is not in it is no more."""
        self._version = put.version
        if self._coming is not None:
            for made in self._made:
                if made not in self._coming:
                    made.scalar.wipe()
            self._made, self._coming = self._coming, None

    def failed(self, now: float) -> None:
        """The store did not take it: another one is made in a while."""
        self._coming = None
        self._not_before = now + PERSIST_RETRY
