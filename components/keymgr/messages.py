"""The three handshake messages on the wire: exact sizes, reserved bytes zero, little-endian (section 5.4)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from components.keymgr.constants import (
    COOKIE_REPLY,
    COOKIE_REPLY_SIZE,
    INITIATION,
    INITIATION_SIZE,
    RESPONSE,
    RESPONSE_SIZE,
)


class MalformedMessage(ValueError):
    """A datagram that is no handshake message."""


class Initiation(NamedTuple):
    """First message, initiator to responder (5.4.2)."""

    sender: int  # the initiator's index for the session to be
    ephemeral: bytes  # 32, public
    static: bytes  # 32 + 16, sealed
    timestamp: bytes  # 12 + 16, sealed
    mac1: bytes = b""
    mac2: bytes = b""


class Response(NamedTuple):
    """Second message, responder to initiator (5.4.3)."""

    sender: int  # the responder's index for the session to be
    receiver: int  # the initiator's
    ephemeral: bytes  # 32, public
    empty: bytes  # 0 + 16, sealed
    mac1: bytes = b""
    mac2: bytes = b""


class CookieReply(NamedTuple):
    """Answer of a responder under load (5.4.7)."""

    receiver: int  # the sender index of the message that it answers
    nonce: bytes  # 24
    cookie: bytes  # 16 + 16, sealed


Message = Initiation | Response | CookieReply

_INITIATION: Final = struct.Struct("<II32s48s28s")
_RESPONSE: Final = struct.Struct("<III32s16s")
_MACS: Final = struct.Struct("<16s16s")
_COOKIE_REPLY: Final = struct.Struct("<II24s32s")


def pack_initiation(message: Initiation) -> bytes:
    """The first 116 bytes of an initiation: all but its MACs, which cookie.py adds."""
    return _INITIATION.pack(INITIATION, message.sender, message.ephemeral, message.static, message.timestamp)


def pack_response(message: Response) -> bytes:
    """The first 60 bytes of a response: all but its MACs, which cookie.py adds."""
    return _RESPONSE.pack(RESPONSE, message.sender, message.receiver, message.ephemeral, message.empty)


def pack_cookie_reply(message: CookieReply) -> bytes:
    """All 64 bytes of a cookie reply."""
    return _COOKIE_REPLY.pack(COOKIE_REPLY, message.receiver, message.nonce, message.cookie)


def parse(untrusted_datagram: bytes) -> Message:
    """What ``untrusted_datagram`` says; nothing of it is authenticated yet.

    Errors: MalformedMessage if type, reserved bytes or size are not exactly those of a handshake message.
    """
    size = len(untrusted_datagram)
    kind = int.from_bytes(untrusted_datagram[:4], "little")
    if kind == INITIATION and size == INITIATION_SIZE:
        _, *fields = _INITIATION.unpack_from(untrusted_datagram)
        return Initiation(*fields, *_MACS.unpack_from(untrusted_datagram, _INITIATION.size))
    if kind == RESPONSE and size == RESPONSE_SIZE:
        _, *fields = _RESPONSE.unpack_from(untrusted_datagram)
        return Response(*fields, *_MACS.unpack_from(untrusted_datagram, _RESPONSE.size))
    if kind == COOKIE_REPLY and size == COOKIE_REPLY_SIZE:
        _, *fields = _COOKIE_REPLY.unpack(untrusted_datagram)
        return CookieReply(*fields)
    raise MalformedMessage(f"{size} bytes of type {kind:#x} are no handshake message")
