"""Every number and label of the protocol, in one table.

Sections are those of the WireGuard paper (Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel"), unless
another source is named. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from typing import Final

# Names and labels --------------------------------------------------------------------------------------------
CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"  # 5.4
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"  # 5.4
LABEL_MAC1: Final = b"mac1----"  # 5.4.4
LABEL_COOKIE: Final = b"cookie--"  # 5.4.4, 5.4.7

# Message types: a little-endian u32, so that the three reserved zero bytes are part of it -----------------------
INITIATION: Final = 1  # 5.4.2
RESPONSE: Final = 2  # 5.4.3
COOKIE_REPLY: Final = 3  # 5.4.7

# Sizes ---------------------------------------------------------------------------------------------------------
KEY: Final = 32  # 5.4: Curve25519 points and scalars, ChaCha20Poly1305 keys, BLAKE2s hashes, pre-shared keys
TAG: Final = 16  # 5.4: AEAD
MAC: Final = 16  # 5.4.4: keyed BLAKE2s
COOKIE: Final = 16  # 5.4.7
COOKIE_NONCE: Final = 24  # 5.4.7: XChaCha20Poly1305
TIMESTAMP: Final = 12  # 5.4: TAI64N
INDEX: Final = 4  # 5.4.2: sender and receiver
INITIATION_SIZE: Final = 148  # 5.4.2
RESPONSE_SIZE: Final = 92  # 5.4.3
COOKIE_REPLY_SIZE: Final = 64  # 5.4.7
MACS: Final = 2 * MAC  # 5.4.4: mac1 and mac2 end an initiation and a response

# Limits of a session -------------------------------------------------------------------------------------------
REKEY_AFTER_MESSAGES: Final = 2**60  # 6.1
REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1  # 6.1
REKEY_AFTER_TIME: Final = 120.0  # 6.1
REJECT_AFTER_TIME: Final = 180.0  # 6.1
ZERO_AFTER_TIME: Final = 3 * REJECT_AFTER_TIME  # 6.3

# Handshakes ------------------------------------------------------------------------------------------------------
REKEY_TIMEOUT: Final = 5.0  # 6.1
REKEY_ATTEMPT_TIME: Final = 90.0  # 6.1
REKEY_JITTER: Final = 0.333  # 6.4 asks for jitter; a third of a second as in the kernel's implementation
INITIATION_SPACING: Final = 1 / 50  # wireguard-go, HandshakeInitationRate: initiations accepted from one peer

# Keepalives --------------------------------------------------------------------------------------------------------
KEEPALIVE_TIMEOUT: Final = 10.0  # 6.1
NEW_HANDSHAKE_TIME: Final = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT  # 6.5
REKEY_ON_RECEIVE_TIME: Final = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT  # 6.3

# Cookies -----------------------------------------------------------------------------------------------------------
COOKIE_LIFETIME: Final = 120.0  # 5.4.7 (the sender of a cookie changes its secret every two minutes)

# Timestamps ----------------------------------------------------------------------------------------------------
TAI64_EPOCH: Final = 2**62 + 10  # cr.yp.to/libtai/tai64.html; 10 leap seconds lay between TAI and UTC in 1970
TIMESTAMP_GRANULE: Final = 2**24  # nanoseconds, 16.8 ms: wireguard-go whitens its clock so that it is no side channel

# Ours ------------------------------------------------------------------------------------------------------------
REPORT_LAG: Final = 1.0  # how late a report of the crypto domains may be; see peer.py
RETIRED_TIME: Final = 10.0  # how long late reports may name a session that was forgotten
PERSIST_EVERY: Final = 1.0  # between two writes of one shard of the timestamp floor
PERSIST_RETRY: Final = 10.0  # after a write that failed
