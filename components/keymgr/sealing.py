"""Preshared keys in a configuration are sealed to keymgr: whoever carries or keeps it sees that there is one, no more.

The key that they are sealed to is derived from our private key (HKDF, RFC 5869), so that there is one secret to keep,
and is a key of its own: what opens sealed boxes never does the Diffie-Hellman of a handshake.
"""

from __future__ import annotations

from typing import Final

from nacl.bindings import crypto_box_seal_open, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from appliance.guest.secret import Secret
from components.keymgr.constants import KEY
from components.keymgr.noise import Buffer, kdf

_LABEL: Final = b"septum sealing key v1"


class SealingKey:
    """Opens what was sealed to ``public`` (X25519, libsodium's crypto_box_seal)."""

    __slots__ = ("_secret", "public")

    def __init__(self, private: Buffer) -> None:
        """``private``: our private key of WireGuard. The caller wipes its own copy."""
        (secret,) = kdf(1, _LABEL, private)
        self._secret = Secret(secret)
        self.public: bytes = crypto_scalarmult_base(self._secret.reveal())

    def open(self, untrusted: bytes) -> Secret:
        """The key in there. Errors: ValueError if it is none that was sealed to us."""
        try:
            key: bytes = crypto_box_seal_open(untrusted, self.public, self._secret.reveal())
        except (CryptoError, ValueError):
            raise ValueError("is not sealed to this box: ask it for its sealing key") from None
        if len(key) != KEY:
            raise ValueError(f"holds {len(key)} bytes, not a key of {KEY}")
        return Secret(key)
