"""Generated from handshakes.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class Handshake(Message):
    __slots__ = ("datagram", "address", "port")

    def __init__(
        self,
        *,
        datagram: bytes = b"",
        address: bytes = b"",
        port: int = 0,
    ) -> None:
        self.datagram = datagram
        self.address = address
        self.port = port


_HANDSHAKE: Final = MessageRule(
    "septum.v1.Handshake",
    Handshake,
    (
        FieldRule(1, "datagram", Type.BYTES, "BLACK", 64, 148),
        FieldRule(2, "address", Type.BYTES, "BLACK", 4, 16),
        FieldRule(3, "port", Type.UINT32, "BLACK", 1, 65535),
    ),
)


SCHEMA: Final = Schema("handshakes", Kind.STREAM, WhenFull.DROP, 16, _HANDSHAKE)
