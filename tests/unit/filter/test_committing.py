"""A managed filter: nothing passes until signed rules come; what is not signed by who may changes nothing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from septum.v1.applying import Apply, ApplyingReply, ApplyingRequest, BeginSection, Chunk, Enlist, Prepare, Revert
from septum.v1.counting import AskExplanation, AskRuleHits, AskSums, CountingReply, CountingRequest

from appliance.guest.settings import SettingsError
from appliance.rules.read import from_text
from appliance.signed.statements import Role, Signed, parse
from appliance.vchan.codec import Codec
from appliance.vchan.messages import Packets
from appliance.vchan.schema import schema
from components.filter import main
from components.filter.committing import EXPLAINED
from components.filter.model import Action, Side
from components.filter.ruleset import encode
from components.filter.settings import parse as parse_settings
from tests.unit.fake_guest import FakeGuest
from tests.unit.filter.talk import ruleset, udp_out
from tests.unit.signed.box import BOX, TRUST, Chain

SETTINGS = {"trust": {"box": BOX.hex(), "console": TRUST.console.hex()}}


def section(text: str) -> bytes:
    return json.dumps(encode(from_text(text, "test.rules").ruleset), sort_keys=True, separators=(",", ":")).encode()


OPEN = section("allow from red udp to port 53")
SHUT = section("allow from red tcp to port 22")


class Managed:
    """A filter with config and admin at its other ends."""

    def __init__(self) -> None:
        self.guest = FakeGuest("filter", "filter", dict(SETTINGS))
        self.guest.joined |= {"commits", "counts"}
        main.build(self.guest)  # type: ignore[arg-type]
        self.chain = Chain()
        self.chain.add("alice", Role.OPERATOR)
        for signed in self.chain.statements:
            self.say(enlist=Enlist(statement=signed.statement, signature=signed.signature))

    def say(self, **ask: Any) -> ApplyingReply:
        reply: ApplyingReply = self.guest.handlers["commits"]("config", ApplyingRequest(**ask))
        return reply

    def put(self, signed: Signed, rules: bytes) -> ApplyingReply:
        for at in range(0, len(rules), 1000):
            if not at:
                self.say(begin=BeginSection(total=len(rules)))
            self.say(chunk=Chunk(offset=at, data=rules[at : at + 1000]))
        reply = self.say(prepare=Prepare(statement=signed.statement, signature=signed.signature))
        if reply.WhichOneof("answer") == "refused":
            return reply
        return self.say(apply=Apply(revision=parse(signed.statement).revision))  # type: ignore[union-attr]

    def ask(self, **ask: Any) -> Any:
        reply = self.guest.handlers["counts"]("admin", CountingRequest(**ask))
        codec = Codec(schema("counting").backward)
        got: CountingReply = codec.decode(b"".join(codec.encode(reply)))
        return getattr(got, str(got.WhichOneof("answer")))

    def passes(self) -> bool:
        before = len(self.guest.outs["tunnel_out"].sent)
        packet = udp_out()
        self.guest.handlers["red_in"](Packets(packet, len(packet), 0), 10.0)
        return len(self.guest.outs["tunnel_out"].sent) > before


def test_nothing_passes_until_rules_come_that_are_signed() -> None:
    managed = Managed()
    assert not managed.passes()
    signed = managed.chain.commit("alice", b"{}", OPEN)
    forged = managed.chain.commit("mallory", b"{}", OPEN, revision=1)
    assert managed.put(forged, OPEN).WhichOneof("answer") == "refused"
    assert managed.put(signed, SHUT).WhichOneof("answer") == "refused"
    assert not managed.passes()
    assert managed.put(signed, OPEN).done.number == 1
    assert managed.passes()


def test_what_the_new_rules_do_not_allow_ends_and_comes_back_when_they_are_reverted() -> None:
    managed = Managed()
    managed.put(managed.chain.commit("alice", b"{}", OPEN), OPEN)
    assert managed.passes()
    done = managed.put(managed.chain.commit("alice", b"{}", SHUT, confirm=60), SHUT).done
    assert (done.number, done.kept, done.ended) == (2, 0, 1)
    assert not managed.passes()
    assert managed.say(revert=Revert(revision=2)).done.number == 1
    assert managed.passes()


def test_rules_that_are_none_are_refused_with_their_place() -> None:
    managed = Managed()
    wrong = json.loads(OPEN)
    wrong["rules"][0]["action"] = "shrug"
    bad = json.dumps(wrong).encode()
    refused = managed.put(managed.chain.commit("alice", b"{}", bad), bad).refused
    assert refused.path.startswith("rules[0]") and refused.why
    assert not managed.passes()


def test_rules_that_take_too_much_memory_are_refused_before_they_count(monkeypatch: pytest.MonkeyPatch) -> None:
    managed = Managed()
    managed.put(managed.chain.commit("alice", b"{}", OPEN), OPEN)

    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("components.filter.engine.Compiled.__init__", full)
    refused = managed.put(managed.chain.commit("alice", b"{}", SHUT), SHUT).refused
    assert "memory" in refused.why and managed.passes()


def test_what_rules_matched_is_told_and_of_which_rules() -> None:
    managed = Managed()
    assert managed.ask(hits=AskRuleHits()).digest == bytes(32)
    signed = managed.chain.commit("alice", b"{}", OPEN)
    managed.put(signed, OPEN)
    assert managed.passes() and managed.passes()
    page = managed.ask(hits=AskRuleHits())
    assert page.digest == parse(signed.statement).ruleset and page.rules == 1  # type: ignore[union-attr]
    assert page.hits[0].packets == 2 and page.hits[0].last > 0
    assert managed.ask(hits=AskRuleHits(start=1)).hits == []
    sums = {(one.what, one.side): one.count for one in managed.ask(sums=AskSums(most=128)).sums}
    assert sums["passed", 0] == 2 and sums["flows", 0] == 1
    assert len(managed.ask(sums=AskSums(most=2)).sums) == 2


def test_a_packet_is_explained_as_the_filter_has_it_and_few_are() -> None:
    managed = Managed()
    signed = managed.chain.commit("alice", b"{}", OPEN)
    managed.put(signed, OPEN)
    packet = udp_out()

    def ask(**other: Any) -> Any:
        given = {"packet": packet, "side": int(Side.RED), "peer": 0}
        return managed.ask(explanation=AskExplanation(**{**given, **other}))

    said = ask()
    assert (said.verdict, said.number, said.leaves) == (Action.ALLOW, 1, Side.TUNNEL) and not said.translated
    assert (said.tracking, said.state) == ("new", "no flow")
    assert said.digest == parse(signed.statement).ruleset  # type: ignore[union-attr]
    managed.guest.handlers["red_in"](Packets(packet, len(packet), 0), time.monotonic())
    assert "opened from the red side" in ask().state
    assert managed.ask(hits=AskRuleHits()).hits[0].packets == 1, "no question counts as a packet"
    said = ask(side=int(Side.TUNNEL), peer=5)
    assert (said.verdict, said.number, said.leaves) == (Action.DROP, 0, 0)
    for wrong, path in (({"side": 4}, "side"), ({"side": 2}, "peer"), ({"peer": 1}, "peer")):
        assert ask(**wrong).path == path
    answers = [ask() for _ in range(40)]
    told = [one for one in answers if hasattr(one, "verdict")]
    assert len(told) < EXPLAINED[1] and {one.wait_ms for one in answers[len(told) :]} == {500}


def test_trust_goes_with_commits_and_without_rules() -> None:
    for joined, settings in ((set(), SETTINGS), ({"commits"}, {})):
        guest = FakeGuest("filter", "filter", dict(settings))
        guest.joined |= joined
        with pytest.raises(SettingsError, match="goes with the port"):
            main.build(guest)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="not set in a managed box"):
        parse_settings("filter", SETTINGS | {"ruleset": encode(ruleset("allow from red"))})
    with pytest.raises(SettingsError, match="32 bytes in hexadecimal"):
        parse_settings("filter", {"trust": {"box": "x", "console": TRUST.console.hex()}})
