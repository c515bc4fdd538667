"""Generated from datagrams.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class Datagrams(Message):
    __slots__ = ("datagrams", "size", "address", "port")

    def __init__(
        self,
        *,
        datagrams: bytes = b"",
        size: int = 0,
        address: bytes = b"",
        port: int = 0,
    ) -> None:
        self.datagrams = datagrams
        self.size = size
        self.address = address
        self.port = port


_DATAGRAMS: Final = MessageRule(
    "septum.v1.Datagrams",
    Datagrams,
    (
        FieldRule(1, "datagrams", Type.BYTES, "BLACK", 32, 65535),
        FieldRule(2, "size", Type.UINT32, "CONTROL", 32, 65535),
        FieldRule(3, "address", Type.BYTES, "BLACK", 4, 16),
        FieldRule(4, "port", Type.UINT32, "BLACK", 1, 65535),
    ),
)


SCHEMA: Final = Schema("datagrams", Kind.STREAM, WhenFull.DROP, 19, _DATAGRAMS)
