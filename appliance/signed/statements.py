"""What an administrator can state, and how it is signed.

Two chains, each statement naming the one before it by its digest. The *roster*, numbered by ``serial``, says who may
sign, and by which key the box itself is known: ``Invite``, ``Enroll``, ``Revoke``, ``Rekey``. The *commits*, numbered
by ``revision``, say what is in force: ``Commit``. A ``Confirm`` and a ``Rehearse`` stand beside the chain. A
statement is canonical JSON with exactly the fields of its kind, keys and digests in hexadecimal; its signature is
Ed25519 (RFC 8032) over ``CONTEXT`` and those bytes.

An invitation is itself a signing key, good for one statement: whoever was handed the token signs with it the key that
they made for themselves. So a token cannot be used by who carries the messages, nor used twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, NamedTuple

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from appliance.signed import canonical
from appliance.signed.canonical import DIGEST, LARGEST_INTEGER
from appliance.signed.refusal import Refusal, Why

CONTEXT: Final = b"septum statement 1\0"
"""What is signed begins with this, so that a signature means a statement of Septum's and nothing else."""

LONGEST: Final = 4096  # bytes of a statement
KEY: Final = 32
SEED: Final = 32
SIGNATURE: Final = 64
NONE: Final = bytes(DIGEST)
"""What the first statement of a chain follows."""

LONGEST_CONFIRM: Final = 7 * 86_400  # seconds
LONGEST_COMMENT: Final = 500  # characters
_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,62}")


class Role(IntEnum):
    """What an administrator may do; each may do what those below it may."""

    VIEWER = 1
    OPERATOR = 2
    SECURITY_OFFICER = 3

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


ROLES: Final = {str(role): role for role in Role}


class Invite(NamedTuple):
    """``by`` invites ``name`` to be ``role``. ``key``: public half of the invitation's key. Times: ms since 1970."""

    box: bytes
    serial: int
    follows: bytes
    at: int
    by: str
    name: str
    role: Role
    key: bytes
    expires: int


class Enroll(NamedTuple):
    """``by``, who was invited under that name, signs with ``key`` from now on."""

    box: bytes
    serial: int
    follows: bytes
    at: int
    by: str
    key: bytes


class Revoke(NamedTuple):
    """``name``'s key, or the invitation, is worth nothing from now on."""

    box: bytes
    serial: int
    follows: bytes
    at: int
    by: str
    name: str


class Rekey(NamedTuple):
    """``key``, one that the box has made, is its public key in handshakes from now on. It is no part of a commit, since
    what is rolled back must not bring a key back that was given up.
    """

    box: bytes
    serial: int
    follows: bytes
    at: int
    by: str
    key: bytes


class Commit(NamedTuple):
    """These sections are in force. ``roster``: the serial of the roster that ``by`` knew. ``confirm``: seconds until it
    is rolled back unless confirmed, 0 if it needs none. ``restores``: the revision it goes back to, 0 if none.
    """

    box: bytes
    revision: int
    follows: bytes
    roster: int
    at: int
    by: str
    comment: str
    confirm: int
    restores: int
    peers: bytes
    ruleset: bytes
    rules: bytes


class Rehearse(NamedTuple):
    """What would become of such a commit? To be answered, and never put in force: it is signed as what it is."""

    box: bytes
    revision: int
    follows: bytes
    roster: int
    at: int
    by: str
    comment: str
    confirm: int
    restores: int
    peers: bytes
    ruleset: bytes
    rules: bytes


class Confirm(NamedTuple):
    """``revision`` stays: that whose statement has the digest ``commit``, and no other signed for its place."""

    box: bytes
    revision: int
    commit: bytes
    roster: int
    at: int
    by: str


Statement = Invite | Enroll | Revoke | Rekey | Commit | Rehearse | Confirm
RosterStatement = Invite | Enroll | Revoke | Rekey

KINDS: Final[dict[str, type[Any]]] = {
    kind.__name__.lower(): kind for kind in (Invite, Enroll, Revoke, Rekey, Commit, Rehearse, Confirm)
}

PERMITTED: Final[dict[type[Any], Role]] = {
    Invite: Role.SECURITY_OFFICER,
    Revoke: Role.SECURITY_OFFICER,
    Rekey: Role.SECURITY_OFFICER,
    Commit: Role.OPERATOR,
    Rehearse: Role.OPERATOR,
    Confirm: Role.OPERATOR,
}
"""The least role that may sign each; an Enroll is signed by the invitation."""


