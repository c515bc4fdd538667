"""Rules: what is in force and what it has counted, what it would do, and what another set has otherwise."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from septum.admin.v1 import admin_pb2 as pb
from septum.v1 import configuring
from septum.v1.counting import AskExplanation, AskRuleHits, AskSums, CountingRequest, ExplanationReply

from appliance.guest.settings import SettingsError
from appliance.vchan.message import cut
from components.admin import packets, rulebook, rulediff
from components.admin.client import Caller
from components.admin.holding import Lock
from components.admin.pieces import Receive, Room, sections
from components.admin.ratelimit import Buckets
from components.admin.rulebook import Item, Rulebook
from components.admin.rulediff import Change, How
from components.admin.status import Code, RpcError
from components.admin.world import World

EXPLAIN_RATE: Final = (1.0, 10.0)  # a second and at once, of one administrator: the filter answers few of all
DIFF_RATE: Final = (0.5, 5.0)  # the same: each may be some tenths of a second's work
MOST_CHANGES: Final = 500
_MOST_OCTETS: Final = 1 << 20  # of all changes that are shown
_LONGEST_TEXT: Final = 1024
_LONGEST_FORM: Final = 2048
_MOST_FIELDS: Final = 32
_KEPT: Final = 2  # sets of rules
_MOST_SUMS: Final = 128
_SIDES: Final = ("", "red", "tunnel", "", "black")


class RuleCalls:
    """``septum.admin.v1.Rules``."""

    def __init__(self, world: World, room: Room) -> None:
        self._world = world
        self._room = room
        self._explain_rates = Buckets(*EXPLAIN_RATE)
        self._diff_rates = Buckets(*DIFF_RATE)
        self._comparing = Lock()
        self._books: dict[int, Rulebook] = {}  # by revision, whose content never changes

    async def get_rules(self, caller: Caller, request: pb.GetRulesRequest) -> pb.RulesText:
        revision, text = await self._world.holding.rules()
        return pb.RulesText(text=text, revision=revision)

    async def get_counters(self, caller: Caller, request: pb.GetCountersRequest) -> pb.RuleCounters:
        ask = self._world.filter.ask
        counted = pb.RuleCounters()
        start = 0
        while True:
            reply = await ask(CountingRequest(hits=AskRuleHits(start=start)))
            if reply.WhichOneof("answer") != "hits":
                raise RpcError(Code.INTERNAL, "the filter answers something else")
            page = reply.hits
            if start and counted.digest != bytes(page.digest).hex():
                counted, start = pb.RuleCounters(), 0  # other rules meanwhile
                continue
            counted.digest = bytes(page.digest).hex()
            for number, hits in enumerate(page.hits, start + 1):
                counted.rules.add(number=number, packets=hits.packets, bytes=hits.octets, last_ms=hits.last)
            start += len(page.hits)
            if start >= page.rules or not page.hits:
                break
        reply = await ask(CountingRequest(sums=AskSums(most=_MOST_SUMS)))
        if reply.WhichOneof("answer") == "sums":
            for one in reply.sums.sums:
                counted.sums.add(what=one.what, side=_SIDES[one.side] or "all", count=one.count)
        return counted

    # what the filter would do -----------------------------------------------------------------------------------------

    async def explain_packet(self, caller: Caller, request: pb.ExplainPacketRequest) -> pb.PacketExplanation:
        which = request.WhichOneof("packet")
        if which is None:
            raise RpcError(
                Code.INVALID_ARGUMENT, "is missing, and so is raw: one of them says which packet", path="headers"
            )
        packet = packets.build(request.headers) if which == "headers" else request.raw
        side, peer = await self._origin(request)
        _spend(self._explain_rates, caller, self._world.clock.now)
        asked = AskExplanation(packet=packet, side=side, peer=peer)
        reply = await self._world.filter.ask(CountingRequest(explanation=asked))
        answer = reply.WhichOneof("answer")
        if answer == "refused":
            if reply.refused.wait_ms:
                wait = reply.refused.wait_ms / 1000
                raise RpcError(Code.RESOURCE_EXHAUSTED, reply.refused.why, reason="RATE", retry=wait)
            raise RpcError(Code.INVALID_ARGUMENT, reply.refused.why, path=reply.refused.path)
        if answer != "explanation":
            raise RpcError(Code.INTERNAL, "the filter answers something else")
        return await self._explained(reply.explanation)

    async def _origin(self, request: pb.ExplainPacketRequest) -> tuple[int, int]:
        """Side and peer that the packet comes from."""
        side = request.side or (pb.SIDE_TUNNEL if request.peer else pb.SIDE_RED)
        if side == pb.SIDE_RED:
            if request.peer:
                raise RpcError(Code.INVALID_ARGUMENT, "what comes from the red side is no peer's", path="peer")
            return side, 0
        if not request.peer:
            raise RpcError(Code.INVALID_ARGUMENT, "is missing: what comes from the tunnel is a peer's", path="peer")
        try:
            key = base64.b64decode(request.peer, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        for peer in await self._world.holding.peers():
            if peer.name == request.peer or (len(key) == 32 and peer.public_key == key):
                return side, peer.number
        raise RpcError(Code.NOT_FOUND, f"there is no peer {request.peer}", path="peer")

    async def _explained(self, found: ExplanationReply) -> pb.PacketExplanation:
        shown = pb.PacketExplanation(
            verdict=found.verdict,  # type: ignore[arg-type]  # the same numbers on both sides
            rule=found.number,
            why=found.why,
            tracking=found.tracking,
            state=found.state,
            leaves=_SIDES[found.leaves],
            translated=found.translated,
            digest=bytes(found.digest).hex(),
        )
        if found.number:
            book = await self._book((await self._world.holding.now()).active)
            item = book.rule(found.number)
            if item is not None and book.digest == bytes(found.digest):  # else others are in force since a moment ago
                shown.file, shown.line = cut(item.file, 256), item.line
                shown.text = cut(book.text(item), _LONGEST_TEXT)
        return shown

    # what was done to them --------------------------------------------------------------------------------------------

    async def diff_rules(self, caller: Caller, receive: Receive) -> pb.RulesDifference:
        first = await receive()
        if first is None or first.WhichOneof("part") != "header":
            raise RpcError(Code.INVALID_ARGUMENT, "must come first, and once", path="header")
        header = first.header
        if header.ruleset and header.after:
            raise RpcError(Code.INVALID_ARGUMENT, "either this or a candidate is compared with", path="header.after")
        if header.rules and not header.ruleset:
            why = "must come too: the box does not read the language, and compares what was compiled"
            raise RpcError(Code.INVALID_ARGUMENT, why, path="header.ruleset")
        _spend(self._diff_rates, caller, self._world.clock.now)
        sizes = {pb.SECTION_RULESET: header.ruleset, pb.SECTION_RULES: header.rules}
        with self._room.take(caller.name, sizes):
            brought = await sections(sizes, receive)
            async with self._comparing:
                return await self._compared(header, brought)

    async def _compared(self, header: pb.DiffRulesHeader, brought: Mapping[int, bytes]) -> pb.RulesDifference:
        active = (await self._world.holding.now()).active
        before, after = header.before or active, 0 if header.ruleset else header.after or active
        old = await self._book(before)
        if header.ruleset:
            try:
                new = rulebook.read(brought[pb.SECTION_RULESET], brought.get(pb.SECTION_RULES, b""))
            except SettingsError as error:
                path = f"ruleset.{error.path}" if error.path else "ruleset"
                raise RpcError(Code.INVALID_ARGUMENT, error.why, path=path) from None
        else:
            new = await self._book(after)
        await self._world.clock.sleep(0.0)  # it was work: who waits is heard before there is more
        return _difference(before, after, old, new, rulediff.diff(old, new))

    async def _book(self, revision: int) -> Rulebook:
        """The rules of a revision; none before the first."""
        if not revision:
            return rulebook.NOTHING
        if revision not in self._books:
            holding = self._world.holding
            ruleset, text = [
                await holding.section(revision, section) for section in (configuring.RULESET, configuring.RULES)
            ]
            await self._world.clock.sleep(0.0)
            try:
                self._books[revision] = rulebook.read(ruleset, text)
            except SettingsError as error:
                raise RpcError(Code.DATA_LOSS, f"what config keeps as rules is none: {error}") from None
            while len(self._books) > _KEPT:
                del self._books[next(iter(self._books))]
        return self._books[revision]


def _spend(rates: Buckets, caller: Caller, now: float) -> None:
    if wait := rates.take(caller.name, now):
        raise RpcError(Code.RESOURCE_EXHAUSTED, "too many such calls: wait a little", reason="RATE", retry=wait)


def _difference(
    before: int, after: int, old: Rulebook, new: Rulebook, found: rulediff.Difference
) -> pb.RulesDifference:
    counts = {how: sum(change.how is how for change in found.changes) for how in How}
    shown = pb.RulesDifference(
        before=before,
        after=after,
        added=counts[How.ADDED],
        removed=counts[How.REMOVED],
        changed=counts[How.CHANGED],
        moved=counts[How.MOVED],
        same=found.same,
    )
    octets = 0
    for change in found.changes[:MOST_CHANGES]:
        one = _change(change, old, new)
        octets += one.ByteSize()
        if octets > _MOST_OCTETS:
            break
        shown.changes.append(one)
    return shown


def _change(change: Change, old: Rulebook, new: Rulebook) -> pb.RuleChange:
    return pb.RuleChange(
        kind=int(change.how),  # type: ignore[arg-type]  # the same numbers
        list=change.list,
        before=_place(old, change.before),
        after=_place(new, change.after),
        fields=[cut(name, 32) for name in change.fields[:_MOST_FIELDS]],
    )


def _place(book: Rulebook, item: Item | None) -> pb.RulePlace | None:
    if item is None:
        return None
    return pb.RulePlace(
        number=item.number,
        file=cut(item.file, 256),
        line=item.line,
        text=cut(book.text(item), _LONGEST_TEXT),
        form=item.form(_LONGEST_FORM),
    )
