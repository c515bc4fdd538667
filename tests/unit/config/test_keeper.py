"""What becomes of signed statements, without anything going wrong on the way."""

from __future__ import annotations

import pytest

from appliance.signed import canonical
from appliance.signed.refusal import Why
from appliance.signed.statements import Role, Signed
from components.config.book import MOST_SECTIONS
from components.config.pages import PAGE, PAGES
from components.config.records import Fate
from tests.unit.config.world import KEY, World
from tests.unit.signed.box import NOW


@pytest.fixture
def world() -> World:
    world = World()
    world.wake()
    return world


def test_a_commit_is_in_force_everywhere_and_still_is_after_a_power_cut(world: World) -> None:
    accepted = world.put(b"peers 1", b"rules 1", comment="the first")
    assert accepted == (1, 7, 1) and world.live == (b"peers 1", b"rules 1")
    world.put(b"peers 2", b"rules 1")
    world.cut_power()
    assert world.live == (b"peers 2", b"rules 1")
    assert [one.commit.comment for one in world.keeper.book.commits] == ["the first", ""]
    assert world.domains["peers"].history == [b"nothing", b"peers 2"]


def test_sections_of_many_pages(world: World) -> None:
    peers, ruleset = b"p" * (PAGE * 3 + 17), b"r" * (2 * PAGE)
    world.put(peers, ruleset)
    assert world.live == (peers, ruleset)
    world.cut_power()
    assert world.live == (peers, ruleset)


def test_a_domain_that_was_reborn_is_handed_what_is_in_force(world: World) -> None:
    world.put(b"p1", b"r1")
    world.put(b"p2", b"r2")
    world.domains["ruleset"] = type(world.domains["ruleset"])("ruleset")
    world.keeper.lost("ruleset")
    assert world.live == (b"p2", b"nothing")
    world.catch_up()
    assert world.live == (b"p2", b"r2") and world.domains["ruleset"].history == [b"nothing", b"r2"]


def test_one_refusal_and_nothing_changed(world: World) -> None:
    world.put(b"p1", b"r1")
    for peers, ruleset in ((b"bad", b"r2"), (b"p2", b"bad")):
        refusal = world.refused(world.commit(peers, ruleset), peers, ruleset)
        assert (refusal.why, refusal.path) == (Why.INVALID, "here")
    assert world.domains["peers"].history == [b"nothing", b"p1"]
    world.put(b"p2", b"r2")
    assert world.live == (b"p2", b"r2")


@pytest.mark.parametrize("port", ["peers", "ruleset", "blobs"])
def test_somebody_who_does_not_answer_and_nothing_changed(world: World, port: str) -> None:
    world.put(b"p1", b"r1")
    world.deaf.add(port)
    assert world.refused(world.commit(b"p2", b"r2"), b"p2", b"r2").why is Why.AWAY
    world.deaf.clear()
    world.catch_up()
    world.put(b"p2", b"r2")
    assert world.live == (b"p2", b"r2")


def test_a_domain_that_missed_the_word_is_brought_in_step(world: World) -> None:
    world.put(b"p1", b"r1")

    def stop(number: int, ask: object) -> None:
        if "Apply" in repr(type(getattr(getattr(ask, "request", None), "apply", None))):
            world.deaf.add("peers")

    world.stop = stop
    assert world.put(b"p2", b"r2").number == 2
    assert world.live == (b"p1", b"r2") and world.keeper.in_step == {"ruleset"}
    world.stop = lambda number, ask: None
    assert world.refused(world.commit(b"p3", b"r3"), b"p3", b"r3").why is Why.AWAY
    world.take(world.chain.take(world.chain.invite("alice", Role.OPERATOR)))  # the roster moves on meanwhile
    world.deaf.clear()
    world.catch_up()
    assert world.live == (b"p2", b"r2")
    assert world.domains["peers"].applier.roster.serial == 1


def test_who_does_not_take_what_is_in_force_may_take_what_comes_next(world: World) -> None:
    """A domain that was rebuilt with less memory, say. It must not need somebody who has the disk."""
    world.put(b"p1", b"r1 of many megabytes")
    world.take(world.chain.take(world.chain.invite("alice", Role.OPERATOR)))
    world.domains["ruleset"] = domain = type(world.domains["ruleset"])("ruleset")
    domain.dislikes = b"megabytes"
    world.keeper.lost("ruleset")
    world.catch_up()
    assert world.live == (b"p1", b"nothing") and world.keeper.in_step == {"peers"}
    again = b"r2, of megabytes too"
    assert world.refused(world.commit(b"p1", again), again).why is Why.INVALID
    world.put(b"p1", b"r2")
    assert world.live == (b"p1", b"r2") and world.keeper.in_step == {"peers", "ruleset"}


