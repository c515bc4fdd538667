"""Generated from packets.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class Packets(Message):
    __slots__ = ("packets", "size", "peer")

    def __init__(
        self,
        *,
        packets: bytes = b"",
        size: int = 0,
        peer: int = 0,
    ) -> None:
        self.packets = packets
        self.size = size
        self.peer = peer


_PACKETS: Final = MessageRule(
    "septum.v1.Packets",
    Packets,
    (
        FieldRule(1, "packets", Type.BYTES, "RED", 20, 65535),
        FieldRule(2, "size", Type.UINT32, "CONTROL", 20, 65535),
        FieldRule(3, "peer", Type.UINT32, "CONTROL", 0, 65535),
    ),
)


SCHEMA: Final = Schema("packets", Kind.STREAM, WhenFull.DROP, 19, _PACKETS)
