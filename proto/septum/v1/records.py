"""Generated from records.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class Record(Message):
    __slots__ = ("severity", "event", "text")

    def __init__(
        self,
        *,
        severity: int = 0,
        event: str = "",
        text: str = "",
    ) -> None:
        self.severity = severity
        self.event = event
        self.text = text


_RECORD: Final = MessageRule(
    "septum.v1.Record",
    Record,
    (
        FieldRule(1, "severity", Type.UINT32, "PUBLIC", 0, 7),
        FieldRule(2, "event", Type.STRING, "PUBLIC", 1, 64),
        FieldRule(3, "text", Type.STRING, "PUBLIC", 0, 512),
    ),
)


SCHEMA: Final = Schema("records", Kind.STREAM, WhenFull.DROP, 14, _RECORD)
