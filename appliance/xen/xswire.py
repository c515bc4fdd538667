"""The messages of the xenstore: bytes in, replies and events out. No descriptor, no clock.

Source: Xen, xen/include/public/io/xs_wire.h and docs/misc/xenstore.txt. A message is 16 bytes of header (type, request,
transaction, length) and at most 4096 of payload. A reply has the type and the request's number of what it answers; an
error has the name of an errno; a watch event comes at any time, with the number 0.
"""

from __future__ import annotations

import errno
import re
import struct
from collections import deque
from enum import IntEnum
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("=IIII")
MOST_PAYLOAD: Final = 4096
MOST_EVENTS: Final = 4096  # different ones that wait to be taken: more than there are nodes to watch


_NUMBER: Final = re.compile("[0-9]{1,10}")
_LARGEST: Final = 0xFFFF_FFFF


def number(untrusted: str | None, most: int = _LARGEST) -> int | None:
    """A value that is a number; None for nothing, or what is none."""
    if not untrusted or not _NUMBER.fullmatch(untrusted):
        return None
    value = int(untrusted)
    return value if value <= most else None


class Kind(IntEnum):
    """What is asked, or said."""

    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17


class XenstoreFault(Exception):
    """The xenstore said something that it cannot mean. The connection is of no more use."""


class Event(NamedTuple):
    """``path`` may have changed; ``token`` is the one its watch was given."""

    path: str
    token: str


def message(kind: Kind, number: int, *parts: str, tail: str | None = None) -> bytes:
    """A request: ``parts`` each ended by a zero, then ``tail`` (the value of a write), which is not.

    Errors: ValueError if it is too long, or a part holds a zero.
    """
    if any("\0" in part for part in parts):
        raise ValueError("a path of the xenstore holds no zero")
    payload = b"".join(part.encode() + b"\0" for part in parts) + (tail or "").encode()
    if len(payload) > MOST_PAYLOAD:
        raise ValueError(f"{len(payload)} bytes are more than the {MOST_PAYLOAD} of one message")
    return HEADER.pack(kind, number, 0, len(payload)) + payload


class Conversation:
    """What comes back from the xenstore, cut into replies and events."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._replies: dict[int, tuple[int, bytes]] = {}
        self._awaited: set[int] = set()
        self.events: deque[Event] = deque()

    def expect(self, number: int) -> None:
        """The reply to ``number`` will be asked for."""
        self._awaited.add(number)

    def give_up(self, number: int) -> None:
        """It will not be asked for any more, and is dropped when it comes."""
        self._awaited.discard(number)
        self._replies.pop(number, None)

    def feed(self, data: bytes) -> None:
        """Bytes as they were read, cut anywhere. Errors: XenstoreFault."""
        self._bytes += data
        while len(self._bytes) >= HEADER.size:
            kind, number, _, length = HEADER.unpack_from(self._bytes)
            if length > MOST_PAYLOAD:
                raise XenstoreFault(f"a message of {length} bytes")
            end = HEADER.size + length
            if len(self._bytes) < end:
                return
            payload = bytes(self._bytes[HEADER.size : end])
            del self._bytes[:end]
            self._take(kind, number, payload)

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == Kind.WATCH_EVENT:
            path, separator, token = payload.removesuffix(b"\0").partition(b"\0")
            if not separator:
                raise XenstoreFault("an event without a token")
            event = Event(path.decode("latin-1"), token.decode("latin-1"))
            # Once is enough: it says "look", and whoever has not looked yet will. A peer that writes its node over and
            # over would otherwise fill this faster than we take from it
            if event in self.events:
                return
            if len(self.events) >= MOST_EVENTS:
                raise XenstoreFault("thousands of events that nobody took")
            self.events.append(event)
        elif number in self._awaited:
            self._awaited.discard(number)
            self._replies[number] = (kind, payload)

    def reply(self, kind: Kind, number: int) -> bytes | None:
        """The payload of the reply to ``number``, once; None if it has not come yet.

        Errors: OSError with the errno that the xenstore names; XenstoreFault if it answers something else.
        """
        if number not in self._replies:
            return None
        got, payload = self._replies.pop(number)
        if got == Kind.ERROR:
            name = payload.rstrip(b"\0").decode("latin-1")
            code: int = getattr(errno, name, errno.EIO) if name in errno.errorcode.values() else errno.EIO
            raise OSError(code, f"xenstore: {name}")
        if got != kind:
            raise XenstoreFault(f"{kind.name} was answered by {got}")
        return payload
