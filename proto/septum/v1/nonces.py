"""Generated from nonces.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class NonceRequest(Message):
    __slots__ = ("length",)

    def __init__(
        self,
        *,
        length: int = 0,
    ) -> None:
        self.length = length


_NONCEREQUEST: Final = MessageRule(
    "septum.v1.NonceRequest",
    NonceRequest,
    (
        FieldRule(1, "length", Type.UINT32, "CONTROL", 1, 4096),
    ),
)


class NonceReply(Message):
    __slots__ = ("random",)

    def __init__(
        self,
        *,
        random: bytes = b"",
    ) -> None:
        self.random = random


_NONCEREPLY: Final = MessageRule(
    "septum.v1.NonceReply",
    NonceReply,
    (
        FieldRule(1, "random", Type.BYTES, "CONTROL", 1, 4096),
    ),
)


SCHEMA: Final = Schema("nonces", Kind.CALL, WhenFull.BLOCK, 14, _NONCEREQUEST, _NONCEREPLY)
