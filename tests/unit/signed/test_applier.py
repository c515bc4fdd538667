"""A domain's end of ``applying``: nothing is in force that was not signed, prepared and said to be."""

from __future__ import annotations

from typing import Any

import pytest
from septum.v1.applying import (
    Abandon,
    Apply,
    ApplyingReply,
    ApplyingRequest,
    BeginSection,
    Chunk,
    Enlist,
    Prepare,
    Revert,
    Settle,
)

from appliance.guest.settings import SettingsError
from appliance.signed import canonical
from appliance.signed.applier import Applied, Applier
from appliance.signed.refusal import Why
from appliance.signed.statements import Role, Signed, parse
from tests.unit.signed.box import TRUST, Chain


class Domain:
    """One with an applier in it; ``live`` is what it goes by."""

    def __init__(self) -> None:
        self.live = b"nothing"
        self.applied: list[bytes] = []
        self.applier = Applier(TRUST, "peers", b"nothing", self._prepare, self._apply)

    def _prepare(self, section: bytes) -> bytes:
        if b"bad" in section:
            raise SettingsError("peers[0].name", "is bad")
        return section

    def _apply(self, content: bytes) -> Applied:
        self.live = content
        self.applied.append(content)
        return Applied(len(content), 1)

    def say(self, **ask: Any) -> ApplyingReply:
        return self.applier.answer(ApplyingRequest(**ask))

    def done(self, **ask: Any) -> Any:
        reply = self.say(**ask)
        assert reply.WhichOneof("answer") == "done", reply
        return reply.done

    def refused(self, **ask: Any) -> Why:
        before = self.live
        reply = self.say(**ask)
        assert reply.WhichOneof("answer") == "refused", reply
        assert self.live == before
        return Why(reply.refused.kind)

    def enlist(self, chain: Chain) -> None:
        for signed in chain.statements:
            self.done(enlist=Enlist(statement=signed.statement, signature=signed.signature))

    def bring(self, section: bytes) -> None:
        self.done(begin=BeginSection(total=len(section)))
        for at in range(0, len(section), 3):
            self.done(chunk=Chunk(offset=at, data=section[at : at + 3]))

    def put(self, signed: Signed, section: bytes) -> None:
        self.bring(section)
        self.done(prepare=prepare(signed))
        self.done(apply=Apply(revision=revision(signed)))


def prepare(signed: Signed) -> Prepare:
    return Prepare(statement=signed.statement, signature=signed.signature)


def revision(signed: Signed) -> int:
    number: int = parse(signed.statement).revision  # type: ignore[union-attr]
    return number


@pytest.fixture
def chain() -> Chain:
    chain = Chain()
    chain.add("alice", Role.OPERATOR)
    chain.add("eve", Role.VIEWER)
    return chain


@pytest.fixture
def domain(chain: Chain) -> Domain:
    domain = Domain()
    domain.enlist(chain)
    return domain


def test_a_section_is_in_force_once_it_is_applied_and_not_before(chain: Chain, domain: Domain) -> None:
    signed = chain.commit("alice", b"the peers")
    domain.bring(b"the peers")
    domain.done(prepare=prepare(signed))
    assert domain.live == b"nothing" and domain.applier.revision == 0
    done = domain.done(apply=Apply(revision=1))
    assert domain.live == b"the peers" and (done.number, done.kept, done.ended) == (1, 9, 1)
    assert domain.applier.commit == parse(signed.statement)


def test_what_was_not_prepared_is_not_applied(chain: Chain, domain: Domain) -> None:
    assert domain.refused(apply=Apply(revision=1)) is Why.UNKNOWN
    signed = chain.commit("alice", b"one")
    domain.bring(b"one")
    assert domain.refused(apply=Apply(revision=1)) is Why.UNKNOWN
    domain.bring(b"one")
    domain.done(prepare=prepare(signed))
    assert domain.refused(apply=Apply(revision=2)) is Why.UNKNOWN
    assert domain.refused(apply=Apply(revision=1)) is Why.UNKNOWN, "a wrong word has given it up"
    domain.bring(b"one")
    domain.done(prepare=prepare(signed))
    domain.done(abandon=Abandon())
    assert domain.refused(apply=Apply(revision=1)) is Why.UNKNOWN
    domain.put(signed, b"one")


