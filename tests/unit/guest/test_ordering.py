"""A domain that orders of who asks it what to do: one order at a time, and an end to every wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from septum.v1.disk import DISK_DONE, DISK_READ, DISK_SYNC, DiskDone, DiskOrder
from septum.v1.random import RandomReply, RandomRequest

from appliance.guest import loop
from appliance.guest.ordering import Orderer
from appliance.guest.ports import PeerClosed, PeerStalled
from appliance.guest.status import WORD_HEARTBEAT, WORD_VIOLATIONS
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import PeerViolation
from tests.unit.guest.test_loop import BRIEF, World

SYNC = DiskOrder(act=DISK_SYNC)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HEARTBEAT", BRIEF)


def made(*more: tuple[str, str, str]) -> tuple[World, Orderer, Endpoint]:
    world = World(("disk", "disk", "server"), *more)
    orderer = world.guest.drive("disk", Orderer)
    return world, orderer, world.others["disk"]


def asked(world: World, other: Endpoint) -> None:
    world.open()
    assert other.send(DiskDone(outcome=DISK_DONE, size=7))
    other.flush()
    world.turn(2)


def obeying(other: Endpoint, answer: Callable[[Any], Any]) -> threading.Thread:
    """Who asks, in a thread, until ``answer`` gives None."""

    def work() -> None:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            order = other.receive()
            if order is None:
                time.sleep(0.001)
                continue
            done = answer(order)
            if done is None:
                return
            other.send(done)
            other.flush()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_orders_are_carried_out_one_after_the_other() -> None:
    world, orderer, other = made()
    assert not orderer.is_ready
    with pytest.raises(PeerClosed):
        orderer.order(SYNC)
    asked(world, other)
    assert orderer.is_ready and orderer.sessions == 1
    thread = obeying(other, lambda order: DiskDone(outcome=DISK_DONE, size=order.offset) if order.offset else None)
    for offset in (1, 2, 3):
        assert orderer.order(DiskOrder(act=DISK_READ, offset=offset)).size == offset
    with pytest.raises(PeerStalled, match=r"not done within 0\.2 s"):
        orderer.order(SYNC, 0.2)
    thread.join()
    assert not orderer.is_ready


def test_its_heart_beats_while_it_waits() -> None:
    world, orderer, other = made()
    asked(world, other)
    before = int(world.page.words[WORD_HEARTBEAT])
    with pytest.raises(PeerStalled):
        orderer.order(SYNC, 1.2)
    assert int(world.page.words[WORD_HEARTBEAT]) - before >= 2


def test_who_goes_away_with_an_order_is_told_of_at_once() -> None:
    world, orderer, other = made()
    asked(world, other)
    thread = obeying(other, lambda order: other.close())
    began = time.monotonic()
    with pytest.raises(PeerClosed, match="went away with an order"):
        orderer.order(SYNC)
    assert time.monotonic() - began < 5
    thread.join()
    world.turn(2)
    for _ in range(6):
        other.progress()
        world.turn()
    assert not orderer.is_ready  # there, and has not asked yet
    assert other.send(DiskDone(outcome=DISK_DONE))
    other.flush()
    world.turn(2)
    assert orderer.is_ready and orderer.sessions == 2


def test_nothing_is_ordered_of_who_has_gone_and_was_not_yet_heard_to() -> None:
    world, orderer, other = made()
    asked(world, other)
    assert orderer.is_ready
    other.close()
    assert not orderer.is_ready  # a request waits, where an order would have failed
    world.turn(2)
    assert not orderer.is_ready


def test_who_asks_twice_breaks_the_protocol() -> None:
    world, orderer, other = made()
    asked(world, other)
    assert other.send(DiskDone(outcome=DISK_DONE))
    other.flush()
    world.turn(2)
    assert world.page.words[WORD_VIOLATIONS] & 1 and not orderer.is_ready


def test_a_bent_answer_goes_through() -> None:
    world, orderer, other = made()
    asked(world, other)

    def bend(order: Any) -> None:
        other._vchan.write((bytes(40),), 40)
        other._wire.notify()

    thread = obeying(other, bend)
    with pytest.raises(PeerViolation):
        orderer.order(SYNC)
    thread.join()


def test_requests_wait_until_they_can_be_answered() -> None:
    world = World(("keys", "random", "server"))
    is_ready = False
    served: list[int] = []

    def serve(consumer: str, request: RandomRequest) -> RandomReply:
        served.append(request.length)
        return RandomReply(random=bytes(request.length))

    world.guest.serve("keys", serve, when=lambda: is_ready)
    world.open()
    other = world.others["keys"]
    assert other.send(RandomRequest(length=3))
    other.flush()
    world.turn(3)
    assert served == [] and other.receive() is None
    is_ready = True
    world.turn(2)
    assert served == [3] and other.receive() is not None