def test_a_rehearsal_changes_nothing(world: World) -> None:
    signed = world.rehearsal(b"p1", b"r1")
    assert world.take(signed, b"p1", b"r1").number == 1
    assert world.live == (b"nothing", b"nothing") and world.keeper.book.revision == 0
    assert world.refused(world.rehearsal(b"bad", b"r1"), b"bad", b"r1").why is Why.INVALID
    as_a_commit = Signed(signed.statement.replace(b'"rehearse"', b'"commit"'), signed.signature)
    assert world.refused(as_a_commit, b"p1", b"r1").why is Why.BAD_SIGNATURE
    assert world.put(b"p1", b"r1").number == 1


def test_a_commit_that_changes_nothing_makes_no_revision(world: World) -> None:
    world.put(b"p1", b"r1")
    assert world.refused(world.commit(b"p1", b"r1"), b"p1", b"r1").why is Why.UNCHANGED
    world.put(b"p2", b"r1")
    world.put(b"p1", b"r1", restores=1)  # goes back, and need not bring anything along
    assert world.live == (b"p1", b"r1")


def test_two_administrators_cannot_overwrite_each_other(world: World) -> None:
    first, second = world.commit(b"p1", b"r1"), world.commit(b"p2", b"r2")
    world.take(first, b"p1", b"r1")
    assert world.refused(second, b"p2", b"r2").why is Why.STALE


def test_replayed_and_altered_and_of_nobody(world: World) -> None:
    first = world.commit(b"p1", b"r1")
    world.take(first, b"p1", b"r1")
    world.put(b"p2", b"r2")
    assert world.refused(first, b"p1", b"r1").why is Why.STALE
    good = world.commit(b"p3", b"r3")
    altered = Signed(good.statement.replace(b'"comment":""', b'"comment":"!"'), good.signature)
    assert world.refused(altered, b"p3", b"r3").why is Why.BAD_SIGNATURE
    assert world.refused(good, b"p4", b"r3").why is Why.INVALID, "sections that were not signed"
    assert world.refused(world.commit(b"p3", b"r3", by="mallory"), b"p3", b"r3").why is Why.BAD_SIGNATURE
    assert world.refused(Signed(b"{}", bytes(64))).why is Why.MALFORMED
    assert world.live == (b"p2", b"r2")


def test_what_was_kept_back_for_long_is_worth_nothing(world: World) -> None:
    signed = world.commit(b"p1", b"r1")
    world.now += 3601
    refusal = world.refused(signed, b"p1", b"r1")
    assert (refusal.why, refusal.path) == (Why.STALE, "at")
    assert world.refused(world.commit(b"p1", b"r1", revision=1, at=world.wall + 3_600_001), b"p1", b"r1").path == "at"
    world.put(b"p1", b"r1")


def test_the_roster(world: World) -> None:
    chain = world.chain
    world.take(chain.take(chain.invite("alice", Role.OPERATOR)))
    enroll = chain.enroll("alice")
    world.take(chain.take(enroll))
    assert world.refused(enroll).why is Why.STALE, "a token works once"
    world.put(b"p1", b"r1", by="alice")
    late = world.commit(b"p2", b"r2", by="alice")
    world.take(chain.take(chain.revoke("alice")))
    assert world.refused(late, b"p2", b"r2").why is Why.STALE
    assert world.refused(world.commit(b"p2", b"r2", by="alice"), b"p2", b"r2").why is Why.BAD_SIGNATURE
    assert {domain.applier.roster.serial for domain in world.domains.values()} == {3}
    world.cut_power()
    assert world.live == (b"p1", b"r1"), "what alice signed while she might is in force"
    assert {domain.applier.roster.serial for domain in world.domains.values()} == {3}


def test_the_box_is_known_by_a_key_that_it_has_and_by_no_other(world: World) -> None:
    chain = world.chain
    refused = world.refused(chain.rekey(b"\x66" * 32))
    assert refused.why is Why.UNKNOWN and refused.path == "key"
    world.put(b"p1", b"r1")  # and nobody is out of step
    world.take(chain.take(chain.rekey(KEY)))
    assert {domain.applier.roster.key for domain in world.domains.values()} == {KEY}
    world.cut_power()
    assert {domain.applier.roster.key for domain in world.domains.values()} == {KEY}


# until it is confirmed ------------------------------------------------------------------------------------------------


def test_what_nobody_confirms_is_rolled_back(world: World) -> None:
    world.put(b"p1", b"r1")
    world.put(b"p2", b"r2", confirm=300)
    assert world.refused(world.commit(b"p3", b"r3"), b"p3", b"r3").why is Why.PENDING
    world.now += 299
    world.catch_up()
    assert world.live == (b"p2", b"r2")
    world.now += 1
    world.catch_up()
    assert world.live == (b"p1", b"r1") and world.keeper.book.active == 1 and world.keeper.book.revision == 2
    last = world.keeper.book.commits[-1].record
    assert last.fate is Fate.ROLLED_BACK and last.fate_at == NOW + int(world.now * 1000)
    assert world.refused(world.confirm(2)).why is Why.UNKNOWN
    world.put(b"p3", b"r3")
    assert world.live == (b"p3", b"r3") and world.keeper.book.revision == 3
    world.cut_power()
    assert world.live == (b"p3", b"r3")


