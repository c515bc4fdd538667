"""The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as section 5.4 of the WireGuard paper has it.

    IKpsk2:  <- s   ...   -> e, es, s, ss   <- e, ee, se, psk

Names follow the paper: C is the chaining key, H the hash, ``static_static`` is DH(S_i, S_r). Bytes in, bytes out:
random bytes and timestamps are arguments. Secrets live in bytearrays and are wiped by whoever owns them; what OpenSSL
and the AEAD keep for the length of one call is beyond our reach, and so are the ``bytes`` that they return.
"""

from __future__ import annotations

import hashlib
from typing import Final

import cryptography.hazmat.backends.openssl.backend  # noqa: F401  what makes a key imports it when first called: then it must be there
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from components.keymgr.constants import CONSTRUCTION, IDENTIFIER, KEY
from components.keymgr.messages import Initiation, Response, pack_initiation, pack_response

Buffer = bytes | bytearray

_BLOCK: Final = 64  # of BLAKE2s
_IPAD, _OPAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


class HandshakeError(Exception):
    """A message that is not authentic, or a public key that no honest peer has."""


def wipe(*secrets: bytearray) -> None:
    """Overwrites each with zeros."""
    for secret in secrets:
        secret[:] = bytes(len(secret))


def hash_(*parts: Buffer) -> bytes:
    """HASH: BLAKE2s of the parts one after another, 32 bytes (5.4)."""
    digest = hashlib.blake2s()
    for part in parts:
        digest.update(part)
    return digest.digest()


def kdf(count: int, key: Buffer, secret: Buffer) -> list[bytearray]:
    """KDF_n(key, input) of 5.4: ``count`` outputs of 32 bytes, HKDF (RFC 5869) with HMAC-BLAKE2s.

    HMAC(k, m) = H(k ^ opad || H(k ^ ipad || m)) (RFC 2104), spelled out: the module hmac takes twice as long, and a
    handshake is made of 21 of them.
    """
    blake2s = hashlib.blake2s
    inner, outer = _pads(key)
    inner, outer = _pads(blake2s(outer + blake2s(inner + secret).digest()).digest())
    output = b""
    outputs = []
    for number in range(1, count + 1):
        output = blake2s(outer + blake2s(inner + output + bytes((number,))).digest()).digest()
        outputs.append(bytearray(output))
    return outputs


def _pads(key: Buffer) -> tuple[Buffer, Buffer]:
    """``key`` of at most a block's 64 bytes, as HMAC begins its two hashes with it."""
    block = key.ljust(_BLOCK, b"\0")
    return block.translate(_IPAD), block.translate(_OPAD)


class PrivateKey:
    """A Curve25519 key pair, static or ephemeral. The scalar is inside OpenSSL, and comes out never."""

    __slots__ = ("_key", "public")

    def __init__(self, scalar: Buffer) -> None:
        """``scalar``: 32 bytes, clamped as RFC 7748 section 5 has it. The caller wipes its own copy."""
        self._key = X25519PrivateKey.from_private_bytes(scalar)
        self.public = self._key.public_key().public_bytes_raw()

    def dh(self, untrusted_public: bytes) -> bytearray:
        """DH(private, public) of 5.4: 32 secret bytes, the caller's to wipe.

        Errors: HandshakeError if the result is all zero: the point has a small order (RFC 7748 section 6.1).
        """
        try:
            return bytearray(self._key.exchange(X25519PublicKey.from_public_bytes(untrusted_public)))
        except ValueError as refused:
            raise HandshakeError("a public key of small order") from refused


class TransportKeys:
    """The two keys of a session, 32 bytes each (5.4.5). Whoever takes one of them wipes it."""

    __slots__ = ("receive", "send")

    def __init__(self, send: bytearray, receive: bytearray) -> None:
        self.send = send
        self.receive = receive

    def wipe(self) -> None:
        wipe(self.send, self.receive)


_NONCE: Final = bytes(12)  # every handshake key seals one message only, with counter 0
_CHAIN: Final = hash_(CONSTRUCTION)  # 5.4.2: C_i := HASH(CONSTRUCTION)
_HASH: Final = hash_(_CHAIN, IDENTIFIER)  # 5.4.2: H_i := HASH(C_i || IDENTIFIER)


