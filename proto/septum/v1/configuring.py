"""Generated from configuring.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull

SECTION_UNSPECIFIED: Final = 0
PEERS: Final = 1
RULESET: Final = 2
RULES: Final = 3

CHAIN_UNSPECIFIED: Final = 0
ROSTER: Final = 1
COMMITS: Final = 2

REFUSAL_KIND_UNSPECIFIED: Final = 0
MALFORMED: Final = 1
BAD_SIGNATURE: Final = 2
NOT_PERMITTED: Final = 3
STALE: Final = 4
INVALID: Final = 5
PENDING: Final = 6
AWAY: Final = 7
NO_ROOM: Final = 8
UNCHANGED: Final = 9
UNKNOWN: Final = 10

FATE_UNSPECIFIED: Final = 0
STANDS: Final = 1
AWAITS: Final = 2
CONFIRMED: Final = 3
ROLLED_BACK: Final = 4


class BeginSections(Message):
    __slots__ = ("peers", "ruleset", "rules")

    def __init__(
        self,
        *,
        peers: int = 0,
        ruleset: int = 0,
        rules: int = 0,
    ) -> None:
        self.peers = peers
        self.ruleset = ruleset
        self.rules = rules


_BEGINSECTIONS: Final = MessageRule(
    "septum.v1.BeginSections",
    BeginSections,
    (
        FieldRule(1, "peers", Type.UINT32, "CONTROL", 0, 4194304),
        FieldRule(2, "ruleset", Type.UINT32, "CONTROL", 0, 4194304),
        FieldRule(3, "rules", Type.UINT32, "CONTROL", 0, 1048576),
    ),
)


class SectionChunk(Message):
    __slots__ = ("section", "offset", "data")

    def __init__(
        self,
        *,
        section: int = 0,
        offset: int = 0,
        data: bytes = b"",
    ) -> None:
        self.section = section
        self.offset = offset
        self.data = data


_SECTIONCHUNK: Final = MessageRule(
    "septum.v1.SectionChunk",
    SectionChunk,
    (
        FieldRule(1, "section", Type.ENUM, "CONTROL", 1, 3, enum_values=frozenset({0, 1, 2, 3})),
        FieldRule(2, "offset", Type.UINT32, "CONTROL", 0, 4194303),
        FieldRule(3, "data", Type.BYTES, "CONTROL", 1, 61440),
    ),
)


class Submit(Message):
    __slots__ = ("statement", "signature")

    def __init__(
        self,
        *,
        statement: bytes = b"",
        signature: bytes = b"",
    ) -> None:
        self.statement = statement
        self.signature = signature


_SUBMIT: Final = MessageRule(
    "septum.v1.Submit",
    Submit,
    (
        FieldRule(1, "statement", Type.BYTES, "CONTROL", 2, 4096),
        FieldRule(2, "signature", Type.BYTES, "CONTROL", 64, 64),
    ),
)


class AskHead(Message):
    __slots__ = ("unused",)

    def __init__(
        self,
        *,
        unused: int = 0,
    ) -> None:
        self.unused = unused


_ASKHEAD: Final = MessageRule(
    "septum.v1.AskHead",
    AskHead,
    (
        FieldRule(1, "unused", Type.UINT32, "CONTROL", 0, 1),
    ),
)


class AskStatement(Message):
    __slots__ = ("chain", "number")

    def __init__(
        self,
        *,
        chain: int = 0,
        number: int = 0,
    ) -> None:
        self.chain = chain
        self.number = number


_ASKSTATEMENT: Final = MessageRule(
    "septum.v1.AskStatement",
    AskStatement,
    (
        FieldRule(1, "chain", Type.ENUM, "CONTROL", 1, 2, enum_values=frozenset({0, 1, 2})),
        FieldRule(2, "number", Type.UINT64, "CONTROL", 1, 9007199254740991),
    ),
)


class AskSection(Message):
    __slots__ = ("revision", "section", "offset")

    def __init__(
        self,
        *,
        revision: int = 0,
        section: int = 0,
        offset: int = 0,
    ) -> None:
        self.revision = revision
        self.section = section
        self.offset = offset


_ASKSECTION: Final = MessageRule(
    "septum.v1.AskSection",
    AskSection,
    (
        FieldRule(1, "revision", Type.UINT64, "CONTROL", 1, 9007199254740991),
        FieldRule(2, "section", Type.ENUM, "CONTROL", 1, 3, enum_values=frozenset({0, 1, 2, 3})),
        FieldRule(3, "offset", Type.UINT32, "CONTROL", 0, 4194304),
    ),
)


class AskOutcome(Message):
    __slots__ = ("unused",)

    def __init__(
        self,
        *,
        unused: int = 0,
    ) -> None:
        self.unused = unused


_ASKOUTCOME: Final = MessageRule(
    "septum.v1.AskOutcome",
    AskOutcome,
    (
        FieldRule(1, "unused", Type.UINT32, "CONTROL", 0, 1),
    ),
)


class ConfiguringRequest(Message):
    __slots__ = ("begin", "chunk", "submit", "head", "statement", "section", "outcome")
    ONEOFS = {"ask": ("begin", "chunk", "submit", "head", "statement", "section", "outcome")}

    def __init__(
        self,
        *,
        begin: BeginSections | None = None,
        chunk: SectionChunk | None = None,
        submit: Submit | None = None,
        head: AskHead | None = None,
        statement: AskStatement | None = None,
        section: AskSection | None = None,
        outcome: AskOutcome | None = None,
    ) -> None:
        if begin is not None:
            self.begin: BeginSections = begin
        if chunk is not None:
            self.chunk: SectionChunk = chunk
        if submit is not None:
            self.submit: Submit = submit
        if head is not None:
            self.head: AskHead = head
        if statement is not None:
            self.statement: AskStatement = statement
        if section is not None:
            self.section: AskSection = section
        if outcome is not None:
            self.outcome: AskOutcome = outcome


_CONFIGURINGREQUEST: Final = MessageRule(
    "septum.v1.ConfiguringRequest",
    ConfiguringRequest,
    (
        FieldRule(1, "begin", Type.MESSAGE, None, 0, 0, has_presence=True, message=_BEGINSECTIONS),
        FieldRule(2, "chunk", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SECTIONCHUNK),
        FieldRule(3, "submit", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SUBMIT),
        FieldRule(4, "head", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKHEAD),
        FieldRule(5, "statement", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKSTATEMENT),
        FieldRule(6, "section", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKSECTION),
        FieldRule(7, "outcome", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKOUTCOME),
    ),
)


class ConfiguringRefused(Message):
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


_CONFIGURINGREFUSED: Final = MessageRule(
    "septum.v1.ConfiguringRefused",
    ConfiguringRefused,
    (
        FieldRule(1, "kind", Type.ENUM, "CONTROL", 1, 10, enum_values=frozenset({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})),
        FieldRule(2, "path", Type.STRING, "CONTROL", 0, 256),
        FieldRule(3, "why", Type.STRING, "CONTROL", 1, 1024),
    ),
)


class ConfiguringTaken(Message):
    __slots__ = ("bytes",)

    def __init__(
        self,
        *,
        bytes: int = 0,
    ) -> None:
        self.bytes = bytes


_CONFIGURINGTAKEN: Final = MessageRule(
    "septum.v1.ConfiguringTaken",
    ConfiguringTaken,
    (
        FieldRule(1, "bytes", Type.UINT32, "CONTROL", 0, 4194304),
    ),
)


class Accepted(Message):
    __slots__ = ("number", "kept", "ended")

    def __init__(
        self,
        *,
        number: int = 0,
        kept: int = 0,
        ended: int = 0,
    ) -> None:
        self.number = number
        self.kept = kept
        self.ended = ended


_ACCEPTED: Final = MessageRule(
    "septum.v1.Accepted",
    Accepted,
    (
        FieldRule(1, "number", Type.UINT64, "CONTROL", 1, 9007199254740991),
        FieldRule(2, "kept", Type.UINT32, "CONTROL", 0, 16777216),
        FieldRule(3, "ended", Type.UINT32, "CONTROL", 0, 16777216),
    ),
)


class Head(Message):
    __slots__ = ("revision", "digest", "active", "oldest", "confirm_left_ms", "serial", "roster_digest")

    def __init__(
        self,
        *,
        revision: int = 0,
        digest: bytes = b"",
        active: int = 0,
        oldest: int = 0,
        confirm_left_ms: int = 0,
        serial: int = 0,
        roster_digest: bytes = b"",
    ) -> None:
        self.revision = revision
        self.digest = digest
        self.active = active
        self.oldest = oldest
        self.confirm_left_ms = confirm_left_ms
        self.serial = serial
        self.roster_digest = roster_digest


_HEAD: Final = MessageRule(
    "septum.v1.Head",
    Head,
    (
        FieldRule(1, "revision", Type.UINT64, "CONTROL", 0, 9007199254740991),
        FieldRule(2, "digest", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(3, "active", Type.UINT64, "CONTROL", 0, 9007199254740991),
        FieldRule(4, "oldest", Type.UINT64, "CONTROL", 0, 9007199254740991),
        FieldRule(5, "confirm_left_ms", Type.UINT32, "CONTROL", 0, 4294967295),
        FieldRule(6, "serial", Type.UINT64, "CONTROL", 0, 9007199254740991),
        FieldRule(7, "roster_digest", Type.BYTES, "CONTROL", 32, 32),
    ),
)


class StatementReply(Message):
    __slots__ = ("statement", "signature", "fate", "fate_at", "has_content")

    def __init__(
        self,
        *,
        statement: bytes = b"",
        signature: bytes = b"",
        fate: int = 0,
        fate_at: int = 0,
        has_content: bool = False,
    ) -> None:
        self.statement = statement
        self.signature = signature
        self.fate = fate
        self.fate_at = fate_at
        self.has_content = has_content


_STATEMENTREPLY: Final = MessageRule(
    "septum.v1.StatementReply",
    StatementReply,
    (
        FieldRule(1, "statement", Type.BYTES, "CONTROL", 2, 4096),
        FieldRule(2, "signature", Type.BYTES, "CONTROL", 64, 64),
        FieldRule(3, "fate", Type.ENUM, "CONTROL", 1, 4, enum_values=frozenset({0, 1, 2, 3, 4})),
        FieldRule(4, "fate_at", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(5, "has_content", Type.BOOL, "CONTROL", 0, 1),
    ),
)


class SectionReply(Message):
    __slots__ = ("total", "data")

    def __init__(
        self,
        *,
        total: int = 0,
        data: bytes = b"",
    ) -> None:
        self.total = total
        self.data = data


_SECTIONREPLY: Final = MessageRule(
    "septum.v1.SectionReply",
    SectionReply,
    (
        FieldRule(1, "total", Type.UINT32, "CONTROL", 0, 4194304),
        FieldRule(2, "data", Type.BYTES, "CONTROL", 0, 61440),
    ),
)


class Working(Message):
    __slots__ = ("done", "of")

    def __init__(
        self,
        *,
        done: int = 0,
        of: int = 0,
    ) -> None:
        self.done = done
        self.of = of


_WORKING: Final = MessageRule(
    "septum.v1.Working",
    Working,
    (
        FieldRule(1, "done", Type.UINT32, "CONTROL", 0, 65536),
        FieldRule(2, "of", Type.UINT32, "CONTROL", 0, 65536),
    ),
)


class ConfiguringReply(Message):
    __slots__ = ("refused", "taken", "accepted", "head", "statement", "section", "working")
    ONEOFS = {"answer": ("refused", "taken", "accepted", "head", "statement", "section", "working")}

    def __init__(
        self,
        *,
        refused: ConfiguringRefused | None = None,
        taken: ConfiguringTaken | None = None,
        accepted: Accepted | None = None,
        head: Head | None = None,
        statement: StatementReply | None = None,
        section: SectionReply | None = None,
        working: Working | None = None,
    ) -> None:
        if refused is not None:
            self.refused: ConfiguringRefused = refused
        if taken is not None:
            self.taken: ConfiguringTaken = taken
        if accepted is not None:
            self.accepted: Accepted = accepted
        if head is not None:
            self.head: Head = head
        if statement is not None:
            self.statement: StatementReply = statement
        if section is not None:
            self.section: SectionReply = section
        if working is not None:
            self.working: Working = working


_CONFIGURINGREPLY: Final = MessageRule(
    "septum.v1.ConfiguringReply",
    ConfiguringReply,
    (
        FieldRule(1, "refused", Type.MESSAGE, None, 0, 0, has_presence=True, message=_CONFIGURINGREFUSED),
        FieldRule(2, "taken", Type.MESSAGE, None, 0, 0, has_presence=True, message=_CONFIGURINGTAKEN),
        FieldRule(3, "accepted", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ACCEPTED),
        FieldRule(4, "head", Type.MESSAGE, None, 0, 0, has_presence=True, message=_HEAD),
        FieldRule(5, "statement", Type.MESSAGE, None, 0, 0, has_presence=True, message=_STATEMENTREPLY),
        FieldRule(6, "section", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SECTIONREPLY),
        FieldRule(7, "working", Type.MESSAGE, None, 0, 0, has_presence=True, message=_WORKING),
    ),
)


SCHEMA: Final = Schema("configuring", Kind.CALL, WhenFull.BLOCK, 17, _CONFIGURINGREQUEST, _CONFIGURINGREPLY)
