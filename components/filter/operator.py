"""What the operator may ask of the running filter, and how its rules are replaced: requests in, replies out.

New rules come in chunks and count for nothing until they are committed. With the last chunk they are decoded wholly;
with the commit they are built wholly and swapped in between two packets. What is wrong with them is said at either, and
nothing has changed. One set at a time; whoever begins another, or goes away, has given up the first. Every reply has
its bound, so that no question costs the packets much.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from hashlib import blake2s
from typing import TYPE_CHECKING, Any, Final

from septum.v1.filtering import (
    AskFlows,
    AskHits,
    AskTalkers,
    AskText,
    AskTotals,
    AskWhy,
    BeginRules,
    CommitRules,
    Count,
    FilteringReply,
    FilteringRequest,
    FlowRow,
    FlowsPage,
    Hits,
    HitsPage,
    Refused,
    Replaced,
    RulesChunk,
    Step,
    Taken,
    Talker,
    Talkers,
    Text,
    Totals,
    Why,
)

from appliance.guest.settings import SettingsError
from appliance.vchan.message import cut
from components.filter import ruleset
from components.filter.engine import Engine
from components.filter.listing import FlowRow as FlowOf
from components.filter.model import RuleSet, Side

if TYPE_CHECKING:
    from components.filter.ethernet import Ethernet

CHUNK: Final = 61440  # bytes, as filtering.proto has them, and the lists below too
HITS: Final = 512
FLOWS: Final = 256
_MOST_COUNTS: Final = 128
_SHORTEST_LINK: Final = 14  # bytes: two addresses and a type
_MOST_STEPS: Final = 64
_U32: Final = (1 << 32) - 1
_U64: Final = (1 << 64) - 1


def canonical(rules: Mapping[str, object]) -> bytes:
    """The one way to write down what ``ruleset.encode`` makes: whoever has the same rules has the same bytes."""
    return json.dumps(rules, sort_keys=True, separators=(",", ":")).encode()


def digest(text: bytes | bytearray) -> bytes:
    """What a set of rules is named by."""
    return blake2s(text).digest()


class Operator:
    """The server's side of ``filtering``, about ``engine``."""

    def __init__(self, engine: Engine, ethernet: Ethernet | None = None) -> None:
        """``ethernet``: the box passes frames."""
        self._engine = engine
        self._ethernet = ethernet
        self._text = canonical(ruleset.encode(engine.ruleset))
        self._digest = digest(self._text)
        self._replaced = 0
        self._coming: BeginRules | None = None
        self._untrusted_text = bytearray()
        self._decoded: RuleSet | None = None
        self._answers: dict[str, Any] = {
            "begin": self._begin,
            "chunk": self._chunk,
            "commit": self._commit,
            "text": self._read,
            "hits": self._hits,
            "flows": self._flows,
            "talkers": self._talkers,
            "totals": self._totals,
            "why": self._why,
        }

    def answer(self, request: FilteringRequest, now: float, wall: float) -> FilteringReply:
        """The reply to ``request``, which the channel has checked against its schema."""
        ask = request.WhichOneof("ask")
        assert ask is not None  # the schema has it so
        try:
            return FilteringReply(**self._answers[ask](getattr(request, ask), now, wall))
        except SettingsError as error:
            return FilteringReply(refused=Refused(path=cut(error.path, 256), why=cut(error.why, 1024)))

    def forget(self) -> None:
        """Whoever was sending rules is gone."""
        self._coming = self._decoded = None
        self._untrusted_text = bytearray()

    # replacing ------------------------------------------------------------------------------------------------------

    def _begin(self, begin: BeginRules, now: float, wall: float) -> dict[str, Any]:
        self.forget()
        self._coming = begin
        return {"taken": Taken()}

    def _chunk(self, chunk: RulesChunk, now: float, wall: float) -> dict[str, Any]:
        so_far = len(self._untrusted_text)
        if self._coming is None:
            raise SettingsError("", "no rules are expected: begin first")
        if chunk.offset != so_far or so_far + len(chunk.data) > self._coming.total:
            total = self._coming.total
            self.forget()
            raise SettingsError(
                "", f"bytes {chunk.offset} to {chunk.offset + len(chunk.data)} after {so_far} of {total}: begin again"
            )
        self._untrusted_text += chunk.data
        if len(self._untrusted_text) == self._coming.total:
            self._decode(self._coming)
        return {"taken": Taken(bytes=so_far + len(chunk.data))}

    def _decode(self, coming: BeginRules) -> None:
        """All are there. Two steps, of which this is one, keep the packets waiting half as long each."""
        try:
            if digest(self._untrusted_text) != coming.digest:
                raise SettingsError("", "these are not the rules that were meant: begin again")
            self._decoded = ruleset.from_json(bytes(self._untrusted_text))
        except SettingsError:
            self.forget()
            raise

    def _commit(self, commit: CommitRules, now: float, wall: float) -> dict[str, Any]:
        coming, decoded, text = self._coming, self._decoded, bytes(self._untrusted_text)
        self.forget()
        if coming is None:
            raise SettingsError("", "no rules are expected: begin first")
        if decoded is None or commit.digest != coming.digest:
            raise SettingsError(
                "", f"{len(text)} bytes came of {coming.total}, or not those that were meant: begin again"
            )
        try:
            outcome = self._engine.replace(decoded, now, wall)
        except MemoryError:
            raise SettingsError("", "there is not enough memory for these rules beside those in force") from None
        self._text, self._digest = text, coming.digest
        self._replaced += 1
        return {"replaced": Replaced(**outcome._asdict(), digest=self._digest)}

    # looking --------------------------------------------------------------------------------------------------------

    def _read(self, ask: AskText, now: float, wall: float) -> dict[str, Any]:
        data = self._text[ask.offset : ask.offset + CHUNK]
        return {"text": Text(total=len(self._text), digest=self._digest, data=data)}

    def _hits(self, ask: AskHits, now: float, wall: float) -> dict[str, Any]:
        found = self._engine.hits()
        page = [
            Hits(
                packets=min(one.packets, _U64),
                octets=min(one.octets, _U64),
                last=max(1, int((wall - now + one.last) * 1000)) if one.last else 0,
            )
            for one in found[ask.start : ask.start + HITS]
        ]
        return {"hits": HitsPage(digest=self._digest, rules=len(found), hits=page)}

    def _flows(self, ask: AskFlows, now: float, wall: float) -> dict[str, Any]:
        rows = [_row(flow) for flow in self._engine.list_flows(ask.start, FLOWS, now)]
        return {"flows": FlowsPage(flows=len(self._engine.flows), rows=rows)}

    def _talkers(self, ask: AskTalkers, now: float, wall: float) -> dict[str, Any]:
        found = [
            Talker(
                address=_packed(one.address),
                side=one.side,
                flows=one.flows,
                packets=min(one.packets, _U64),
                octets=min(one.octets, _U64),
            )
            for one in self._engine.talkers(ask.most, now)
        ]
        return {"talkers": Talkers(talkers=found)}

    def _totals(self, ask: AskTotals, now: float, wall: float) -> dict[str, Any]:
        engine = self._engine
        counts = [
            Count(what="passed", count=engine.passed),
            Count(what="rejected", count=engine.rejected),
            Count(what="flows", count=len(engine.flows)),
        ]
        counts += [
            Count(side=side, what=cut(why, 32), count=count)
            for side, reasons in engine.denied.items()
            for why, count in reasons.items()
        ]
        counts = counts[: min(ask.most, _MOST_COUNTS)]
        replaced, outcome = min(self._replaced, _U32), engine.replaced._asdict()
        return {"totals": Totals(digest=self._digest, replaced=replaced, counts=counts, **outcome)}

    def _why(self, ask: AskWhy, now: float, wall: float) -> dict[str, Any]:
        if ask.side not in set(Side):
            raise SettingsError("side", f"there is no side {ask.side}")
        if ask.peer and ask.side != Side.TUNNEL:
            raise SettingsError("peer", "only packets from the tunnel have a peer")
        side = Side(ask.side)
        if self._ethernet is None:
            if ask.link:
                raise SettingsError("link", "this box passes packets, and is asked about them without a frame's header")
            found = self._engine.explain(ask.packet, side, ask.peer, now, wall)
        else:
            if len(ask.link) < _SHORTEST_LINK:
                raise SettingsError("link", "this box passes frames, and is asked about them with their header")
            found = self._ethernet.explain(ask.link, ask.packet, side, now, wall)
        return {
            "why": Why(
                verdict=found.verdict,
                number=0 if found.rule is None else found.rule + 1,
                why=cut(found.why, 512),
                packet=cut(found.packet, 256),
                tracking=cut(found.tracking, 24),
                state=cut(found.state, 256),
                leaves=0 if found.leaves is None else found.leaves,
                translation=cut(found.translation, 256),
                steps=[Step(number=rule + 1, why=cut(why, 128)) for rule, why in found.steps[:_MOST_STEPS]],
                digest=self._digest,
            )
        }


def _row(flow: FlowOf) -> FlowRow:
    return FlowRow(
        protocol=flow.protocol,
        source=_packed(flow.source),
        source_port=flow.source_port,
        destination=_packed(flow.destination),
        destination_port=flow.destination_port,
        side=flow.opener,
        across=flow.across,
        peer=flow.peer,
        state=cut(flow.state, 24),
        answered=flow.is_answered,
        number=flow.rule + 1,
        packets=min(flow.packets, _U64),
        octets=min(flow.octets, _U64),
        left=_seconds(flow.ends_in),
        translated=cut(flow.translated, 128),
    )


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _seconds(time: float) -> int:
    return min(max(0, int(time)), _U32)
