"""Generated from disk.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull

DISK_OUTCOME_UNSPECIFIED: Final = 0
DISK_DONE: Final = 1
DISK_FULL: Final = 2
DISK_FAILED: Final = 3

DISK_ACT_UNSPECIFIED: Final = 0
DISK_READ: Final = 1
DISK_WRITE: Final = 2
DISK_SYNC: Final = 3


class DiskDone(Message):
    __slots__ = ("outcome", "size", "data")

    def __init__(
        self,
        *,
        outcome: int = 0,
        size: int = 0,
        data: bytes = b"",
    ) -> None:
        self.outcome = outcome
        self.size = size
        self.data = data


_DISKDONE: Final = MessageRule(
    "septum.v1.DiskDone",
    DiskDone,
    (
        FieldRule(1, "outcome", Type.ENUM, "CONTROL", 1, 3, enum_values=frozenset({0, 1, 2, 3})),
        FieldRule(2, "size", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(3, "data", Type.BYTES, "BLACK", 0, 32768),
    ),
)


class DiskOrder(Message):
    __slots__ = ("act", "offset", "length", "count", "every", "data")

    def __init__(
        self,
        *,
        act: int = 0,
        offset: int = 0,
        length: int = 0,
        count: int = 0,
        every: int = 0,
        data: bytes = b"",
    ) -> None:
        self.act = act
        self.offset = offset
        self.length = length
        self.count = count
        self.every = every
        self.data = data


_DISKORDER: Final = MessageRule(
    "septum.v1.DiskOrder",
    DiskOrder,
    (
        FieldRule(1, "act", Type.ENUM, "CONTROL", 1, 3, enum_values=frozenset({0, 1, 2, 3})),
        FieldRule(2, "offset", Type.UINT64, "CONTROL", 0, 285212671),
        FieldRule(3, "length", Type.UINT32, "CONTROL", 0, 32768),
        FieldRule(4, "count", Type.UINT32, "CONTROL", 0, 128),
        FieldRule(5, "every", Type.UINT32, "CONTROL", 0, 1048576),
        FieldRule(6, "data", Type.BYTES, "BLACK", 0, 32768),
    ),
)


SCHEMA: Final = Schema("disk", Kind.CALL, WhenFull.BLOCK, 16, _DISKDONE, _DISKORDER)
