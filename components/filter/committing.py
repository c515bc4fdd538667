"""A managed box: rules come with what administrators signed, and what they matched is told without a word of a packet.

``commits`` is config's, which carries and is not believed: signature, role, revision and digest are looked at here.
``counts`` is admin's, which may know how often a rule decided, and not about what; and what would become of a packet
that an administrator makes up, so seldom that nobody finds out like that who speaks with whom.
"""

from __future__ import annotations

import time
from typing import Final

from septum.v1.applying import ApplyingReply, ApplyingRequest
from septum.v1.counting import (
    AskExplanation,
    AskRuleHits,
    AskSums,
    CountingReply,
    CountingRequest,
    ExplanationReply,
    NotExplained,
    RuleHits,
    RuleHitsPage,
    Sum,
    Sums,
)

from appliance.guest.loop import Guest
from appliance.guest.settings import SettingsError
from appliance.signed.trust import Trust
from appliance.vchan.message import cut
from components.filter import ruleset
from components.filter.engine import Compiled, Engine
from components.filter.explain import in_sequence
from components.filter.limits import Bucket
from components.filter.model import RuleSet, Side

Rules = tuple[RuleSet, Compiled]

COMMITS: Final = "commits"
COUNTS: Final = "counts"
PAGE: Final = 512  # rules in one reply, as counting.proto has it
_MOST_SUMS: Final = 128
_SHARE: Final = 0.25  # of the filter's time, that each of them may take
_U64: Final = (1 << 64) - 1
_NOTHING: Final = bytes(32)
EXPLAINED: Final = (2.0, 20.0)  # questions a second, and at once: no flow is found by trying all ports
_SIDES: Final = frozenset({Side.RED, Side.TUNNEL})


def serve(guest: Guest, engine: Engine, trust: Trust | None) -> None:
    """Serves what the assembly joins. Errors: SettingsError unless ``trust`` is there where commits are, and there
    alone.
    """
    is_managed = guest.is_joined(COMMITS)
    if is_managed != (trust is not None):
        raise SettingsError("trust", "goes with the port `commits`: both are there, or neither")
    counting = Counting(engine)
    if trust is not None:
        _serve_commits(guest, engine, trust, counting)
    if guest.is_joined(COUNTS):
        guest.serve(COUNTS, lambda peer, request: counting.answer(request, time.monotonic(), guest.wall()), _SHARE)


def _serve_commits(guest: Guest, engine: Engine, trust: Trust, counting: Counting) -> None:
    # Signatures cost memory that a box which is not managed keeps
    from appliance.signed.applier import Applied, Applier

    def prepare(section: bytes) -> Rules:
        """All that can go wrong does so here: behind it there is no way back."""
        try:
            rules = ruleset.from_json(section, guest.beat)
            guest.beat()
            return rules, engine.compiled(rules)
        except MemoryError:
            raise SettingsError("", "there is not enough memory for these rules beside those in force") from None

    def apply(rules: Rules) -> Applied:
        outcome = engine.replace(rules[0], time.monotonic(), guest.wall(), rules[1])
        return Applied(outcome.kept + outcome.left, outcome.ended)  # those left are judged before they pass again

    applier = Applier(trust, "ruleset", (engine.ruleset, engine.compiled(engine.ruleset)), prepare, apply)

    def answer(peer: str, request: ApplyingRequest) -> ApplyingReply:
        before = applier.commit
        reply = applier.answer(request)
        if (commit := applier.commit) is not before:
            counting.digest = commit.ruleset if commit is not None else _NOTHING
            guest.log.info("rules", f"of revision {applier.revision} are in force: {len(engine.ruleset.rules)}")
        return reply

    guest.serve(COMMITS, answer, _SHARE)
    guest.on_close(COMMITS, lambda now: applier.forget())


class Counting:
    """The server's side of ``counting``. ``digest`` is that of the section in force."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._explained = Bucket(*EXPLAINED)
        self.digest = _NOTHING

    def answer(self, request: CountingRequest, now: float, wall: float) -> CountingReply:
        """The reply to ``request``, which the channel has checked against its schema."""
        if request.WhichOneof("ask") == "hits":
            return CountingReply(hits=self._hits(request.hits, now, wall))
        if request.WhichOneof("ask") == "explanation":
            return self._explain(request.explanation, now, wall)
        return CountingReply(sums=self._sums(request.sums))

    def _hits(self, ask: AskRuleHits, now: float, wall: float) -> RuleHitsPage:
        found = self._engine.hits()
        page = [
            RuleHits(
                packets=min(one.packets, _U64),
                octets=min(one.octets, _U64),
                last=max(1, int((wall - now + one.last) * 1000)) if one.last else 0,
            )
            for one in found[ask.start : ask.start + PAGE]
        ]
        return RuleHitsPage(digest=self.digest, rules=len(found), hits=page)

    def _sums(self, ask: AskSums) -> Sums:
        engine = self._engine
        sums = [
            Sum(what="passed", count=engine.passed),
            Sum(what="rejected", count=engine.rejected),
            Sum(what="flows", count=len(engine.flows)),
        ]
        sums += [
            Sum(what=cut(why, 32), side=side, count=count)
            for side, reasons in engine.denied.items()
            for why, count in reasons.items()
        ]
        return Sums(digest=self.digest, sums=sums[: min(ask.most, _MOST_SUMS)])

    def _explain(self, ask: AskExplanation, now: float, wall: float) -> CountingReply:
        if ask.side not in _SIDES:
            return _not_explained("side", "no packet of this box comes from there")
        if (ask.side == Side.TUNNEL) != bool(ask.peer):
            return _not_explained("peer", "packets from the tunnel have a peer, and no others")
        if not self._explained.take(1, now):
            return _not_explained("", "too many packets are asked about", int(1000 / EXPLAINED[0]))
        side = Side(ask.side)
        packet = in_sequence(self._engine, ask.packet, side, now, wall)
        found = self._engine.explain(packet, side, ask.peer, now, wall)
        reply = ExplanationReply(
            digest=self.digest,
            verdict=found.verdict,
            number=0 if found.rule is None else found.rule + 1,
            why=cut(found.why, 256),
            tracking=cut(found.tracking, 24),
            state=cut(found.state, 128),
            leaves=0 if found.leaves is None else found.leaves,
            translated=bool(found.translation),
        )
        return CountingReply(explanation=reply)


def _not_explained(path: str, why: str, wait_ms: int = 0) -> CountingReply:
    return CountingReply(refused=NotExplained(path=path, why=why, wait_ms=wait_ms))
