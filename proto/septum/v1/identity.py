"""Generated from identity.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class Identity(Message):
    __slots__ = ("public_key",)

    def __init__(
        self,
        *,
        public_key: bytes = b"",
    ) -> None:
        self.public_key = public_key


_IDENTITY: Final = MessageRule(
    "septum.v1.Identity",
    Identity,
    (
        FieldRule(1, "public_key", Type.BYTES, "CONTROL", 32, 32),
    ),
)


SCHEMA: Final = Schema("identity", Kind.STREAM, WhenFull.BLOCK, 12, _IDENTITY)
