"""WireGuard keys in the form that ``wg`` prints and takes: 32 bytes, base64."""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


def genkey() -> str:
    """A new private key, clamped as RFC 7748 section 5 has it (as ``wg genkey`` prints it)."""
    key = bytearray(os.urandom(32))
    key[0] &= 248
    key[31] = (key[31] & 127) | 64
    return base64.b64encode(key).decode()


def genpsk() -> str:
    """A new preshared key."""
    return base64.b64encode(os.urandom(32)).decode()


def pubkey(private: str) -> str:
    """The public key of a base64 private key. ValueError if it is not one."""
    try:
        raw = base64.b64decode(private.strip(), validate=True)
    except ValueError:
        raise ValueError("not base64") from None
    if len(raw) != 32:
        raise ValueError(f"a key has 32 bytes; this has {len(raw)}")
    return base64.b64encode(X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()).decode()
