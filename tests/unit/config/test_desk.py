"""What admin may ask and hand over, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from septum.v1.configuring import (
    COMMITS,
    PEERS,
    ROSTER,
    RULES,
    RULESET,
    AskHead,
    AskOutcome,
    AskSection,
    AskStatement,
    BeginSections,
    ConfiguringRequest,
    SectionChunk,
    Submit,
)

from appliance.signed.refusal import Refusal, Why
from appliance.signed.statements import Role, Signed
from components.config.desk import Desk
from components.config.pages import PAGE
from tests.unit.config.world import World, through


class Counter:
    """A desk over a world, and admin in front of it."""

    def __init__(self) -> None:
        self.world = World()
        self.world.wake()
        self.desk = Desk(self.world.keeper, lambda ref: self.world.run(self.world.keeper.pages.read(ref)))
        self.desk.why_not = ""

    def ask(self, **what: Any) -> Any:
        request = through("configuring", "forward", ConfiguringRequest(**what))
        reply = through("configuring", "backward", self.desk.answer(request, self.world.now))
        return getattr(reply, reply.WhichOneof("answer"))

    def refused(self, **what: Any) -> Why:
        answer = self.ask(**what)
        assert hasattr(answer, "kind"), answer
        return Why(answer.kind)

    def bring(self, peers: bytes, ruleset: bytes, rules: bytes = b"") -> None:
        self.ask(begin=BeginSections(peers=len(peers), ruleset=len(ruleset), rules=len(rules)))
        for section, data in ((RULESET, ruleset), (PEERS, peers), (RULES, rules)):
            for at in range(0, len(data), PAGE):
                self.ask(chunk=SectionChunk(section=section, offset=at, data=data[at : at + PAGE]))

    def submit(self, signed: Signed) -> Any:
        said = Submit(statement=signed.statement, signature=signed.signature)
        answer = self.ask(submit=said)
        assert hasattr(answer, "of"), answer
        return self.work()

    def work(self) -> Any:
        submission = self.desk.submission
        assert submission is not None
        try:
            self.desk.finish(self.world.run(self.world.keeper.take(*submission)))
        except Refusal as refusal:
            self.desk.finish(refusal)
        return self.ask(outcome=AskOutcome())


@pytest.fixture
def counter() -> Counter:
    return Counter()


def test_a_commit_is_handed_over_worked_on_and_read_back(counter: Counter) -> None:
    peers = b"p" * (PAGE + 10)
    counter.bring(peers, b"r")
    assert counter.submit(counter.world.commit(peers, b"r")).number == 1
    assert counter.world.live == (peers, b"r")
    head = counter.ask(head=AskHead())
    assert (head.revision, head.active, head.oldest, head.confirm_left_ms, head.serial) == (1, 1, 1, 0, 0)
    kept = counter.ask(statement=AskStatement(chain=COMMITS, number=1))
    assert kept.statement == counter.world.chain.commits[0].statement and kept.fate == 1 and kept.has_content
    first = counter.ask(section=AskSection(revision=1, section=PEERS))
    second = counter.ask(section=AskSection(revision=1, section=PEERS, offset=PAGE))
    inside = counter.ask(section=AskSection(revision=1, section=PEERS, offset=PAGE - 1))
    assert first.total == len(peers) and first.data + second.data == peers and inside.data == b"p"
    assert counter.ask(section=AskSection(revision=1, section=PEERS, offset=len(peers))).data == b""
    empty = counter.ask(section=AskSection(revision=1, section=RULES))
    assert (empty.total, empty.data) == (0, b"")


def test_what_is_worked_on_is_not_disturbed(counter: Counter) -> None:
    signed = counter.world.commit(b"p", b"r")
    counter.bring(b"p", b"r")
    said = Submit(statement=signed.statement, signature=signed.signature)
    counter.ask(submit=said)
    assert counter.refused(submit=said) is Why.PENDING
    assert counter.refused(begin=BeginSections(peers=1)) is Why.PENDING
    assert counter.refused(chunk=SectionChunk(section=PEERS, offset=0, data=b"x")) is Why.PENDING
    assert hasattr(counter.ask(head=AskHead()), "roster_digest")
    counter.desk.steps = (3, 2)
    working = counter.ask(outcome=AskOutcome())
    assert (working.done, working.of) == (3, 3)
    counter.desk.forget()  # admin died; what it handed over goes on
    assert counter.work().number == 1
    assert counter.ask(outcome=AskOutcome()).number == 1


def test_chunks_in_order_and_within_what_was_said(counter: Counter) -> None:
    assert counter.refused(chunk=SectionChunk(section=PEERS, offset=0, data=b"x")) is Why.MALFORMED
    for chunk in (
        SectionChunk(section=PEERS, offset=1, data=b"x"),
        SectionChunk(section=PEERS, offset=0, data=b"12345"),
        SectionChunk(section=RULES, offset=0, data=b"x"),
    ):
        counter.ask(begin=BeginSections(peers=4))
        assert counter.refused(chunk=chunk) is Why.MALFORMED
        assert counter.refused(chunk=SectionChunk(section=PEERS, offset=0, data=b"x")) is Why.MALFORMED
    signed = counter.world.commit(b"1234", b"r")
    counter.ask(begin=BeginSections(peers=4, ruleset=1))
    counter.ask(chunk=SectionChunk(section=PEERS, offset=0, data=b"1234"))
    answer = counter.submit(signed)  # without the rules that were announced
    assert (answer.kind, answer.path) == (Why.INVALID, "ruleset")


def test_who_comes_second_is_told_so_without_any_work(counter: Counter) -> None:
    world = counter.world
    rivals = [world.commit(name, b"r") for name in (b"a", b"b")]
    counter.bring(b"a", b"r")
    assert counter.submit(rivals[0]).number == 1
    counter.bring(b"b", b"r")
    said = Submit(statement=rivals[1].statement, signature=rivals[1].signature)
    assert counter.refused(submit=said) is Why.STALE and counter.desk.submission is None
    assert counter.refused(submit=Submit(statement=b"{}", signature=bytes(64))) is Why.MALFORMED
    counter.bring(b"b", b"r")
    assert counter.submit(world.commit(b"b", b"r")).number == 2


def test_what_there_is_not(counter: Counter) -> None:
    assert counter.refused(outcome=AskOutcome()) is Why.UNKNOWN
    assert counter.refused(statement=AskStatement(chain=COMMITS, number=1)) is Why.UNKNOWN
    assert counter.refused(statement=AskStatement(chain=ROSTER, number=1)) is Why.UNKNOWN
    assert counter.refused(section=AskSection(revision=1, section=PEERS)) is Why.UNKNOWN
    counter.desk.why_not = "what is kept is damaged"
    assert counter.refused(head=AskHead()) is Why.AWAY


def test_the_roster_and_the_time_that_is_left(counter: Counter) -> None:
    world = counter.world
    invite = world.chain.take(world.chain.invite("alice", Role.OPERATOR))
    assert counter.submit(invite).number == 1
    assert counter.ask(statement=AskStatement(chain=ROSTER, number=1)).signature == invite.signature
    counter.bring(b"p", b"r")
    counter.submit(world.commit(b"p", b"r", confirm=60))
    world.now += 20
    assert counter.ask(head=AskHead()).confirm_left_ms == 40_000
    assert counter.ask(statement=AskStatement(chain=COMMITS, number=1)).fate == 2
    world.now += 100
    assert counter.ask(head=AskHead()).confirm_left_ms == 1, "not rolled back yet"
    world.catch_up()
    assert counter.ask(head=AskHead()).active == 0
    assert counter.ask(statement=AskStatement(chain=COMMITS, number=1)).fate == 4