class Signed(NamedTuple):
    """A statement as it travels."""

    statement: bytes
    signature: bytes


# fields: from and to JSON ---------------------------------------------------------------------------------------------


def _number(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number in {low} to {high}")
        return value

    return read


def _hexadecimal(size: int) -> Callable[[Any], bytes]:
    pattern = re.compile(f"[0-9a-f]{{{2 * size}}}")

    def read(value: Any) -> bytes:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"must be {size} bytes in hexadecimal")
        return bytes.fromhex(value)

    return read


def name(value: Any) -> str:
    """An administrator's name. Errors: ValueError."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("must be a name: a small letter, then small letters, digits, '.', '_' or '-', 63 in all")
    return value


def role(value: Any) -> Role:
    """A role by its name. Errors: ValueError."""
    found = ROLES.get(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"must be one of {', '.join(ROLES)}")
    return found


def comment(value: Any) -> str:
    """A line about a commit. Errors: ValueError."""
    if not isinstance(value, str) or len(value) > LONGEST_COMMENT or not value.isprintable():
        raise ValueError(f"must be one line of at most {LONGEST_COMMENT} printable characters")
    return value


_FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    "box": _hexadecimal(DIGEST),
    "serial": _number(1, LARGEST_INTEGER),
    "revision": _number(1, LARGEST_INTEGER),
    "follows": _hexadecimal(DIGEST),
    "roster": _number(0, LARGEST_INTEGER),
    "at": _number(0, LARGEST_INTEGER),
    "expires": _number(0, LARGEST_INTEGER),
    "by": name,
    "name": name,
    "role": role,
    "key": _hexadecimal(KEY),
    "comment": comment,
    "confirm": _number(0, LONGEST_CONFIRM),
    "restores": _number(0, LARGEST_INTEGER),
    "commit": _hexadecimal(DIGEST),
    "peers": _hexadecimal(DIGEST),
    "ruleset": _hexadecimal(DIGEST),
    "rules": _hexadecimal(DIGEST),
}


def encode(statement: Statement) -> bytes:
    """The bytes that are signed, without the context. Errors: ValueError if ``parse`` would not give it back."""
    table: dict[str, Any] = {"kind": type(statement).__name__.lower()}
    for field, value in statement._asdict().items():
        table[field] = value.hex() if isinstance(value, bytes) else str(value) if isinstance(value, Role) else value
    text = canonical.encode(table)
    try:
        if parse(text) == statement:
            return text
    except Refusal as refusal:
        raise ValueError(str(refusal)) from None
    raise ValueError("it would be read as another one")


def parse(untrusted: bytes) -> Statement:
    """The statement in these bytes, well formed and not yet believed. Errors: Refusal (MALFORMED)."""
    table = canonical.decode(untrusted, LONGEST)
    if not isinstance(table, dict):
        raise Refusal(Why.MALFORMED, "must be a table")
    word = table.pop("kind", None)
    kind = KINDS.get(word) if isinstance(word, str) else None
    if kind is None:
        raise Refusal(Why.MALFORMED, f"must be one of {', '.join(KINDS)}", "kind")
    if (stray := sorted(table.keys() ^ set(kind._fields))) != []:
        raise Refusal(Why.MALFORMED, f"must be there in {word}, and nothing else", stray[0][:64])
    values = {}
    for field in kind._fields:
        try:
            values[field] = _FIELDS[field](table[field])
        except ValueError as error:
            raise Refusal(Why.MALFORMED, str(error), field) from None
    statement: Statement = kind(**values)
    return statement


# signatures -----------------------------------------------------------------------------------------------------------


def public_key(seed: bytes) -> bytes:
    """The public key, 32 bytes, of the signing key with this seed. Errors: ValueError if it is not 32 bytes."""
    return bytes(crypto_sign_seed_keypair(seed)[0])


def sign(statement: Statement, seed: bytes) -> Signed:
    """``statement``, signed with the key of this seed. Errors: ValueError."""
    text = encode(statement)
    secret = crypto_sign_seed_keypair(seed)[1]
    return Signed(text, bytes(crypto_sign(CONTEXT + text, secret)[:SIGNATURE]))


def check_signature(signed: Signed, key: bytes) -> None:
    """Errors: Refusal (BAD_SIGNATURE) unless the holder of ``key`` signed it."""
    try:
        crypto_sign_open(signed.signature + CONTEXT + signed.statement, key)
    except (BadSignatureError, ValueError):
        raise Refusal(Why.BAD_SIGNATURE, "is not signed by whom it says", "by") from None