class _Symmetric:
    """C and H, and the steps that both messages are made of."""

    __slots__ = ("chain", "hash")

    def __init__(self, chain: Buffer, digest: bytes) -> None:
        self.chain = bytearray(chain)
        self.hash = digest

    @classmethod
    def towards(cls, responder_public: bytes) -> _Symmetric:
        """5.4.2: H_i := HASH(H_i || S_r^pub)."""
        return cls(_CHAIN, hash_(_HASH, responder_public))

    def copy(self) -> _Symmetric:
        return _Symmetric(self.chain, self.hash)

    def ephemeral(self, public: bytes) -> None:
        """5.4.2, 5.4.3: C := KDF_1(C, E^pub); H := HASH(H || E^pub)."""
        self._advance(*kdf(1, self.chain, public))
        self.hash = hash_(self.hash, public)

    def mix(self, secret: bytearray) -> None:
        """5.4.3: C := KDF_1(C, DH). Wipes ``secret``."""
        self._advance(*kdf(1, self.chain, secret))
        wipe(secret)

    def key(self, secret: bytearray) -> bytearray:
        """5.4.2: (C, k) := KDF_2(C, DH). ``secret`` stays its owner's to wipe."""
        chain, key = kdf(2, self.chain, secret)
        self._advance(chain)
        return key

    def preshared(self, psk: Buffer) -> bytearray:
        """5.4.3: (C, tau, k) := KDF_3(C, Q); H := HASH(H || tau)."""
        chain, tau, key = kdf(3, self.chain, psk)
        self._advance(chain)
        self.hash = hash_(self.hash, tau)
        wipe(tau)
        return key

    def seal(self, key: bytearray, plaintext: bytes) -> bytes:
        """5.4.2: msg := AEAD(k, 0, plaintext, H); H := HASH(H || msg). Wipes ``key``."""
        sealed = ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, self.hash)
        wipe(key)
        self.hash = hash_(self.hash, sealed)
        return sealed

    def open(self, key: bytearray, untrusted_sealed: bytes) -> bytes:
        """The other side of ``seal``. Wipes ``key``. Errors: HandshakeError if it is not authentic."""
        try:
            plaintext = ChaCha20Poly1305(key).decrypt(_NONCE, untrusted_sealed, self.hash)
        except InvalidTag as refused:
            raise HandshakeError("not authentic") from refused
        finally:
            wipe(key)
        self.hash = hash_(self.hash, untrusted_sealed)
        return plaintext

    def split(self) -> tuple[bytearray, bytearray]:
        """5.4.5: (T_i^send = T_r^recv, T_i^recv = T_r^send) := KDF_2(C, empty)."""
        first, second = kdf(2, self.chain, b"")
        return first, second

    def wipe(self) -> None:
        wipe(self.chain)

    def _advance(self, chain: bytearray) -> None:
        wipe(self.chain)
        self.chain = chain


class Initiator:
    """Our side of a handshake that we began: ``body`` goes out, ``finish`` takes the response."""

    __slots__ = ("_ephemeral", "_psk", "_state", "_static", "body")

    def __init__(
        self,
        static: PrivateKey,
        responder_public: bytes,
        static_static: bytearray,
        *,
        psk: Buffer,
        ephemeral: Buffer,
        index: int,
        timestamp: bytes,
    ) -> None:
        """5.4.2. ``ephemeral``: 32 fresh random bytes. ``psk``: 32 bytes, zeros if there is none.

        Errors: HandshakeError if ``responder_public`` has a small order.
        """
        self._static = static
        self._psk = psk
        self._ephemeral = PrivateKey(ephemeral)
        self._state = state = _Symmetric.towards(responder_public)
        state.ephemeral(self._ephemeral.public)
        es = self._ephemeral.dh(responder_public)
        sealed_static = state.seal(state.key(es), static.public)
        wipe(es)
        sealed_timestamp = state.seal(state.key(static_static), timestamp)
        # An initiation without its MACs: 116 bytes
        self.body = pack_initiation(Initiation(index, self._ephemeral.public, sealed_static, sealed_timestamp))

    def finish(self, untrusted_response: Response) -> TransportKeys:
        """5.4.3 and 5.4.5: checks the response and derives the session's keys.

        Errors: HandshakeError; nothing has changed then, and a genuine response is still welcome.
        """
        state = self._state.copy()
        try:
            state.ephemeral(untrusted_response.ephemeral)
            state.mix(self._ephemeral.dh(untrusted_response.ephemeral))
            state.mix(self._static.dh(untrusted_response.ephemeral))
            state.open(state.preshared(self._psk), untrusted_response.empty)
            send, receive = state.split()
        finally:
            state.wipe()
        return TransportKeys(send=send, receive=receive)

    def wipe(self) -> None:
        """Forgets the handshake: ``finish`` must not be called any more."""
        self._state.wipe()
        del self._ephemeral


class Responder:
    """Our side of a handshake that a peer began, in three steps: who claims to be there, is it true, the answer."""

    __slots__ = ("_ephemeral", "_state", "_timestamp", "receiver", "untrusted_peer")

    def __init__(self, static: PrivateKey, untrusted_initiation: Initiation) -> None:
        """5.4.2 up to the static key: ``untrusted_peer`` is whom the initiation claims to come from.

        Anyone who knows our public key gets this far. Errors: HandshakeError.
        """
        self.receiver = untrusted_initiation.sender  # the index that the peer wants its packets to carry
        self._ephemeral = untrusted_initiation.ephemeral
        self._timestamp = untrusted_initiation.timestamp
        self._state = state = _Symmetric.towards(static.public)
        state.ephemeral(self._ephemeral)
        es = static.dh(self._ephemeral)
        self.untrusted_peer = state.open(state.key(es), untrusted_initiation.static)
        wipe(es)

    def authenticate(self, static_static: bytearray) -> bytes:
        """5.4.2, the rest: proves that ``untrusted_peer`` sent it, once; returns its timestamp, which tells when.

        Errors: HandshakeError.
        """
        return self._state.open(self._state.key(static_static), self._timestamp)

    def respond(self, index: int, psk: Buffer, ephemeral: Buffer) -> tuple[bytes, TransportKeys]:
        """5.4.3 and 5.4.5: a response without its MACs (60 bytes), and the keys. The handshake is wiped after it.

        ``ephemeral``: 32 fresh random bytes. Errors: HandshakeError.
        """
        state = self._state
        key = PrivateKey(ephemeral)
        try:
            state.ephemeral(key.public)
            state.mix(key.dh(self._ephemeral))
            state.mix(key.dh(self.untrusted_peer))
            empty = state.seal(state.preshared(psk), b"")
            receive, send = state.split()
        finally:
            state.wipe()
        body = pack_response(Response(index, self.receiver, key.public, empty))
        return body, TransportKeys(send=send, receive=receive)

    def wipe(self) -> None:
        self._state.wipe()


NO_PSK: Final = bytes(KEY)  # 5.4: "Q is an all-zero 32 bytes value if pre-shared keys are not in use"
