"""The token of an invitation: all that a new administrator is told, in one word to copy.

    "septum-" + base64url( 2 | box (32) | console key (32) | seed of the invitation's key (32) | WireGuard key (32)
        | words | sum (4) )

The words, with blanks between them, are who is invited, what the box is called, and where it is. ``box`` pins the box's
authority, the console's key pins its roster, the seed signs one "enroll" statement. The box's public WireGuard key, as
the inviting one knows it, is what the invited one believes in from the first day; zeros: it was not known. Whoever has
the token can enroll in the invited one's place, once: it goes by a channel that the security officer trusts. The sum,
of BLAKE2s, finds words that were not copied whole.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final, NamedTuple

from appliance.ctl.contexts import host_and_port

_WORD: Final = "septum-"
_VERSION: Final = 2
_FIELDS: Final = 4  # of 32 bytes
_KEY: Final = 32
_SUM: Final = 4
_LONGEST: Final = 2048


class Token(NamedTuple):
    """``box`` and ``console`` in hexadecimal; ``seed`` 32 bytes; ``name`` is invited to the box called ``title``, which
    the inviting one reaches at ``address``. ``key`` is the box's WireGuard key, in base64; empty: not known.
    """

    box: str
    console: str
    seed: bytes
    name: str
    title: str
    address: str
    key: str = ""


def write(token: Token) -> str:
    body = bytes([_VERSION]) + bytes.fromhex(token.box) + bytes.fromhex(token.console) + token.seed
    body += base64.b64decode(token.key) if token.key else bytes(_KEY)
    body += f"{token.name} {token.title} {token.address}".encode()
    return _WORD + base64.urlsafe_b64encode(body + _sum(body)).decode().rstrip("=")


def read(text: str) -> Token:
    """Errors: ValueError, which shows nothing of the token."""
    text = "".join(text.split())
    if not text.startswith(_WORD) or len(text) > _LONGEST:
        raise ValueError(f"this is no token of an invitation: it begins with {_WORD!r}")
    word = text.removeprefix(_WORD)
    try:
        raw = base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body, total = raw[:-_SUM], raw[-_SUM:]
    if len(body) <= 1 + _FIELDS * _KEY or _sum(body) != total:
        raise ValueError("this token is damaged: was it copied whole?")
    if body[0] != _VERSION:
        raise ValueError(f"this token is of version {body[0]}, which a newer septumctl reads")
    box, console, seed, key = (body[1 + i * _KEY : 1 + (i + 1) * _KEY] for i in range(_FIELDS))
    words = body[1 + _FIELDS * _KEY :].decode(errors="replace").split(" ")
    if len(words) != 3 or not all(word.isprintable() for word in words):
        raise ValueError("this token is of another kind, which a newer septumctl reads")
    host_and_port(words[2])
    name, title, address = words
    known = base64.b64encode(key).decode() if any(key) else ""
    return Token(box.hex(), console.hex(), seed, name, title, address, known)


def _sum(body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_SUM, person=b"token").digest()
