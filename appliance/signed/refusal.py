"""Why a statement, or what it speaks of, is not taken."""

from __future__ import annotations

from enum import IntEnum


class Why(IntEnum):
    """As ``RefusalKind`` of configuring.proto, which says what each means."""

    MALFORMED = 1
    BAD_SIGNATURE = 2
    NOT_PERMITTED = 3
    STALE = 4
    INVALID = 5
    PENDING = 6
    AWAY = 7
    NO_ROOM = 8
    UNCHANGED = 9
    UNKNOWN = 10


class Refusal(Exception):
    """Nothing has changed. ``path`` is the field or the place in the section that ``text`` is about, if any."""

    def __init__(self, why: Why, text: str, path: str = "") -> None:
        super().__init__(f"{path}: {text}" if path else text)
        self.why = why
        self.text = text
        self.path = path
