"""A filter that filters, and tells the operator nonsense: the number of talkers asked for says which."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any

from septum.v1.filtering import FilteringReply, FilteringRequest, Taken

from components.filter import main
from components.filter.operator import Operator

_LOOKED_AT = 0.5  # seconds until the other side has surely woken and looked
REPLY = FilteringReply(taken=Taken(bytes=1))


def _write(end: Any, frame: bytes) -> None:
    end._vchan.write((frame,), len(frame))
    end._wire.notify()


def _garbage(end: Any) -> None:
    _write(end, struct.pack("<II", 40, end._unanswered) + b"\xff" * 40)


def _endless(end: Any) -> None:
    _write(end, struct.pack("<II", 0xFFFF_FFFF, end._unanswered))


def _index(end: Any) -> None:
    end._vchan._words[end._vchan._prod_word] = 0x1234_5678
    end._wire.notify()
    time.sleep(_LOOKED_AT)


def _live(end: Any) -> None:
    end._vchan._shared[end._vchan._live] = 77
    end._wire.notify()
    time.sleep(_LOOKED_AT)


def _unasked(end: Any) -> None:
    end._unanswered = (end._unanswered + 5) & 0xFFFF_FFFF


def _silence(end: Any) -> None:
    end._unanswered = None


def _slow(end: Any) -> None:
    time.sleep(30)


NONSENSE: tuple[Callable[[Any], None], ...] = (_garbage, _endless, _index, _live, _unasked, _silence, _slow)


def build(guest: Any) -> None:
    """The filter's own, with another tongue."""
    main.build(guest)
    (port,) = guest._ports["control"]
    answer = Operator.answer

    def bent(self: Operator, request: FilteringRequest, now: float, wall: float) -> FilteringReply:
        if request.WhichOneof("ask") != "talkers":
            return answer(self, request, now, wall)
        NONSENSE[request.talkers.most - 1](port.endpoint)
        return REPLY

    Operator.answer = bent  # type: ignore[method-assign]
