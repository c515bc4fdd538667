"""HMAC_DRBG with SHA-256: NIST SP 800-90A revision 1 section 10.1.2. Seeds in, bytes out."""

from __future__ import annotations

import hmac
from typing import Final

MOST_BYTES: Final = 4096  # of one request; the standard would allow 65536
MOST_REQUESTS: Final = 1 << 20  # between two seeds; the standard would allow 2^48
SEED_BYTES: Final = 32  # the security strength of SHA-256: what a seed must hold of entropy at the least


class ReseedRequired(Exception):
    """The generator has given all that one seed is good for."""


class HmacDrbg:
    """One instantiation. Its state cannot be turned back: what it gave before stays secret if it leaks now."""

    __slots__ = ("_key", "_requests", "_value")

    def __init__(self, entropy: bytes, nonce: bytes, personalization: bytes = b"") -> None:
        """Instantiates from at least 32 bytes of entropy and a 16-byte nonce (section 10.1.2.3)."""
        _check_seed(entropy)
        if len(nonce) < SEED_BYTES // 2:
            raise ValueError("a nonce of at least half the security strength is needed")
        self._key = bytearray(32)
        self._value = bytearray(b"\x01" * 32)
        self._update(entropy + nonce + personalization)
        self._requests = 0

    def __repr__(self) -> str:
        return "<HmacDrbg>"

    def reseed(self, entropy: bytes, additional: bytes = b"") -> None:
        """Mixes in at least 32 bytes of fresh entropy (section 10.1.2.4)."""
        _check_seed(entropy)
        self._update(entropy + additional)
        self._requests = 0

    def generate(self, length: int, additional: bytes = b"") -> bytes:
        """1 to MOST_BYTES bytes (section 10.1.2.5). Errors: ReseedRequired; ValueError for another length."""
        if not 1 <= length <= MOST_BYTES:
            raise ValueError(f"{length} bytes asked of a generator that gives 1 to {MOST_BYTES}")
        if self._requests >= MOST_REQUESTS:
            raise ReseedRequired
        if additional:
            self._update(additional)
        given = bytearray()
        while len(given) < length:
            self._value[:] = hmac.digest(self._key, self._value, "sha256")
            given += self._value
        self._update(additional)
        self._requests += 1
        return bytes(given[:length])

    def _update(self, provided: bytes) -> None:
        """Section 10.1.2.2."""
        for separator in (b"\0", b"\1") if provided else (b"\0",):
            self._key[:] = hmac.digest(self._key, bytes(self._value) + separator + provided, "sha256")
            self._value[:] = hmac.digest(self._key, self._value, "sha256")


def self_test() -> None:
    """The known-answer test at the start (section 11.3), with NIST's first HMAC_DRBG vector for SHA-256.

    Errors: RuntimeError if this machine's HMAC does not compute HMAC.
    """
    entropy = bytes.fromhex("ca851911349384bffe89de1cbdc46e6831e44d34a4fb935ee285dd14b71a7488")
    drbg = HmacDrbg(entropy, bytes.fromhex("659ba96c601dc69fc902940805ec0ca8"))
    drbg.generate(128)
    if drbg.generate(128)[:16].hex() != "e528e9abf2dece54d47c7e75e5fe3021":
        raise RuntimeError("HMAC_DRBG does not give its known answer: this machine's SHA-256 is broken")


def _check_seed(entropy: bytes) -> None:
    if len(entropy) < SEED_BYTES:
        raise ValueError(f"a seed of {len(entropy)} bytes cannot hold {8 * SEED_BYTES} bits of entropy")
