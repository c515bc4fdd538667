"""Generated from filtering.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull


class BeginRules(Message):
    __slots__ = ("total", "digest")

    def __init__(
        self,
        *,
        total: int = 0,
        digest: bytes = b"",
    ) -> None:
        self.total = total
        self.digest = digest


_BEGINRULES: Final = MessageRule(
    "septum.v1.BeginRules",
    BeginRules,
    (
        FieldRule(1, "total", Type.UINT32, "CONTROL", 1, 8388608),
        FieldRule(2, "digest", Type.BYTES, "CONTROL", 32, 32),
    ),
)


class RulesChunk(Message):
    __slots__ = ("offset", "data")

    def __init__(
        self,
        *,
        offset: int = 0,
        data: bytes = b"",
    ) -> None:
        self.offset = offset
        self.data = data


_RULESCHUNK: Final = MessageRule(
    "septum.v1.RulesChunk",
    RulesChunk,
    (
        FieldRule(1, "offset", Type.UINT32, "CONTROL", 0, 8388607),
        FieldRule(2, "data", Type.BYTES, "CONTROL", 1, 61440),
    ),
)


class CommitRules(Message):
    __slots__ = ("digest",)

    def __init__(
        self,
        *,
        digest: bytes = b"",
    ) -> None:
        self.digest = digest


_COMMITRULES: Final = MessageRule(
    "septum.v1.CommitRules",
    CommitRules,
    (
        FieldRule(1, "digest", Type.BYTES, "CONTROL", 32, 32),
    ),
)


class AskText(Message):
    __slots__ = ("offset",)

    def __init__(
        self,
        *,
        offset: int = 0,
    ) -> None:
        self.offset = offset


_ASKTEXT: Final = MessageRule(
    "septum.v1.AskText",
    AskText,
    (
        FieldRule(1, "offset", Type.UINT32, "CONTROL", 0, 8388608),
    ),
)


class AskHits(Message):
    __slots__ = ("start",)

    def __init__(
        self,
        *,
        start: int = 0,
    ) -> None:
        self.start = start


_ASKHITS: Final = MessageRule(
    "septum.v1.AskHits",
    AskHits,
    (
        FieldRule(1, "start", Type.UINT32, "CONTROL", 0, 65536),
    ),
)


class AskFlows(Message):
    __slots__ = ("start",)

    def __init__(
        self,
        *,
        start: int = 0,
    ) -> None:
        self.start = start


_ASKFLOWS: Final = MessageRule(
    "septum.v1.AskFlows",
    AskFlows,
    (
        FieldRule(1, "start", Type.UINT32, "CONTROL", 0, 16777216),
    ),
)


class AskTalkers(Message):
    __slots__ = ("most",)

    def __init__(
        self,
        *,
        most: int = 0,
    ) -> None:
        self.most = most


_ASKTALKERS: Final = MessageRule(
    "septum.v1.AskTalkers",
    AskTalkers,
    (
        FieldRule(1, "most", Type.UINT32, "CONTROL", 1, 64),
    ),
)


class AskTotals(Message):
    __slots__ = ("most",)

    def __init__(
        self,
        *,
        most: int = 0,
    ) -> None:
        self.most = most


_ASKTOTALS: Final = MessageRule(
    "septum.v1.AskTotals",
    AskTotals,
    (
        FieldRule(1, "most", Type.UINT32, "CONTROL", 1, 128),
    ),
)


class AskWhy(Message):
    __slots__ = ("packet", "side", "peer", "link")

    def __init__(
        self,
        *,
        packet: bytes = b"",
        side: int = 0,
        peer: int = 0,
        link: bytes = b"",
    ) -> None:
        self.packet = packet
        self.side = side
        self.peer = peer
        self.link = link


_ASKWHY: Final = MessageRule(
    "septum.v1.AskWhy",
    AskWhy,
    (
        FieldRule(1, "packet", Type.BYTES, "RED", 1, 65535),
        FieldRule(2, "side", Type.UINT32, "CONTROL", 1, 4),
        FieldRule(3, "peer", Type.UINT32, "CONTROL", 0, 65535),
        FieldRule(4, "link", Type.BYTES, "RED", 0, 64),
    ),
)


class FilteringRequest(Message):
    __slots__ = ("begin", "chunk", "commit", "text", "hits", "flows", "talkers", "totals", "why")
    ONEOFS = {"ask": ("begin", "chunk", "commit", "text", "hits", "flows", "talkers", "totals", "why")}

    def __init__(
        self,
        *,
        begin: BeginRules | None = None,
        chunk: RulesChunk | None = None,
        commit: CommitRules | None = None,
        text: AskText | None = None,
        hits: AskHits | None = None,
        flows: AskFlows | None = None,
        talkers: AskTalkers | None = None,
        totals: AskTotals | None = None,
        why: AskWhy | None = None,
    ) -> None:
        if begin is not None:
            self.begin: BeginRules = begin
        if chunk is not None:
            self.chunk: RulesChunk = chunk
        if commit is not None:
            self.commit: CommitRules = commit
        if text is not None:
            self.text: AskText = text
        if hits is not None:
            self.hits: AskHits = hits
        if flows is not None:
            self.flows: AskFlows = flows
        if talkers is not None:
            self.talkers: AskTalkers = talkers
        if totals is not None:
            self.totals: AskTotals = totals
        if why is not None:
            self.why: AskWhy = why


_FILTERINGREQUEST: Final = MessageRule(
    "septum.v1.FilteringRequest",
    FilteringRequest,
    (
        FieldRule(1, "begin", Type.MESSAGE, None, 0, 0, has_presence=True, message=_BEGINRULES),
        FieldRule(2, "chunk", Type.MESSAGE, None, 0, 0, has_presence=True, message=_RULESCHUNK),
        FieldRule(3, "commit", Type.MESSAGE, None, 0, 0, has_presence=True, message=_COMMITRULES),
        FieldRule(4, "text", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKTEXT),
        FieldRule(5, "hits", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKHITS),
        FieldRule(6, "flows", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKFLOWS),
        FieldRule(7, "talkers", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKTALKERS),
        FieldRule(8, "totals", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKTOTALS),
        FieldRule(9, "why", Type.MESSAGE, None, 0, 0, has_presence=True, message=_ASKWHY),
    ),
)


class Refused(Message):
    __slots__ = ("path", "why")

    def __init__(
        self,
        *,
        path: str = "",
        why: str = "",
    ) -> None:
        self.path = path
        self.why = why


_REFUSED: Final = MessageRule(
    "septum.v1.Refused",
    Refused,
    (
        FieldRule(1, "path", Type.STRING, "CONTROL", 0, 256),
        FieldRule(2, "why", Type.STRING, "CONTROL", 1, 1024),
    ),
)


class Taken(Message):
    __slots__ = ("bytes",)

    def __init__(
        self,
        *,
        bytes: int = 0,
    ) -> None:
        self.bytes = bytes


_TAKEN: Final = MessageRule(
    "septum.v1.Taken",
    Taken,
    (
        FieldRule(1, "bytes", Type.UINT32, "CONTROL", 0, 8388608),
    ),
)


class Replaced(Message):
    __slots__ = ("kept", "ended", "digest", "left")

    def __init__(
        self,
        *,
        kept: int = 0,
        ended: int = 0,
        digest: bytes = b"",
        left: int = 0,
    ) -> None:
        self.kept = kept
        self.ended = ended
        self.digest = digest
        self.left = left


_REPLACED: Final = MessageRule(
    "septum.v1.Replaced",
    Replaced,
    (
        FieldRule(1, "kept", Type.UINT32, "CONTROL", 0, 16777216),
        FieldRule(2, "ended", Type.UINT32, "CONTROL", 0, 16777216),
        FieldRule(3, "digest", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(4, "left", Type.UINT32, "CONTROL", 0, 16777216),
    ),
)


class Text(Message):
    __slots__ = ("total", "digest", "data")

    def __init__(
        self,
        *,
        total: int = 0,
        digest: bytes = b"",
        data: bytes = b"",
    ) -> None:
        self.total = total
        self.digest = digest
        self.data = data


_TEXT: Final = MessageRule(
    "septum.v1.Text",
    Text,
    (
        FieldRule(1, "total", Type.UINT32, "CONTROL", 1, 8388608),
        FieldRule(2, "digest", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(3, "data", Type.BYTES, "CONTROL", 0, 61440),
    ),
)


class Hits(Message):
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


_HITS: Final = MessageRule(
    "septum.v1.Hits",
    Hits,
    (
        FieldRule(1, "packets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(2, "octets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(3, "last", Type.UINT64, "CONTROL", 0, 18446744073709551615),
    ),
)


class HitsPage(Message):
    __slots__ = ("digest", "rules", "hits")

    def __init__(
        self,
        *,
        digest: bytes = b"",
        rules: int = 0,
        hits: list[Hits] | None = None,
    ) -> None:
        self.digest = digest
        self.rules = rules
        self.hits: list[Hits] = [] if hits is None else hits


_HITSPAGE: Final = MessageRule(
    "septum.v1.HitsPage",
    HitsPage,
    (
        FieldRule(1, "digest", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(2, "rules", Type.UINT32, "CONTROL", 0, 65536),
        FieldRule(3, "hits", Type.MESSAGE, None, 0, 0, max_items=512, message=_HITS),
    ),
)


class FlowRow(Message):
    __slots__ = ("protocol", "source", "source_port", "destination", "destination_port", "side", "across", "peer", "state", "answered", "number", "packets", "octets", "left", "translated")

    def __init__(
        self,
        *,
        protocol: int = 0,
        source: bytes = b"",
        source_port: int = 0,
        destination: bytes = b"",
        destination_port: int = 0,
        side: int = 0,
        across: int = 0,
        peer: int = 0,
        state: str = "",
        answered: bool = False,
        number: int = 0,
        packets: int = 0,
        octets: int = 0,
        left: int = 0,
        translated: str = "",
    ) -> None:
        self.protocol = protocol
        self.source = source
        self.source_port = source_port
        self.destination = destination
        self.destination_port = destination_port
        self.side = side
        self.across = across
        self.peer = peer
        self.state = state
        self.answered = answered
        self.number = number
        self.packets = packets
        self.octets = octets
        self.left = left
        self.translated = translated


_FLOWROW: Final = MessageRule(
    "septum.v1.FlowRow",
    FlowRow,
    (
        FieldRule(1, "protocol", Type.UINT32, "RED", 0, 255),
        FieldRule(2, "source", Type.BYTES, "RED", 4, 16),
        FieldRule(3, "source_port", Type.UINT32, "RED", 0, 65535),
        FieldRule(4, "destination", Type.BYTES, "RED", 4, 16),
        FieldRule(5, "destination_port", Type.UINT32, "RED", 0, 65535),
        FieldRule(6, "side", Type.UINT32, "CONTROL", 1, 4),
        FieldRule(7, "across", Type.UINT32, "CONTROL", 1, 4),
        FieldRule(8, "peer", Type.UINT32, "CONTROL", 0, 65535),
        FieldRule(9, "state", Type.STRING, "CONTROL", 1, 24),
        FieldRule(10, "answered", Type.BOOL, "CONTROL", 0, 1),
        FieldRule(11, "number", Type.UINT32, "CONTROL", 0, 65536),
        FieldRule(12, "packets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(13, "octets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(14, "left", Type.UINT32, "CONTROL", 0, 4294967295),
        FieldRule(15, "translated", Type.STRING, "RED", 0, 128),
    ),
)


class FlowsPage(Message):
    __slots__ = ("flows", "rows")

    def __init__(
        self,
        *,
        flows: int = 0,
        rows: list[FlowRow] | None = None,
    ) -> None:
        self.flows = flows
        self.rows: list[FlowRow] = [] if rows is None else rows


_FLOWSPAGE: Final = MessageRule(
    "septum.v1.FlowsPage",
    FlowsPage,
    (
        FieldRule(1, "flows", Type.UINT32, "CONTROL", 0, 16777216),
        FieldRule(2, "rows", Type.MESSAGE, None, 0, 0, max_items=256, message=_FLOWROW),
    ),
)


class Talker(Message):
    __slots__ = ("address", "side", "flows", "packets", "octets")

    def __init__(
        self,
        *,
        address: bytes = b"",
        side: int = 0,
        flows: int = 0,
        packets: int = 0,
        octets: int = 0,
    ) -> None:
        self.address = address
        self.side = side
        self.flows = flows
        self.packets = packets
        self.octets = octets


_TALKER: Final = MessageRule(
    "septum.v1.Talker",
    Talker,
    (
        FieldRule(1, "address", Type.BYTES, "RED", 4, 16),
        FieldRule(2, "side", Type.UINT32, "CONTROL", 1, 4),
        FieldRule(3, "flows", Type.UINT32, "CONTROL", 0, 16777216),
        FieldRule(4, "packets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
        FieldRule(5, "octets", Type.UINT64, "CONTROL", 0, 18446744073709551615),
    ),
)


class Talkers(Message):
    __slots__ = ("talkers",)

    def __init__(
        self,
        *,
        talkers: list[Talker] | None = None,
    ) -> None:
        self.talkers: list[Talker] = [] if talkers is None else talkers


_TALKERS: Final = MessageRule(
    "septum.v1.Talkers",
    Talkers,
    (
        FieldRule(1, "talkers", Type.MESSAGE, None, 0, 0, max_items=64, message=_TALKER),
    ),
)


class Count(Message):
    __slots__ = ("side", "what", "count")

    def __init__(
        self,
        *,
        side: int = 0,
        what: str = "",
        count: int = 0,
    ) -> None:
        self.side = side
        self.what = what
        self.count = count


_COUNT: Final = MessageRule(
    "septum.v1.Count",
    Count,
    (
        FieldRule(1, "side", Type.UINT32, "CONTROL", 0, 4),
        FieldRule(2, "what", Type.STRING, "CONTROL", 1, 32),
        FieldRule(3, "count", Type.UINT64, "CONTROL", 0, 18446744073709551615),
    ),
)


class Totals(Message):
    __slots__ = ("digest", "replaced", "counts", "kept", "ended", "left")

    def __init__(
        self,
        *,
        digest: bytes = b"",
        replaced: int = 0,
        counts: list[Count] | None = None,
        kept: int = 0,
        ended: int = 0,
        left: int = 0,
    ) -> None:
        self.digest = digest
        self.replaced = replaced
        self.counts: list[Count] = [] if counts is None else counts
        self.kept = kept
        self.ended = ended
        self.left = left


_TOTALS: Final = MessageRule(
    "septum.v1.Totals",
    Totals,
    (
        FieldRule(1, "digest", Type.BYTES, "CONTROL", 32, 32),
        FieldRule(2, "replaced", Type.UINT32, "CONTROL", 0, 4294967295),
        FieldRule(3, "counts", Type.MESSAGE, None, 0, 0, max_items=128, message=_COUNT),
        FieldRule(4, "kept", Type.UINT32, "CONTROL", 0, 16777216),
        FieldRule(5, "ended", Type.UINT32, "CONTROL", 0, 16777216),
        FieldRule(6, "left", Type.UINT32, "CONTROL", 0, 16777216),
    ),
)


class Step(Message):
    __slots__ = ("number", "why")

    def __init__(
        self,
        *,
        number: int = 0,
        why: str = "",
    ) -> None:
        self.number = number
        self.why = why


_STEP: Final = MessageRule(
    "septum.v1.Step",
    Step,
    (
        FieldRule(1, "number", Type.UINT32, "CONTROL", 1, 65536),
        FieldRule(2, "why", Type.STRING, "RED", 0, 128),
    ),
)


class Why(Message):
    __slots__ = ("verdict", "number", "why", "packet", "tracking", "state", "leaves", "translation", "steps", "digest")

    def __init__(
        self,
        *,
        verdict: int = 0,
        number: int = 0,
        why: str = "",
        packet: str = "",
        tracking: str = "",
        state: str = "",
        leaves: int = 0,
        translation: str = "",
        steps: list[Step] | None = None,
        digest: bytes = b"",
    ) -> None:
        self.verdict = verdict
        self.number = number
        self.why = why
        self.packet = packet
        self.tracking = tracking
        self.state = state
        self.leaves = leaves
        self.translation = translation
        self.steps: list[Step] = [] if steps is None else steps
        self.digest = digest


_WHY: Final = MessageRule(
    "septum.v1.Why",
    Why,
    (
        FieldRule(1, "verdict", Type.UINT32, "CONTROL", 1, 3),
        FieldRule(2, "number", Type.UINT32, "CONTROL", 0, 65536),
        FieldRule(3, "why", Type.STRING, "RED", 0, 512),
        FieldRule(4, "packet", Type.STRING, "RED", 0, 256),
        FieldRule(5, "tracking", Type.STRING, "CONTROL", 0, 24),
        FieldRule(6, "state", Type.STRING, "RED", 0, 256),
        FieldRule(7, "leaves", Type.UINT32, "CONTROL", 0, 4),
        FieldRule(8, "translation", Type.STRING, "RED", 0, 256),
        FieldRule(9, "steps", Type.MESSAGE, None, 0, 0, max_items=64, message=_STEP),
        FieldRule(10, "digest", Type.BYTES, "CONTROL", 32, 32),
    ),
)


class FilteringReply(Message):
    __slots__ = ("refused", "taken", "replaced", "text", "hits", "flows", "talkers", "totals", "why")
    ONEOFS = {"answer": ("refused", "taken", "replaced", "text", "hits", "flows", "talkers", "totals", "why")}

    def __init__(
        self,
        *,
        refused: Refused | None = None,
        taken: Taken | None = None,
        replaced: Replaced | None = None,
        text: Text | None = None,
        hits: HitsPage | None = None,
        flows: FlowsPage | None = None,
        talkers: Talkers | None = None,
        totals: Totals | None = None,
        why: Why | None = None,
    ) -> None:
        if refused is not None:
            self.refused: Refused = refused
        if taken is not None:
            self.taken: Taken = taken
        if replaced is not None:
            self.replaced: Replaced = replaced
        if text is not None:
            self.text: Text = text
        if hits is not None:
            self.hits: HitsPage = hits
        if flows is not None:
            self.flows: FlowsPage = flows
        if talkers is not None:
            self.talkers: Talkers = talkers
        if totals is not None:
            self.totals: Totals = totals
        if why is not None:
            self.why: Why = why


_FILTERINGREPLY: Final = MessageRule(
    "septum.v1.FilteringReply",
    FilteringReply,
    (
        FieldRule(1, "refused", Type.MESSAGE, None, 0, 0, has_presence=True, message=_REFUSED),
        FieldRule(2, "taken", Type.MESSAGE, None, 0, 0, has_presence=True, message=_TAKEN),
        FieldRule(3, "replaced", Type.MESSAGE, None, 0, 0, has_presence=True, message=_REPLACED),
        FieldRule(4, "text", Type.MESSAGE, None, 0, 0, has_presence=True, message=_TEXT),
        FieldRule(5, "hits", Type.MESSAGE, None, 0, 0, has_presence=True, message=_HITSPAGE),
        FieldRule(6, "flows", Type.MESSAGE, None, 0, 0, has_presence=True, message=_FLOWSPAGE),
        FieldRule(7, "talkers", Type.MESSAGE, None, 0, 0, has_presence=True, message=_TALKERS),
        FieldRule(8, "totals", Type.MESSAGE, None, 0, 0, has_presence=True, message=_TOTALS),
        FieldRule(9, "why", Type.MESSAGE, None, 0, 0, has_presence=True, message=_WHY),
    ),
)


SCHEMA: Final = Schema("filtering", Kind.CALL, WhenFull.BLOCK, 17, _FILTERINGREQUEST, _FILTERINGREPLY)
