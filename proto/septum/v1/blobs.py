"""Generated from blobs.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull

BLOB_STATUS_UNSPECIFIED: Final = 0
BLOB_OK: Final = 1
BLOB_ABSENT: Final = 2
BLOB_STALE: Final = 3
BLOB_FULL: Final = 4


class BlobRequest(Message):
    __slots__ = ("name", "version", "blob", "lazy")

    def __init__(
        self,
        *,
        name: str = "",
        version: int = 0,
        blob: bytes = b"",
        lazy: bool = False,
    ) -> None:
        self.name = name
        self.version = version
        self.blob = blob
        self.lazy = lazy


_BLOBREQUEST: Final = MessageRule(
    "septum.v1.BlobRequest",
    BlobRequest,
    (
        FieldRule(1, "name", Type.STRING, "CONTROL", 1, 64),
        FieldRule(2, "version", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(3, "blob", Type.BYTES, "BLACK", 0, 65535),
        FieldRule(4, "lazy", Type.BOOL, "CONTROL", 0, 1),
    ),
)


class BlobReply(Message):
    __slots__ = ("status", "version", "blob")

    def __init__(
        self,
        *,
        status: int = 0,
        version: int = 0,
        blob: bytes = b"",
    ) -> None:
        self.status = status
        self.version = version
        self.blob = blob


_BLOBREPLY: Final = MessageRule(
    "septum.v1.BlobReply",
    BlobReply,
    (
        FieldRule(1, "status", Type.ENUM, "CONTROL", 1, 4, enum_values=frozenset({0, 1, 2, 3, 4})),
        FieldRule(2, "version", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(3, "blob", Type.BYTES, "BLACK", 0, 65535),
    ),
)


SCHEMA: Final = Schema("blobs", Kind.CALL, WhenFull.BLOCK, 17, _BLOBREQUEST, _BLOBREPLY)
