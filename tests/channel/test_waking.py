"""Waking a peer, by exhaustion: every interleaving of one that writes or reads, and one that sleeps on what that did.

Over grants, ``notify`` takes the peer's wishes down with a plain store before it wakes (decision 2). The model: each
load and each store is a step, in program order, as the fences of both sides and the entry into the kernel have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

WISHES = (1, 2, 3)  # data, space, both


@dataclass(frozen=True)
class World:
    left: int = 3  # how often the notifier may yet do something
    done: tuple[int, int] = (0, 0)  # how often it wrote, and read
    notifier: str = "idle"
    bit: int = 0  # what it wakes for
    seen: tuple[int, int] = (0, 0)  # what the sleeper knows of ``done``
    sleeper: str = "awake"
    wants: int = 0
    wish: int = 0  # the shared byte
    event: bool = False
    wished: int = 0  # how often the sleeper asked
    events: int = 0  # how often it was notified


def news(world: World) -> int:
    """Bits of what the sleeper does not know yet."""
    return sum(1 << kind for kind in (0, 1) if world.done[kind] > world.seen[kind])


def notifies(world: World) -> Iterator[World]:
    match world.notifier:
        case "idle" if world.left:
            for kind in (0, 1):
                done = (world.done[0] + (kind == 0), world.done[1] + (kind == 1))
                yield replace(world, left=world.left - 1, done=done, bit=1 << kind, notifier="did")
        case "did":
            yield replace(world, notifier="wakes" if world.wish & world.bit else "idle")
        case "wakes":
            yield replace(world, wish=0, notifier="took down")
        case "took down":
            yield replace(world, event=True, events=world.events + 1, notifier="idle")


def sleeps(world: World, renews: bool) -> Iterator[World]:
    match world.sleeper:
        case "awake":
            for wants in WISHES:
                yield replace(world, wish=wants, wants=wants, wished=world.wished + 1, sleeper="asked")
        case "asked" | "looks":
            if news(world) & world.wants:
                yield replace(world, seen=world.done, sleeper="awake" if renews else "looks")
            else:
                yield replace(world, sleeper="asleep")
        case "asleep" if world.event:
            yield replace(world, event=False, sleeper="heard" if renews else "looks")
        case "heard":
            yield replace(world, wish=0, seen=world.done, sleeper="awake")


def reachable(renews: bool) -> set[World]:
    seen = {World()}
    todo = [World()]
    while todo:
        world = todo.pop()
        if world.wished > 6:
            continue  # one that asks for nothing again and again adds nothing
        for after in (*notifies(world), *sleeps(world, renews)):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


def is_lost(world: World) -> bool:
    """It sleeps on something that is there, and nobody is about to wake it."""
    is_quiet = world.notifier == "idle" and not world.event
    return is_quiet and world.sleeper == "asleep" and bool(news(world) & world.wants)


def test_no_wake_is_lost_and_each_wish_is_answered_once() -> None:
    worlds = reachable(renews=True)
    assert len(worlds) > 1000
    assert any(world.events == 3 for world in worlds)
    assert not [world for world in worlds if is_lost(world)]
    assert not [world for world in worlds if world.events > world.wished]


def test_who_sleeps_on_with_an_old_wish_is_lost() -> None:
    """Which is why nobody's wish is taken down over memfd: there the short way sleeps again without asking again."""
    assert any(is_lost(world) for world in reachable(renews=False))


@pytest.mark.parametrize("bit", [1, 2])
def test_a_wish_for_something_else_wakes_nobody(bit: int) -> None:
    world = World(notifier="did", bit=bit, wish=3 - bit)
    assert [after.notifier for after in notifies(world)] == ["idle"]