def test_even_the_first_is_rolled_back(world: World) -> None:
    world.put(b"p1", b"r1", confirm=10)
    world.now += 10
    world.catch_up()
    assert world.live == (b"nothing", b"nothing")
    world.cut_power()
    assert world.live == (b"nothing", b"nothing") and world.keeper.book.revision == 1


def test_what_is_confirmed_stays(world: World) -> None:
    world.put(b"p1", b"r1")
    world.put(b"p2", b"r2", confirm=300)
    another = world.commit(b"p3", b"r3", revision=2, confirm=300)  # signed for the same place
    other = world.confirm(2, commit=canonical.digest(another.statement))
    assert world.refused(other).why is Why.STALE
    assert world.keeper.book.is_pending
    assert world.take(world.confirm(2)).number == 2
    assert world.refused(world.confirm(2)).why is Why.UNCHANGED
    assert world.refused(world.confirm(1)).why is Why.UNKNOWN
    world.now += 1000
    world.catch_up()
    assert world.live == (b"p2", b"r2")
    world.cut_power()
    world.now += 1000
    world.catch_up()
    assert world.live == (b"p2", b"r2")


@pytest.mark.parametrize("who", ["config", "box", "ruleset", "peers"])
@pytest.mark.parametrize("late", [False, True])
def test_the_rollback_fires_whoever_died_meanwhile(world: World, who: str, late: bool) -> None:
    world.put(b"p1", b"r1")
    world.put(b"p2", b"r2", confirm=300)
    world.now += 301 if late else 100
    if who == "config":
        world.config_dies()
        world.wake()
    elif who == "box":
        world.cut_power()
    else:
        world.domains[who] = type(world.domains[who])(who)
        world.keeper.lost(who)
        world.catch_up()
    assert world.live == ((b"p1", b"r1") if late else (b"p2", b"r2"))
    world.now += 201
    world.catch_up()
    assert world.live == (b"p1", b"r1")


def test_a_clock_that_went_back_gives_no_more_time(world: World) -> None:
    world.put(b"p1", b"r1")
    world.put(b"p2", b"r2", confirm=300)
    world.now -= 900  # the wall's clock too
    world.cut_power()
    world.now += 300
    world.catch_up()
    assert world.live == (b"p1", b"r1")


def test_a_rollback_happens_although_it_cannot_be_written_down(world: World) -> None:
    world.put(b"p1", b"r1")
    world.put(b"p2", b"r2", confirm=300)
    world.disk.is_full = True
    world.now += 300
    tried = 0

    def stop(number: int, ask: object) -> None:
        nonlocal tried
        tried += 1
        if tried == 40:
            assert world.live == (b"p1", b"r1")
            world.disk.is_full = False

    world.stop = stop
    world.catch_up()
    assert world.live == (b"p1", b"r1") and world.keeper.book.active == 1
    world.cut_power()
    assert world.live == (b"p1", b"r1")
    world.put(b"p4", b"r4")
    assert world.live == (b"p4", b"r4")


# room -----------------------------------------------------------------------------------------------------------------


def test_old_content_makes_room_and_what_is_in_force_never_does(world: World) -> None:
    big = PAGE * 60
    for number in range(1, 40):
        peers = b"%04d" % number * (big // 4)
        world.put(peers, b"r%d" % number)
    book = world.keeper.book
    assert [one.commit.revision for one in book.commits] == list(range(1, 40)), "statements stay"
    kept = [one.commit.revision for one in book.commits if book.has_content(one.commit)]
    assert kept[-1] == 39 and 8 <= len(kept) <= PAGES // 60 and kept == list(range(kept[0], 40))
    world.cut_power()
    assert world.live == (b"0039" * (big // 4), b"r39")


def test_many_small_revisions(world: World) -> None:
    for number in range(MOST_SECTIONS + 50):
        world.put(b"p%d" % number, b"r")
    assert len(world.keeper.book.sections) <= MOST_SECTIONS
    world.cut_power()
    assert world.live == (b"p%d" % (MOST_SECTIONS + 49), b"r")
    assert world.keeper.book.revision == MOST_SECTIONS + 50


def test_a_full_disk_is_a_refusal(world: World) -> None:
    world.put(b"p1", b"r1")
    world.disk.is_full = True
    assert world.refused(world.commit(b"p2", b"r2"), b"p2", b"r2").why is Why.NO_ROOM
    world.disk.is_full = False
    world.put(b"p2", b"r2")
    assert world.live == (b"p2", b"r2")
