"""Generated from random.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class RandomRequest(Message):
    __slots__ = ("length",)

    def __init__(
        self,
        *,
        length: int = 0,
    ) -> None:
        self.length = length


_RANDOMREQUEST: Final = MessageRule(
    "septum.v1.RandomRequest",
    RandomRequest,
    (
        FieldRule(1, "length", Type.UINT32, "CONTROL", 1, 4096),
    ),
)


class RandomReply(Message):
    __slots__ = ("random",)

    def __init__(
        self,
        *,
        random: bytes = b"",
    ) -> None:
        self.random = random


_RANDOMREPLY: Final = MessageRule(
    "septum.v1.RandomReply",
    RandomReply,
    (
        FieldRule(1, "random", Type.BYTES, "KEY", 1, 4096),
    ),
)


SCHEMA: Final = Schema("random", Kind.CALL, WhenFull.BLOCK, 14, _RANDOMREQUEST, _RANDOMREPLY)
