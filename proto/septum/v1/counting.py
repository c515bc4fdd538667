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


class CountingRequest(Message):
    __slots__ = ("hits", "sums")
    ONEOFS = {"ask": ("hits", "sums")}

    def __init__(
        self,
        *,
        hits: AskRuleHits | None = None,
        sums: AskSums | None = None,
    ) -> None:
        if hits is not None:
            self.hits: AskRuleHits = hits
        if sums is not None:
            self.sums: AskSums = sums


_COUNTINGREQUEST: Final = MessageRule(
    "septum.v1.CountingRequest",
    CountingRequest,
    (
        FieldRule(1, "hits", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKRULEHITS),
        FieldRule(2, "sums", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKSUMS),
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


class CountingReply(Message):
    __slots__ = ("hits", "sums")
    ONEOFS = {"answer": ("hits", "sums")}

    def __init__(
        self,
        *,
        hits: RuleHitsPage | None = None,
        sums: Sums | None = None,
    ) -> None:
        if hits is not None:
            self.hits: RuleHitsPage = hits
        if sums is not None:
            self.sums: Sums = sums


_COUNTINGREPLY: Final = MessageRule(
    "septum.v1.CountingReply",
    CountingReply,
    (
        FieldRule(1, "hits", Type.MESSAGE, None, 0, 0, has_presence=True, message=_RULEHITSPAGE),
        FieldRule(2, "sums", Type.MESSAGE, None, 0, 0, has_presence=True, message=_SUMS),
    ),
)


SCHEMA: Final = Schema("counting", Kind.CALL, WhenFull.BLOCK, 16, _COUNTINGREQUEST, _COUNTINGREPLY)
