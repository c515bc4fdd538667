"""The opening and closing of a channel, by exhaustion: every interleaving of two ends that die, close and come back.

The model is the table itself. An end reads the other's byte in one step and acts on it in the next, and anything may
happen in between but one thing: a replacement of the other is not started before an end has acted on what it read of
the dead one (live.py says why). An end's *token* names its indices, as they were since they were last zeroed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from appliance.vchan.layout import CLOSED, LIVE, WAITING
from appliance.vchan.live import SHOWN, TABLE, State


@dataclass(frozen=True)
class End:
    is_alive: bool = True
    state: State = State.ABSENT
    byte: int = CLOSED
    latch: int | None = None  # the other's byte, read and not yet acted on
    token: int = 0
    partner: int | None = None  # token of the end whose indices this one has gone by, since it zeroed its own


@dataclass(frozen=True)
class World:
    one: End = End()
    other: End = End()
    deaths: int = 0  # how many may yet happen
    closes: int = 0
    shuts: int = 0


def act(me: End, peer: End) -> End:
    assert me.latch is not None
    state, _ = TABLE[me.state, me.latch]
    if state is me.state:
        return replace(me, latch=None)
    token, partner = me.token, me.partner
    if state is State.WAITING:
        token, partner = token + (partner is not None), None
    elif state is State.OPEN:
        partner = peer.token
    return replace(me, state=state, byte=SHOWN[state], latch=None, token=token, partner=partner)


def moves(me: End, peer: End, world: World, is_patient: bool) -> Iterator[tuple[End, End, World]]:
    """What can happen next to ``me``."""
    if not me.is_alive:
        # The monitor: it stores 0 for the dead; a patient one starts the replacement when the survivor waits.
        if me.byte != CLOSED:
            yield replace(me, byte=CLOSED), peer, world
        elif peer.latch in (None, CLOSED) and not (is_patient and peer.is_alive and peer.byte != WAITING):
            yield End(token=me.token + 1), peer, world
        return
    yield (replace(me, latch=peer.byte) if me.latch is None else act(me, peer)), peer, world
    if world.deaths:
        yield dead(me), peer, replace(world, deaths=world.deaths - 1)
    if me.latch is None and me.state is State.OPEN:
        if world.closes:
            yield replace(me, state=State.ABSENT, byte=CLOSED), peer, replace(world, closes=world.closes - 1)
        if world.shuts and peer.is_alive:
            # The other broke the rules: this end shuts, and the monitor takes the other down.
            yield replace(me, state=State.SHUT, byte=CLOSED), dead(peer), replace(world, shuts=world.shuts - 1)


def dead(end: End) -> End:
    return replace(end, is_alive=False, latch=None, partner=None)


def successors(world: World, is_patient: bool) -> Iterator[World]:
    for one, other, after in moves(world.one, world.other, world, is_patient):
        yield replace(after, one=one, other=other)
    for other, one, after in moves(world.other, world.one, world, is_patient):
        yield replace(after, one=one, other=other)


def reachable(start: World, is_patient: bool) -> set[World]:
    seen = {start}
    todo = [start]
    while todo:
        for world in successors(todo.pop(), is_patient):
            if world not in seen:
                seen.add(world)
                todo.append(world)
    return seen


def goes_by_others(me: End, peer: End) -> bool:
    """An open end that looks at the indices of a live peer, and they are of another session than its own."""
    return me.is_alive and me.state is State.OPEN and peer.is_alive and peer.byte == LIVE and me.partner != peer.token


@pytest.mark.parametrize(
    ("start", "is_patient"),
    [
        (World(), False),
        (World(closes=3), False),
        (World(deaths=3), False),
        (World(deaths=2, closes=2), False),
        (World(deaths=1, closes=1, shuts=2), True),
    ],
    ids=["start", "closes", "deaths", "deaths and closes", "violations"],
)
def test_no_end_goes_by_indices_of_another_session_and_all_open_at_last(start: World, is_patient: bool) -> None:
    worlds = reachable(start, is_patient)
    assert len(worlds) >= 64
    assert not [w for w in worlds if goes_by_others(w.one, w.other) or goes_by_others(w.other, w.one)]
    # From wherever they are: if nothing more happens to them and each goes on taking its turns, they open.
    for world in worlds:
        one, other = settle(world)
        assert one.state is other.state is State.OPEN, world
        assert (one.partner, other.partner) == (other.token, one.token)


def settle(world: World) -> tuple[End, End]:
    one, other = world.one, world.other
    for _ in range(20):
        one, other, _world = next(moves(one, other, World(), True), (one, other, world))
        other, one, _world = next(moves(other, one, World(), True), (other, one, world))
    return one, other


def test_the_table_has_every_combination_and_no_other() -> None:
    assert set(TABLE) == {(state, byte) for state in State for byte in (CLOSED, LIVE, WAITING)}
    assert set(SHOWN) == set(State)


def test_opened_and_closed_are_told_of_what_opens_and_closes_and_of_nothing_else() -> None:
    for (state, _), (after, event) in TABLE.items():
        assert (event == "opened") == (after is State.OPEN is not state)
        assert (event == "closed") == (state is State.OPEN is not after)
