"""That keys are the box's own, and not made up by who passes them on.

Whoever asks sends the public half of an X25519 key that was made for the question. The box, which holds the private
half of its public key in handshakes, and whoever asks, who knows that public key from elsewhere, have a secret in
common (RFC 7748 section 6.1); what is shown is hashed under it. Nobody in between has it.
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Final

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

_LABEL: Final = b"septum keys 1\0"
KEY: Final = 32


def prove(shared: bytes | bytearray, challenge: bytes, public: bytes, sealing: bytes, spare: bytes) -> bytes:
    """The proof. ``shared``: the secret of the question; ``spare``: 32 bytes, or none."""
    return blake2s(_LABEL + challenge + public + sealing + spare, key=bytes(shared)).digest()


class Question:
    """One question: ``challenge`` goes along with it."""

    def __init__(self, random: bytes) -> None:
        """``random``: 32 fresh random bytes."""
        self._private = random
        self.challenge: bytes = crypto_scalarmult_base(random)

    def is_answered(self, known: bytes, sealing: bytes, spare: bytes, proof: bytes) -> bool:
        """Whether the holder of ``known``, the box's public key in force, says that its other keys are these."""
        try:
            shared = crypto_scalarmult(self._private, known)
        except RuntimeError:  # libsodium's word for a point of small order
            return False
        return proof == prove(shared, self.challenge, known, sealing, spare)
