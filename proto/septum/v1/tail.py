"""Generated from tail.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class TailRequest(Message):
    __slots__ = ("after", "most")

    def __init__(
        self,
        *,
        after: int = 0,
        most: int = 0,
    ) -> None:
        self.after = after
        self.most = most


_TAILREQUEST: Final = MessageRule(
    "septum.v1.TailRequest",
    TailRequest,
    (
        FieldRule(1, "after", Type.UINT64, "PUBLIC", 0, 18446744073709551615),
        FieldRule(2, "most", Type.UINT32, "PUBLIC", 1, 64),
    ),
)


class Line(Message):
    __slots__ = ("number", "at", "severity", "domain", "event", "text")

    def __init__(
        self,
        *,
        number: int = 0,
        at: int = 0,
        severity: int = 0,
        domain: str = "",
        event: str = "",
        text: str = "",
    ) -> None:
        self.number = number
        self.at = at
        self.severity = severity
        self.domain = domain
        self.event = event
        self.text = text


_LINE: Final = MessageRule(
    "septum.v1.Line",
    Line,
    (
        FieldRule(1, "number", Type.UINT64, "PUBLIC", 1, 18446744073709551615),
        FieldRule(2, "at", Type.UINT64, "PUBLIC", 0, 18446744073709551615),
        FieldRule(3, "severity", Type.UINT32, "PUBLIC", 0, 7),
        FieldRule(4, "domain", Type.STRING, "PUBLIC", 1, 64),
        FieldRule(5, "event", Type.STRING, "PUBLIC", 1, 256),
        FieldRule(6, "text", Type.STRING, "PUBLIC", 0, 2048),
    ),
)


class TailReply(Message):
    __slots__ = ("life", "oldest", "lines")

    def __init__(
        self,
        *,
        life: int = 0,
        oldest: int = 0,
        lines: list[Line] | None = None,
    ) -> None:
        self.life = life
        self.oldest = oldest
        self.lines: list[Line] = [] if lines is None else lines


_TAILREPLY: Final = MessageRule(
    "septum.v1.TailReply",
    TailReply,
    (
        FieldRule(1, "life", Type.UINT64, "PUBLIC", 0, 18446744073709551615),
        FieldRule(2, "oldest", Type.UINT64, "PUBLIC", 0, 18446744073709551615),
        FieldRule(3, "lines", Type.MESSAGE, None, 0, 0, max_items=16, message=_LINE),
    ),
)


SCHEMA: Final = Schema("tail", Kind.CALL, WhenFull.BLOCK, 16, _TAILREQUEST, _TAILREPLY)
