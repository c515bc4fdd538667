"""Generated from sent.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class SendReport(Message):
    __slots__ = ("peer", "session", "packets", "data_packets", "bytes", "wanted")

    def __init__(
        self,
        *,
        peer: int = 0,
        session: int = 0,
        packets: int = 0,
        data_packets: int = 0,
        bytes: int = 0,
        wanted: bool = False,
    ) -> None:
        self.peer = peer
        self.session = session
        self.packets = packets
        self.data_packets = data_packets
        self.bytes = bytes
        self.wanted = wanted


_SENDREPORT: Final = MessageRule(
    "septum.v1.SendReport",
    SendReport,
    (
        FieldRule(1, "peer", Type.UINT32, "CONTROL", 1, 65535),
        FieldRule(2, "session", Type.UINT32, "CONTROL", 0, 4294967295),
        FieldRule(3, "packets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(4, "data_packets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(5, "bytes", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(6, "wanted", Type.BOOL, "CONTROL", 0, 1),
    ),
)


SCHEMA: Final = Schema("sent", Kind.STREAM, WhenFull.DROP, 16, _SENDREPORT)