def test_a_rehearsal_is_answered_and_cannot_be_put_in_force(chain: Chain, domain: Domain) -> None:
    rehearsal = chain.rehearse("alice", b"one")
    domain.bring(b"one")
    domain.done(prepare=prepare(rehearsal))
    assert domain.refused(apply=Apply(revision=1)) is Why.UNKNOWN
    domain.bring(b"bad")
    assert domain.refused(prepare=prepare(chain.rehearse("alice", b"bad"))) is Why.INVALID
    domain.bring(b"one")
    assert domain.refused(prepare=prepare(chain.rehearse("eve", b"one"))) is Why.NOT_PERMITTED
    as_commit = Signed(rehearsal.statement.replace(b'"kind":"rehearse"', b'"kind":"commit"'), rehearsal.signature)
    domain.bring(b"one")
    assert domain.refused(prepare=prepare(as_commit)) is Why.BAD_SIGNATURE


def test_a_section_other_than_the_signed_one_is_refused(chain: Chain, domain: Domain) -> None:
    signed = chain.commit("alice", b"one")
    for section in (b"two", b"on", b"one "):
        domain.bring(section)
        assert domain.refused(prepare=prepare(signed)) is Why.INVALID
    assert domain.refused(prepare=prepare(signed)) is Why.INVALID
    domain.done(begin=BeginSection(total=4))
    domain.done(chunk=Chunk(offset=0, data=b"one"))
    assert domain.refused(prepare=prepare(signed)) is Why.INVALID


@pytest.mark.parametrize("chunk", [Chunk(offset=1, data=b"x"), Chunk(offset=0, data=b"12345")])
def test_chunks_come_in_order_and_within_what_was_said(domain: Domain, chunk: Chunk) -> None:
    domain.done(begin=BeginSection(total=4))
    assert domain.refused(chunk=chunk) is Why.MALFORMED
    assert domain.refused(chunk=Chunk(offset=0, data=b"1")) is Why.MALFORMED, "begin again"


def test_what_the_domain_cannot_do_is_refused_with_its_place(chain: Chain, domain: Domain) -> None:
    domain.bring(b"bad")
    reply = domain.say(prepare=prepare(chain.commit("alice", b"bad")))
    assert (reply.refused.kind, reply.refused.path, reply.refused.why) == (Why.INVALID, "peers[0].name", "is bad")


def test_only_who_may_sign_is_believed(chain: Chain, domain: Domain) -> None:
    good = chain.commit("alice", b"one")
    domain.bring(b"one")
    assert domain.refused(prepare=prepare(chain.commit("eve", b"one", revision=1))) is Why.NOT_PERMITTED
    assert domain.refused(prepare=prepare(chain.commit("mallory", b"one", revision=1))) is Why.BAD_SIGNATURE
    other = canonical.digest(b"another box")
    assert domain.refused(prepare=prepare(chain.commit("alice", b"one", revision=1, box=other))) is Why.BAD_SIGNATURE
    altered = Signed(good.statement.replace(b'"confirm":0', b'"confirm":9'), good.signature)
    assert domain.refused(prepare=prepare(altered)) is Why.BAD_SIGNATURE
    not_a_commit = chain.statements[0]
    assert domain.refused(prepare=prepare(not_a_commit)) is Why.MALFORMED


def test_an_older_commit_is_not_brought_back(chain: Chain, domain: Domain) -> None:
    first, second = chain.commit("alice", b"one"), chain.commit("alice", b"two")
    domain.put(first, b"one")
    domain.put(second, b"two")
    domain.bring(b"one")
    assert domain.refused(prepare=prepare(first)) is Why.STALE
    assert domain.refused(revert=Revert(revision=2)) is Why.UNKNOWN, "it asked for no confirmation"
    assert domain.live == b"two"


