"""Generated from outer_packets.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class OuterPackets(Message):
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


_OUTERPACKETS: Final = MessageRule(
    "septum.v1.OuterPackets",
    OuterPackets,
    (
        FieldRule(1, "packets", Type.BYTES, "BLACK", 20, 65535),
        FieldRule(2, "size", Type.UINT32, "CONTROL", 20, 65535),
        FieldRule(3, "peer", Type.UINT32, "CONTROL", 0, 65535),
    ),
)


SCHEMA: Final = Schema("outer_packets", Kind.STREAM, WhenFull.DROP, 19, _OUTERPACKETS)
