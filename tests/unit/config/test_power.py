"""The power goes, or config dies, at every step of everything: what is in force is old or new, whole, and the history
is what was signed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest

from appliance.signed.refusal import Refusal
from appliance.signed.statements import Role
from components.config.effects import Away
from components.config.pages import PAGE
from components.config.records import Fate
from tests.unit.config.world import Cut, World

P1, R1 = b"p1" * 100, b"r1"
P2, R2 = b"p2" * (PAGE // 2 + 100), b"r2"  # two pages
OLD, NEW = (P1, R1), (P2, R2)


def before() -> World:
    return copy.deepcopy(_before())


def pending() -> World:
    return copy.deepcopy(_pending())


@functools.cache
def _before() -> World:
    world = World()
    world.wake()
    world.put(b"p0", b"r0")
    world.put(P1, R1)
    return world


@functools.cache
def _pending() -> World:
    world = before()
    world.put(P2, R2, confirm=300)
    return world


def commit(world: World) -> None:
    world.put(P2, R2)


def commit_to_be_confirmed(world: World) -> None:
    world.put(P2, R2, confirm=300)


def confirm(world: World) -> None:
    world.take(world.confirm(3))


def roll_back(world: World) -> None:
    world.now += 301
    world.run(world.keeper.roll_back())


def invite(world: World) -> None:
    world.take(world.chain.take(world.chain.invite("alice", Role.OPERATOR)))


# what is done, in which world, and what may be in force afterwards: without it, and with it
DEEDS: dict[str, tuple[Callable[[World], None], Callable[[], World], tuple[bytes, bytes], tuple[bytes, bytes]]] = {
    "commit": (commit, before, OLD, NEW),
    "commit to be confirmed": (commit_to_be_confirmed, before, OLD, NEW),
    "confirm": (confirm, pending, NEW, NEW),
    "roll back": (roll_back, pending, OLD, OLD),
    "invite": (invite, before, OLD, OLD),
}


def steps_of(deed: str) -> int:
    """How many effects it has."""
    do, make, *_ = DEEDS[deed]
    world = make()
    begun = world.effects
    do(world)
    return world.effects - begun


def cut(world: World, deed: str, at: int, after: bool) -> None:
    """Does it until effect ``at``, and no further."""
    begun = world.effects

    def stop(number: int, ask: Any) -> None:
        if number == (-(begun + at) if after else begun + at):
            raise Cut

    world.stop = stop
    with pytest.raises(Cut):
        DEEDS[deed][0](world)
    world.stop = lambda number, ask: None


def history(world: World) -> list[tuple[bytes, Fate]]:
    return [(one.record.signed.statement, one.record.fate) for one in world.keeper.book.commits]


def check(world: World, deed: str, old_history: list[tuple[bytes, Fate]], done: list[tuple[bytes, Fate]]) -> bool:
    """Whether it was done, having looked that it was done wholly or not at all, and that life goes on."""
    _, _, without, with_it = DEEDS[deed]
    is_done = history(world) == done if deed != "invite" else world.keeper.roster.serial == 1
    assert history(world) in (old_history, done)
    assert world.live == (with_it if is_done else without)
    serials = {domain.applier.roster.serial for domain in world.domains.values()}
    assert serials == {len(world.keeper.book.statements)}
    assert world.keeper.in_step == {"peers", "ruleset"}
    if world.keeper.book.is_pending:
        world.now += 300
        world.catch_up()
        assert world.live == OLD
    world.put(b"p9", b"r9")
    world.cut_power()
    assert world.live == (b"p9", b"r9")
    return is_done


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("who", ["power", "config", "config and the clock stands"])
def test_whoever_dies_at_any_step(deed: str, who: str, capsys: pytest.CaptureFixture[str]) -> None:
    count = steps_of(deed)
    finished = DEEDS[deed][1]()
    DEEDS[deed][0](finished)
    done, outcomes = history(finished), []
    for at in range(1, count + 1):
        for after in (False, True):
            for chance in range(3 if who == "power" else 1):
                world = DEEDS[deed][1]()
                world.chance.seed(chance)
                old = history(world)
                cut(world, deed, at, after)
                if who == "power":
                    world.cut_power()
                else:
                    world.config_dies()
                    if deed == "roll back" and who != "config":
                        world.now -= 301  # whoever wakes up does not know that it is time
                    world.wake()
                    if deed == "roll back" and who != "config":
                        world.now += 301
                        world.catch_up()
                outcomes.append(check(world, deed, old, done))
    assert {False, True} == set(outcomes) or deed == "roll back"
    with capsys.disabled():
        print(
            f"\n{who} at {count} steps of {deed!r}: {len(outcomes)} cuts, {sum(outcomes)} behind the decision", end=""
        )


@pytest.mark.parametrize("deed", DEEDS)
def test_the_store_dies_at_any_step_and_answers_again(deed: str) -> None:
    """Nobody knows then whether its last put was done."""
    finished = DEEDS[deed][1]()
    DEEDS[deed][0](finished)
    for at in range(1, steps_of(deed) + 1):
        for after in (False, True):
            world = DEEDS[deed][1]()
            old = history(world)
            begun = world.effects

            when = -(begun + at) if after else begun + at

            def stop(number: int, ask: Any, world: World = world, when: int = when) -> None:
                if number == when and ask.port == "blobs":
                    world.store_dies()
                    raise Away("blobs")

            world.stop = stop
            with contextlib.suppress(Refusal):
                DEEDS[deed][0](world)
            world.stop = lambda number, ask: None
            world.catch_up()
            check(world, deed, old, history(finished))


def test_many_cuts_in_a_row() -> None:
    """Half of everything is cut short, again and again, on one disk."""
    world = before()
    cuts = 0
    for round_ in range(150):
        book = world.keeper.book
        peers = b"%d" % round_ * world.chance.choice([1, 3, PAGE])
        begun, at = world.effects, world.chance.randrange(1, 24)

        def stop(number: int, ask: Any, at: int = begun + at) -> None:
            if abs(number) == at:
                raise Cut

        world.stop = stop
        signed = world.commit(peers, b"rules %d" % round_, confirm=world.chance.choice([0, 60]))
        new = (peers, b"rules %d" % round_)
        old = world.live
        try:
            world.take(signed, *new)
            world.stop = lambda number, ask: None
        except Cut:
            cuts += 1
            if world.chance.random() < 0.5:
                world.cut_power()
            else:
                world.stop = lambda number, ask: None
                world.config_dies()
                world.wake()
        revision = world.keeper.book.revision
        assert revision in (book.revision, book.revision + 1)
        assert world.live == (old if revision == book.revision else new)
        if world.keeper.book.is_pending:
            world.now += 60
            world.catch_up()
            assert world.live == old
        statements = [one.record.signed for one in world.keeper.book.commits]
        assert statements[: book.revision] == [one.record.signed for one in book.commits]
    assert cuts > 50