def test_the_next_commit_follows_the_last(chain: Chain, domain: Domain) -> None:
    domain.put(chain.commit("alice", b"one"), b"one")
    fork = chain.commit("alice", b"two", follows=canonical.digest(b"?"))
    domain.bring(b"two")
    assert domain.refused(prepare=prepare(fork)) is Why.STALE


def test_a_living_domain_takes_commits_of_the_last_roster_alone(chain: Chain, domain: Domain) -> None:
    domain.put(chain.commit("alice", b"one"), b"one")
    late = chain.commit("alice", b"two")
    signed = chain.take(chain.revoke("alice"))
    domain.done(enlist=Enlist(statement=signed.statement, signature=signed.signature))
    domain.bring(b"two")
    assert domain.refused(prepare=prepare(late)) is Why.STALE
    born = Domain()
    born.enlist(chain)
    born.put(late, b"two")  # it cannot know when that was signed


def test_the_same_again_is_no_change(chain: Chain, domain: Domain) -> None:
    signed = chain.commit("alice", b"one")
    domain.put(signed, b"one")
    domain.done(prepare=prepare(signed))
    domain.done(apply=Apply(revision=1))
    domain.done(apply=Apply(revision=1))
    domain.enlist(Chain())  # nothing
    last = chain.statements[-1]
    assert domain.done(enlist=Enlist(statement=last.statement, signature=last.signature)).number == 4
    assert domain.applied == [b"one"]


def test_a_section_that_stays_need_not_come_and_touches_nothing(chain: Chain, domain: Domain) -> None:
    domain.put(chain.commit("alice", b"one"), b"one")
    signed = chain.commit("alice", b"one", ruleset=b"other rules")
    domain.done(prepare=prepare(signed))
    domain.done(apply=Apply(revision=2))
    assert domain.applied == [b"one"] and domain.applier.revision == 2


def test_a_commit_that_is_not_confirmed_is_reverted(chain: Chain, domain: Domain) -> None:
    domain.put(chain.commit("alice", b"one"), b"one")
    domain.put(chain.commit("alice", b"two", confirm=300), b"two")
    assert domain.done(revert=Revert(revision=2)).number == 1
    assert domain.live == b"one"
    assert domain.refused(revert=Revert(revision=2)) is Why.UNKNOWN
    domain.put(chain.commit("alice", b"three"), b"three")
    assert domain.live == b"three"


def test_even_the_first_commit_is_reverted(chain: Chain, domain: Domain) -> None:
    domain.put(chain.commit("alice", b"one", confirm=300), b"one")
    domain.done(revert=Revert(revision=1))
    assert domain.live == b"nothing" and domain.applier.revision == 0


def test_a_confirmed_one_stays(chain: Chain, domain: Domain) -> None:
    domain.put(chain.commit("alice", b"one"), b"one")
    domain.put(chain.commit("alice", b"two", confirm=300), b"two")
    domain.done(settle=Settle(revision=1))
    domain.done(settle=Settle(revision=2))
    assert domain.refused(revert=Revert(revision=2)) is Why.UNKNOWN
    assert domain.live == b"two"


def test_who_was_born_after_a_rollback_follows_over_the_gap(chain: Chain) -> None:
    first = chain.commit("alice", b"one")
    chain.commit("alice", b"two", confirm=300)
    third = chain.commit("alice", b"three")
    born = Domain()
    born.enlist(chain)
    born.put(first, b"one")
    born.put(third, b"three")
    assert born.live == b"three"


def test_statements_of_the_roster_come_in_order(chain: Chain) -> None:
    born = Domain()
    second = chain.statements[1]
    assert born.refused(enlist=Enlist(statement=second.statement, signature=second.signature)) is Why.STALE


def test_a_carrier_that_went_away_leaves_nothing_behind(chain: Chain, domain: Domain) -> None:
    signed = chain.commit("alice", b"one")
    domain.bring(b"one")
    domain.applier.forget()
    assert domain.refused(prepare=prepare(signed)) is Why.INVALID
