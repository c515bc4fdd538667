"""Generated from applying.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class Enlist(Message):
    __slots__ = ("statement", "signature", "rehearse")

    def __init__(
        self,
        *,
        statement: bytes = b"",
        signature: bytes = b"",
        rehearse: bool = False,
    ) -> None:
        self.statement = statement
        self.signature = signature
        self.rehearse = rehearse


_ENLIST: Final = MessageRule(
    "septum.v1.Enlist",
    Enlist,
    (
        FieldRule(1, "statement", Type.BYTES, "CONTROL", 2, 4096),
        FieldRule(2, "signature", Type.BYTES, "CONTROL", 64, 64),
        FieldRule(3, "rehearse", Type.BOOL, "CONTROL", 0, 1),
    ),
)


class BeginSection(Message):
    __slots__ = ("total",)

    def __init__(
        self,
        *,
        total: int = 0,
    ) -> None:
        self.total = total


_BEGINSECTION: Final = MessageRule(
    "septum.v1.BeginSection",
    BeginSection,
    (
        FieldRule(1, "total", Type.UINT32, "CONTROL", 1, 4194304),
    ),
)


class Chunk(Message):
    __slots__ = ("offset", "data")

    def __init__(
        self,
        *,
        offset: int = 0,
        data: bytes = b"",
    ) -> None:
        self.offset = offset
        self.data = data


_CHUNK: Final = MessageRule(
    "septum.v1.Chunk",
    Chunk,
    (
        FieldRule(1, "offset", Type.UINT32, "CONTROL", 0, 4194303),
        FieldRule(2, "data", Type.BYTES, "CONTROL", 1, 61440),
    ),
)


class Prepare(Message):
    __slots__ = ("statement", "signature")

    def __init__(
        self,
        *,
        statement: bytes = b"",
        signature: bytes = b"",
    ) -> None:
        self.statement = statement
        self.signature = signature


_PREPARE: Final = MessageRule(
    "septum.v1.Prepare",
    Prepare,
    (
        FieldRule(1, "statement", Type.BYTES, "CONTROL", 2, 4096),
        FieldRule(2, "signature", Type.BYTES, "CONTROL", 64, 64),
    ),
)


class Apply(Message):
    __slots__ = ("revision",)

    def __init__(
        self,
        *,
        revision: int = 0,
    ) -> None:
        self.revision = revision


_APPLY: Final = MessageRule(
    "septum.v1.Apply",
    Apply,
    (
        FieldRule(1, "revision", Type.UINT64, "CONTROL", 1, 9007199254740991),
    ),
)


class Revert(Message):
    __slots__ = ("revision",)

    def __init__(
        self,
        *,
        revision: int = 0,
    ) -> None:
        self.revision = revision


_REVERT: Final = MessageRule(
    "septum.v1.Revert",
    Revert,
    (
        FieldRule(1, "revision", Type.UINT64, "CONTROL", 1, 9007199254740991),
    ),
)


class Settle(Message):
    __slots__ = ("revision",)

    def __init__(
        self,
        *,
        revision: int = 0,
    ) -> None:
        self.revision = revision


_SETTLE: Final = MessageRule(
    "septum.v1.Settle",
    Settle,
    (
        FieldRule(1, "revision", Type.UINT64, "CONTROL", 1, 9007199254740991),
    ),
)


class Abandon(Message):
    __slots__ = ("unused",)

    def __init__(
        self,
        *,
        unused: int = 0,
    ) -> None:
        self.unused = unused


_ABANDON: Final = MessageRule(
    "septum.v1.Abandon",
    Abandon,
    (
        FieldRule(1, "unused", Type.UINT32, "CONTROL", 0, 1),
    ),
)


class ApplyingRequest(Message):
    __slots__ = ("enlist", "begin", "chunk", "prepare", "apply", "revert", "settle", "abandon")
    ONEOFS = {"ask": ("enlist", "begin", "chunk", "prepare", "apply", "revert", "settle", "abandon")}

    def __init__(
        self,
        *,
        enlist: Enlist | None = None,
        begin: BeginSection | None = None,
        chunk: Chunk | None = None,
        prepare: Prepare | None = None,
        apply: Apply | None = None,
        revert: Revert | None = None,
        settle: Settle | None = None,
        abandon: Abandon | None = None,
    ) -> None:
        if enlist is not None:
            self.enlist: Enlist = enlist
        if begin is not None:
            self.begin: BeginSection = begin
        if chunk is not None:
            self.chunk: Chunk = chunk
        if prepare is not None:
            self.prepare: Prepare = prepare
        if apply is not None:
            self.apply: Apply = apply
        if revert is not None:
            self.revert: Revert = revert
        if settle is not None:
            self.settle: Settle = settle
        if abandon is not None:
            self.abandon: Abandon = abandon


_APPLYINGREQUEST: Final = MessageRule(
    "septum.v1.ApplyingRequest",
    ApplyingRequest,
    (
        FieldRule(1, "enlist", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ENLIST),
        FieldRule(2, "begin", Type.MESSAGE, None, 0, 0, has_presence=True, message=_BEGINSECTION),
        FieldRule(3, "chunk", Type.MESSAGE, None, 0, 0, has_presence=True, message=_CHUNK),
        FieldRule(4, "prepare", Type.MESSAGE, None, 0, 0, has_presence=True, message=_PREPARE),
        FieldRule(5, "apply", Type.MESSAGE, None, 0, 0, has_presence=True, message=_APPLY),
        FieldRule(6, "revert", Type.MESSAGE, None, 0, 0, has_presence=True, message=_REVERT),
        FieldRule(7, "settle", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SETTLE),
        FieldRule(8, "abandon", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ABANDON),
    ),
)


class ApplyingRefused(Message):
    __slots__ = ("kind", "path", "why")

    def __init__(
        self,
        *,
        kind: int = 0,
        path: str = "",
        why: str = "",
    ) -> None:
        self.kind = kind
        self.path = path
        self.why = why


_APPLYINGREFUSED: Final = MessageRule(
    "septum.v1.ApplyingRefused",
    ApplyingRefused,
    (
        FieldRule(1, "kind", Type.UINT32, "CONTROL", 1, 10),
        FieldRule(2, "path", Type.STRING, "CONTROL", 0, 256),
        FieldRule(3, "why", Type.STRING, "CONTROL", 1, 1024),
    ),
)


class Done(Message):
    __slots__ = ("number", "kept", "ended", "serial")

    def __init__(
        self,
        *,
        number: int = 0,
        kept: int = 0,
        ended: int = 0,
        serial: int = 0,
    ) -> None:
        self.number = number
        self.kept = kept
        self.ended = ended
        self.serial = serial


_DONE: Final = MessageRule(
    "septum.v1.Done",
    Done,
    (
        FieldRule(1, "number", Type.UINT64, "CONTROL", 0, 9007199254740991),
        FieldRule(2, "kept", Type.UINT32, "CONTROL", 0, 16777216),
        FieldRule(3, "ended", Type.UINT32, "CONTROL", 0, 16777216),
        FieldRule(4, "serial", Type.UINT64, "CONTROL", 0, 9007199254740991),
    ),
)


class ApplyingReply(Message):
    __slots__ = ("refused", "done")
    ONEOFS = {"answer": ("refused", "done")}

    def __init__(
        self,
        *,
        refused: ApplyingRefused | None = None,
        done: Done | None = None,
    ) -> None:
        if refused is not None:
            self.refused: ApplyingRefused = refused
        if done is not None:
            self.done: Done = done


_APPLYINGREPLY: Final = MessageRule(
    "septum.v1.ApplyingReply",
    ApplyingReply,
    (
        FieldRule(1, "refused", Type.MESSAGE, None, 0, 0, has_presence=True, message=_APPLYINGREFUSED),
        FieldRule(2, "done", Type.MESSAGE, None, 0, 0, has_presence=True, message=_DONE),
    ),
)


SCHEMA: Final = Schema("applying", Kind.CALL, WhenFull.BLOCK, 17, _APPLYINGREQUEST, _APPLYINGREPLY)
