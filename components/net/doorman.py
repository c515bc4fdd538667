"""The doorman: who may reach the key manager (WireGuard paper, sections 5.3, 5.4.4, 5.4.7).

All it knows is public, but for a cookie secret that is worth two minutes of flood protection. A datagram is sorted by
type and length, a handshake is checked for its mac1, which costs a hash instead of the key manager's Diffie-Hellmans.
Under load a handshake must also prove by its mac2 that its source is no forgery; only then is it counted against its
source, so that nobody can use up the rate of another.
"""

from __future__ import annotations

import hmac
from enum import Enum
from hashlib import blake2s
from typing import Final

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from components.net.ratelimit import RateLimiter

# Section 5.4: types and lengths. Transport data has no fixed length: padding stops at the tunnel's MTU
INITIATION: Final = 1
RESPONSE: Final = 2
COOKIE_REPLY: Final = 3
TRANSPORT_DATA: Final = 4
LENGTHS: Final = {INITIATION: 148, RESPONSE: 92, COOKIE_REPLY: 64}
TRANSPORT_BYTES: Final = 32  # the shortest

LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"
MAC_BYTES: Final = 16
COOKIE_SECRET_TIME: Final = 120.0  # seconds
COOKIE_SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 24
RANDOM_BYTES: Final = 64  # a cookie secret and a seed for nonces

# As WireGuard's ratelimiter
SOURCE_RATE: Final = 20.0  # handshakes a second of one source
SOURCE_BURST: Final = 5
MOST_SOURCES: Final = 8192
# What the key manager does without noticing
LOAD_RATE: Final = 400.0  # handshakes a second of all sources together; ten thousand peers rekey at a quarter of it
LOAD_BURST: Final = 256
LOAD_TIME: Final = 1.0  # seconds that a load is taken to last
# Cookie replies prove nothing of their source, so that all share one rate. It is far above what anybody needs, for a
# genuine one to get through amid forged ones, each of which costs the key manager one lookup in a table
REPLY_RATE: Final = 1000.0  # a second
REPLY_BURST: Final = 200


class Verdict(Enum):
    """What becomes of a datagram. What is turned away is counted under the value's name."""

    TRANSPORT = "transport"
    HANDSHAKE = "handshake"
    COOKIE = "cookies_sent"
    MALFORMED = "malformed"
    BAD_MAC1 = "bad_mac1"
    RATE_LIMITED = "rate_limited"


def is_transport(untrusted: memoryview, size: int) -> bool:
    """Whether every datagram of a group may be transport data, by its first byte and length.

    decrypt looks again, at the three reserved zeros as well: here they would make this six times as slow, for a group
    of 44, and keep nobody out who can write zeros.
    """
    count, rest = divmod(len(untrusted), size)
    if size < TRANSPORT_BYTES or 0 < rest < TRANSPORT_BYTES:
        return False
    return untrusted[::size].tobytes() == bytes((TRANSPORT_DATA,)) * (count + (rest > 0))


def _mac(key: bytes, *parts: bytes | memoryview) -> bytes:
    """Mac of section 5.4: keyed BLAKE2s, 16 bytes."""
    state = blake2s(key=key, digest_size=MAC_BYTES)
    for part in parts:
        state.update(part)
    return state.digest()


class Doorman:
    """Judges datagrams for the holder of ``public_key`` (32 bytes)."""

    def __init__(self, public_key: bytes) -> None:
        self.rekey(public_key)
        self._secret = b""
        self._nonce_seed = b""
        self._nonces = 0
        self._secret_due = float("-inf")
        self._loaded_until = float("-inf")
        self._sources = RateLimiter(SOURCE_RATE, SOURCE_BURST, MOST_SOURCES)
        self._load = RateLimiter(LOAD_RATE, LOAD_BURST, 1)
        self._replies = RateLimiter(REPLY_RATE, REPLY_BURST, 1)

    def rekey(self, public_key: bytes) -> None:
        """Judges for the holder of this one from now on."""
        self._mac1_key = blake2s(LABEL_MAC1 + public_key).digest()
        self._cookie_key = blake2s(LABEL_COOKIE + public_key).digest()

    # the cookie secret ------------------------------------------------------------------------------------------------

    def secret_due(self) -> float:
        """When ``renew`` should be called next (monotonic seconds)."""
        return self._secret_due

    def renew(self, random: bytes, now: float) -> None:
        """Takes a new cookie secret: RANDOM_BYTES of randomness. Errors: ValueError for any other length."""
        if len(random) != RANDOM_BYTES:
            raise ValueError(f"{RANDOM_BYTES} bytes are needed, not {len(random)}")
        self._secret, self._nonce_seed = random[:COOKIE_SECRET_BYTES], random[COOKIE_SECRET_BYTES:]
        self._nonces = 0
        self._secret_due = now + COOKIE_SECRET_TIME

    # datagrams --------------------------------------------------------------------------------------------------------

    def judge(
        self, untrusted: memoryview, address: bytes, port: int, now: float, is_pressed: bool
    ) -> tuple[Verdict, bytes]:
        """What to do with one datagram, and with COOKIE the reply to send to where it came from.

        ``is_pressed``: the key manager is behind with its work. Never raises.
        """
        kind = int.from_bytes(untrusted[:4], "little")  # with the three reserved zeros of section 5.4
        size = len(untrusted)
        if kind == TRANSPORT_DATA and size >= TRANSPORT_BYTES:
            return Verdict.TRANSPORT, b""
        if LENGTHS.get(kind) != size:
            return Verdict.MALFORMED, b""
        if kind == COOKIE_REPLY:
            return Verdict.HANDSHAKE if self._replies.allows(b"", now) else Verdict.RATE_LIMITED, b""
        mac1_at, mac2_at = size - 2 * MAC_BYTES, size - MAC_BYTES
        mac1 = untrusted[mac1_at:mac2_at]
        if not hmac.compare_digest(_mac(self._mac1_key, untrusted[:mac1_at]), mac1):
            return Verdict.BAD_MAC1, b""
        if not self._is_loaded(now, is_pressed):
            return Verdict.HANDSHAKE, b""
        if not self._secret:  # no randomness yet: no cookie can be given, so no load can be let in
            return Verdict.RATE_LIMITED, b""
        cookie = _mac(self._secret, address, port.to_bytes(2, "big"))
        if not hmac.compare_digest(_mac(cookie, untrusted[:mac2_at]), untrusted[mac2_at:]):
            return Verdict.COOKIE, self._cookie_reply(untrusted[4:8], mac1, cookie)
        source = address if len(address) == 4 else address[:8]  # one host: a /32 of IPv4, a /64 of IPv6
        return Verdict.HANDSHAKE if self._sources.allows(source, now) else Verdict.RATE_LIMITED, b""

    def _is_loaded(self, now: float, is_pressed: bool) -> bool:
        if is_pressed or not self._load.allows(b"", now):
            self._loaded_until = now + LOAD_TIME
        return now < self._loaded_until

    def _cookie_reply(self, sender: memoryview, mac1: memoryview, cookie: bytes) -> bytes:
        """Section 5.4.7. The nonces are as good as random, and none comes twice: a keyed hash of their number."""
        number = self._nonces.to_bytes(8, "little")
        self._nonces += 1
        nonce = blake2s(number, key=self._nonce_seed, digest_size=NONCE_BYTES).digest()
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(cookie, bytes(mac1), nonce, self._cookie_key)
        return COOKIE_REPLY.to_bytes(4, "little") + bytes(sender) + nonce + sealed
