"""Generated from outer_frames.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class OuterFrames(Message):
    __slots__ = ("payloads", "size", "link")

    def __init__(
        self,
        *,
        payloads: bytes = b"",
        size: int = 0,
        link: bytes = b"",
    ) -> None:
        self.payloads = payloads
        self.size = size
        self.link = link


_OUTERFRAMES: Final = MessageRule(
    "septum.v1.OuterFrames",
    OuterFrames,
    (
        FieldRule(1, "payloads", Type.BYTES, "BLACK", 1, 65535),
        FieldRule(2, "size", Type.UINT32, "CONTROL", 1, 65535),
        FieldRule(3, "link", Type.BYTES, "BLACK", 14, 22),
    ),
)


SCHEMA: Final = Schema("outer_frames", Kind.STREAM, WhenFull.DROP, 19, _OUTERFRAMES)
