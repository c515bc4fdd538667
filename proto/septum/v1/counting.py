"""Generated from counting.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class AskRuleHits(Message):
    __slots__ = ("start",)

    def __init__(
        self,
        *,
        start: int = 0,
    ) -> None:
        self.start = start


_ASKRULEHITS: Final = MessageRule(
    "septum.v1.AskRuleHits",
    AskRuleHits,
    (
        FieldRule(1, "start", Type.UINT32, "CONTROL", 0, 65536),
    ),
)


class AskSums(Message):
    __slots__ = ("most",)

    def __init__(
        self,
        *,
        most: int = 0,
    ) -> None:
        self.most = most


_ASKSUMS: Final = MessageRule(
    "septum.v1.AskSums",
    AskSums,
    (
        FieldRule(1, "most", Type.UINT32, "CONTROL", 1, 128),
    ),
)


class AskExplanation(Message):
    __slots__ = ("packet", "side", "peer")

    def __init__(
        self,
        *,
        packet: bytes = b"",
        side: int = 0,
        peer: int = 0,
    ) -> None:
        self.packet = packet
        self.side = side
        self.peer = peer


_ASKEXPLANATION: Final = MessageRule(
    "septum.v1.AskExplanation",
    AskExplanation,
    (
        FieldRule(1, "packet", Type.BYTES, "CONTROL", 1, 1280),
        FieldRule(2, "side", Type.UINT32, "CONTROL", 1, 4),
        FieldRule(3, "peer", Type.UINT32, "CONTROL", 0, 65535),
    ),
)


class CountingRequest(Message):
    __slots__ = ("hits", "sums", "explanation")
    ONEOFS = {"ask": ("hits", "sums", "explanation")}

    def __init__(
        self,
        *,
        hits: AskRuleHits | None = None,
        sums: AskSums | None = None,
        explanation: AskExplanation | None = None,
    ) -> None:
        if hits is not None:
            self.hits: AskRuleHits = hits
        if sums is not None:
            self.sums: AskSums = sums
        if explanation is not None:
            self.explanation: AskExplanation = explanation


_COUNTINGREQUEST: Final = MessageRule(
    "septum.v1.CountingRequest",
    CountingRequest,
    (
        FieldRule(1, "hits", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKRULEHITS),
        FieldRule(2, "sums", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKSUMS),
        FieldRule(3, "explanation", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKEXPLANATION),
    ),
)


class RuleHits(Message):
    __slots__ = ("packets", "octets", "last")

    def __init__(
        self,
        *,
        packets: int = 0,
        octets: int = 0,
        last: int = 0,
    ) -> None:
        self.packets = packets
        self.octets = octets
        self.last = last


_RULEHITS: Final = MessageRule(
    "septum.v1.RuleHits",
    RuleHits,
    (
        FieldRule(1, "packets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(2, "octets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(3, "last", Type.UINT64, "CONTROL", 0, 18446744073709551615),
    ),
)


class RuleHitsPage(Message):
    __slots__ = ("digest", "rules", "hits")

    def __init__(
        self,
        *,
        digest: bytes = b"",
        rules: int = 0,
        hits: list[RuleHits] | None = None,
    ) -> None:
        self.digest = digest
        self.rules = rules
        self.hits: list[RuleHits] = [] if hits is None else hits


_RULEHITSPAGE: Final = MessageRule(
    "septum.v1.RuleHitsPage",
    RuleHitsPage,
    (
        FieldRule(1, "digest", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(2, "rules", Type.UINT32, "CONTROL", 0, 65536),
        FieldRule(3, "hits", Type.MESSAGE, None, 0, 0, max_items=512, message=_RULEHITS),
    ),
)


class Sum(Message):
    __slots__ = ("what", "side", "count")

    def __init__(
        self,
        *,
        what: str = "",
        side: int = 0,
        count: int = 0,
    ) -> None:
        self.what = what
        self.side = side
        self.count = count


_SUM: Final = MessageRule(
    "septum.v1.Sum",
    Sum,
    (
        FieldRule(1, "what", Type.STRING, "CONTROL", 1, 32),
        FieldRule(2, "side", Type.UINT32, "CONTROL", 0, 4),
        FieldRule(3, "count", Type.UINT64, "CONTROL", 0, 18446744073709551615),
    ),
)


class Sums(Message):
    __slots__ = ("digest", "sums")

    def __init__(
        self,
        *,
        digest: bytes = b"",
        sums: list[Sum] | None = None,
    ) -> None:
        self.digest = digest
        self.sums: list[Sum] = [] if sums is None else sums


_SUMS: Final = MessageRule(
    "septum.v1.Sums",
    Sums,
    (
        FieldRule(1, "digest", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(2, "sums", Type.MESSAGE, None, 0, 0, max_items=128, message=_SUM),
    ),
)


class ExplanationReply(Message):
    __slots__ = ("digest", "verdict", "number", "why", "tracking", "state", "leaves", "translated")

    def __init__(
        self,
        *,
        digest: bytes = b"",
        verdict: int = 0,
        number: int = 0,
        why: str = "",
        tracking: str = "",
        state: str = "",
        leaves: int = 0,
        translated: bool = False,
    ) -> None:
        self.digest = digest
        self.verdict = verdict
        self.number = number
        self.why = why
        self.tracking = tracking
        self.state = state
        self.leaves = leaves
        self.translated = translated


_EXPLANATIONREPLY: Final = MessageRule(
    "septum.v1.ExplanationReply",
    ExplanationReply,
    (
        FieldRule(1, "digest", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(2, "verdict", Type.UINT32, "CONTROL", 1, 3),
        FieldRule(3, "number", Type.UINT32, "CONTROL", 0, 65536),
        FieldRule(4, "why", Type.STRING, "CONTROL", 1, 256),
        FieldRule(5, "tracking", Type.STRING, "CONTROL", 0, 24),
        FieldRule(6, "state", Type.STRING, "CONTROL", 0, 128),
        FieldRule(7, "leaves", Type.UINT32, "CONTROL", 0, 4),
        FieldRule(8, "translated", Type.BOOL, "CONTROL", 0, 1),
    ),
)


class NotExplained(Message):
    __slots__ = ("path", "why", "wait_ms")

    def __init__(
        self,
        *,
        path: str = "",
        why: str = "",
        wait_ms: int = 0,
    ) -> None:
        self.path = path
        self.why = why
        self.wait_ms = wait_ms


_NOTEXPLAINED: Final = MessageRule(
    "septum.v1.NotExplained",
    NotExplained,
    (
        FieldRule(1, "path", Type.STRING, "CONTROL", 0, 64),
        FieldRule(2, "why", Type.STRING, "CONTROL", 1, 256),
        FieldRule(3, "wait_ms", Type.UINT32, "CONTROL", 0, 60000),
    ),
)


class CountingReply(Message):
    __slots__ = ("hits", "sums", "explanation", "refused")
    ONEOFS = {"answer": ("hits", "sums", "explanation", "refused")}

    def __init__(
        self,
        *,
        hits: RuleHitsPage | None = None,
        sums: Sums | None = None,
        explanation: ExplanationReply | None = None,
        refused: NotExplained | None = None,
    ) -> None:
        if hits is not None:
            self.hits: RuleHitsPage = hits
        if sums is not None:
            self.sums: Sums = sums
        if explanation is not None:
            self.explanation: ExplanationReply = explanation
        if refused is not None:
            self.refused: NotExplained = refused


_COUNTINGREPLY: Final = MessageRule(
    "septum.v1.CountingReply",
    CountingReply,
    (
        FieldRule(1, "hits", Type.MESSAGE, None, 0, 0, has_presence=True, message=_RULEHITSPAGE),
        FieldRule(2, "sums", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SUMS),
        FieldRule(3, "explanation", Type.MESSAGE, None, 0, 0, has_presence=True, message=_EXPLANATIONREPLY),
        FieldRule(4, "refused", Type.MESSAGE, None, 0, 0, has_presence=True, message=_NOTEXPLAINED),
    ),
)


SCHEMA: Final = Schema("counting", Kind.CALL, WhenFull.BLOCK, 16, _COUNTINGREQUEST, _COUNTINGREPLY)
