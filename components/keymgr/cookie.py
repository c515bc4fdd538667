"""mac1 and mac2 of what we send, and the cookie that makes mac2 (sections 5.4.4 and 5.4.7)."""

from __future__ import annotations

import hashlib
import hmac

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError

from components.keymgr.constants import COOKIE_LIFETIME, LABEL_COOKIE, LABEL_MAC1, MAC, MACS
from components.keymgr.messages import CookieReply
from components.keymgr.noise import hash_


class CookieError(Exception):
    """A cookie reply that answers nothing that we sent."""


def mac(key: bytes, data: bytes) -> bytes:
    """MAC: keyed BLAKE2s, 16 bytes (5.4)."""
    return hashlib.blake2s(data, key=key, digest_size=MAC).digest()


def mac1_key(public: bytes) -> bytes:
    """HASH(LABEL-MAC1 || S_m^pub): what whoever writes to ``public`` makes mac1 with (5.4.4)."""
    return hash_(LABEL_MAC1, public)


def mac1_is_right(key: bytes, untrusted_datagram: bytes) -> bool:
    """Whether an initiation or response carries the mac1 of one who knows the key that ``key`` was made from."""
    return hmac.compare_digest(mac(key, untrusted_datagram[:-MACS]), untrusted_datagram[-MACS:-MAC])


class CookieJar:
    """The MACs of the messages to one peer, and the last cookie it gave us.

    A cookie is good for COOKIE_LIFETIME seconds. It is taken only in answer to the very message sent last, whose mac1
    it is sealed with, and once.
    """

    __slots__ = ("_cookie", "_cookie_key", "_mac1_key", "_sent_mac1", "_until")

    def __init__(self, peer_public: bytes) -> None:
        self._mac1_key = mac1_key(peer_public)
        self._cookie_key = hash_(LABEL_COOKIE, peer_public)
        self._sent_mac1: bytes | None = None
        self._cookie = b""
        self._until = 0.0

    def sign(self, body: bytes, now: float) -> bytes:
        """``body`` with mac1, and with mac2 if there is a fresh cookie (zeros if not): a datagram to send (5.4.4)."""
        mac1 = mac(self._mac1_key, body)
        self._sent_mac1 = mac1
        mac2 = mac(self._cookie, body + mac1) if self._cookie and now < self._until else bytes(MAC)
        return body + mac1 + mac2

    def consume(self, untrusted_reply: CookieReply, now: float) -> None:
        """Keeps the cookie of a reply (5.4.7).

        Errors: CookieError if nothing awaits one or the reply is not authentic; the jar is unchanged then.
        """
        if self._sent_mac1 is None:
            raise CookieError("answers no message of ours")
        try:
            cookie = crypto_aead_xchacha20poly1305_ietf_decrypt(
                untrusted_reply.cookie, self._sent_mac1, untrusted_reply.nonce, self._cookie_key
            )
        except CryptoError as refused:
            raise CookieError("is not authentic") from refused
        self._cookie = cookie
        self._until = now + COOKIE_LIFETIME
        self._sent_mac1 = None

    def empty(self) -> None:
        """Forgets the cookie."""
        self._cookie = b""
        self._sent_mac1 = None
