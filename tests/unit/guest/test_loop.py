"""The loop, its ports and calls, with the other ends of the channels in the test's hands."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from septum.v1.nonces import NonceReply, NonceRequest
from septum.v1.records import Record
from septum.v1.sending import SendForget, SendOrder

from appliance.guest import loop
from appliance.guest.domain import SIDES, _port_kind
from appliance.guest.loop import Guest
from appliance.guest.ports import STALL_LIMIT, Patience, PeerClosed, PeerStalled, Port
from appliance.guest.status import SIZE, WORD_HEARTBEAT, WORD_VIOLATIONS, StatusPage
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.messages import Packets
from appliance.vchan.ring import Side
from appliance.vchan.schema import schema

BRIEF = 0.02  # seconds
GROUP = Packets(b"x" * 60_000, 1000, 0)


class World:
    """A guest, and `others`: the far end of each of its ports by name (``name.peer`` if many are joined to one)."""

    def __init__(self, *ports: tuple[str, str, str], devices: dict[str, int] | None = None) -> None:
        self.others: dict[str, Endpoint] = {}
        own: list[Port] = []
        patience = Patience()
        for index, (name, schema_name, end) in enumerate(ports):
            shape = schema(schema_name)
            fds = memfd.create(shape.orders)
            events = (fds.client_event_fd, fds.server_event_fd)
            mine, theirs = (events, events[::-1]) if SIDES[end] is Side.CLIENT else (events[::-1], events)
            port, _, peer = name.partition(".")
            endpoint = Endpoint(memfd.attach(fds.memory_fd, *mine, shape.orders), SIDES[end], shape)
            own.append(_port_kind(end, shape)(index, port, peer or "peer", endpoint, patience))
            self.others[name] = Endpoint(memfd.attach(fds.memory_fd, *theirs, shape.orders), SIDES[end].other, shape)
        self.page = StatusPage(memoryview(bytearray(SIZE)), ["counted"])
        self.guest = Guest("it", {}, devices or {}, own, self.page, patience, control_fd=os.eventfd(0, os.EFD_NONBLOCK))

    def open(self) -> None:
        """Turns both sides until every channel is open."""
        for _ in range(6):
            for other in self.others.values():
                other.progress()
            self.turn()
        assert all(other.is_open for other in self.others.values())

    def turn(self, times: int = 1) -> float:
        """The seconds that ``times`` turns took."""
        began = time.monotonic()
        for _ in range(times):
            self.guest._turn()
        return time.monotonic() - began

    def drain(self, name: str) -> list[Any]:
        found = []
        while (message := self.others[name].receive()) is not None:
            found.append(message)
        self.others[name].flush()
        return found


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn with nothing to do sleeps; in a test, not for long."""
    monkeypatch.setattr(loop, "HEARTBEAT", BRIEF)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def passing_on() -> tuple[World, list[Packets]]:
    world = World(("plain", "packets", "in"), ("sealed", "packets", "out"))
    seen: list[Packets] = []
    out = world.guest.out("sealed")

    def handler(message: Packets, now: float) -> None:
        seen.append(message)
        out.send(message)

    world.guest.receive("plain", handler, into=(out,))
    world.open()
    return world, seen


def fill(world: World) -> None:
    """Fills the far ring of ``sealed`` through the guest, then the near one of ``plain`` behind its back."""
    plain = world.others["plain"]
    while world.guest.out("sealed").room():
        plain.send(GROUP)
        plain.flush()
        world.turn()
    while plain.send(GROUP):
        plain.flush()


def test_messages_reach_the_handler_and_go_on() -> None:
    world, seen = passing_on()
    world.others["plain"].send(GROUP)
    world.others["plain"].flush()
    world.turn()
    assert [bytes(message.packets) for message in seen] == [GROUP.packets]
    assert len(world.drain("sealed")) == 1


def test_a_full_sink_holds_its_source_and_the_guest_sleeps_meanwhile() -> None:
    world, seen = passing_on()
    fill(world)
    before = len(seen)
    began = time.process_time()
    world.turn(3)  # within STALL_LIMIT: held up, and asleep in spite of what waits
    assert len(seen) == before
    assert time.process_time() - began < 0.02
    assert world.drain("sealed")
    world.turn()
    assert len(seen) > before


def test_a_stuck_sink_is_not_waited_for() -> None:
    world, seen = passing_on()
    fill(world)
    before = len(seen)
    until = time.monotonic() + 10 * STALL_LIMIT
    while len(seen) == before and time.monotonic() < until:
        world.turn()
    assert len(seen) > before
    assert world.guest.out("sealed").endpoint.statistics.dropped > 0


def test_a_sink_without_a_peer_holds_nothing_up() -> None:
    world, seen = passing_on()
    world.others["sealed"].close()
    for _ in range(50):
        world.others["plain"].send(GROUP)
        world.others["plain"].flush()
        world.turn()
    assert len(seen) == 50


def test_a_handler_that_keeps_something_back_is_told_when_nothing_more_waits() -> None:
    world = World(("plain", "packets", "in"), ("sealed", "packets", "out"))
    out = world.guest.out("sealed")
    kept: list[Packets] = []
    joined: list[int] = []

    def done(now: float) -> None:
        joined.append(len(kept))
        for message in kept:
            assert out.send(message), "there was no room for what was kept"
        kept.clear()

    def keep(message: Packets, now: float) -> None:
        kept.append(message)

    world.guest.receive("plain", keep, into=(out,), done=done)
    world.open()
    joined.clear()
    for _ in range(3):
        world.others["plain"].send(Packets(b"x" * 100, 100, 0))
    world.others["plain"].flush()
    world.turn()
    assert joined == [3]
    assert len(world.drain("sealed")) == 3
    # What is kept when there is no room goes as soon as there is some, and is not lost
    while out.room():
        out.send(GROUP)
    world.others["plain"].send(Packets(b"y" * 100, 100, 0))
    world.others["plain"].flush()
    kept.append(Packets(b"z" * 100, 100, 0))
    world.turn()
    assert joined == [3], "nothing may be let go without room"
    world.drain("sealed")
    world.turn(2)
    assert [message.packets[:1] for message in world.drain("sealed")] == [b"z", b"y"]


def test_a_device_is_seen_while_a_ring_is_busy(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    world = World(("plain", "packets", "in"), devices={"tun": reader})
    read: list[bytes] = []

    def handler(now: float) -> bool:
        try:
            read.append(os.read(reader, 100))
        except BlockingIOError:
            return False
        return True

    world.guest.receive("plain", lambda message, now: None)
    world.guest.readable("tun", handler)
    world.open()
    for _ in range(30):
        while world.others["plain"].send(GROUP):
            pass
        os.write(writer, b"ping")
        world.turn(2)
        assert read.pop() == b"ping"


def test_unread_messages_do_not_keep_it_awake_or_deaf(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    world = World(("plain", "packets", "in"), devices={"tun": reader})
    read: list[bytes] = []
    world.guest.readable("tun", lambda now: bool(read.append(os.read(reader, 100))) if select_ready(reader) else False)
    world.open()
    world.others["plain"].send(GROUP)
    world.others["plain"].flush()
    os.write(writer, b"ping")
    world.turn(2)
    assert read == [b"ping"]


def select_ready(fd: int) -> bool:
    import select

    return bool(select.select([fd], [], [], 0)[0])


def test_an_idle_guest_sleeps_and_beats() -> None:
    world = World(("plain", "packets", "in"))
    world.guest.receive("plain", lambda message, now: None)
    world.open()
    world.turn()
    before = world.page.words[WORD_HEARTBEAT]
    assert world.turn() >= BRIEF * 0.9
    assert world.page.words[WORD_HEARTBEAT] == before + 1


def test_a_timer_bounds_the_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(("plain", "packets", "in"))
    world.open()
    monkeypatch.setattr(loop, "HEARTBEAT", 60.0)
    world.guest.timer(lambda now: now + 0.05)
    assert world.turn() < 30


def test_a_wake_ends_the_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(("plain", "packets", "in"))
    seen: list[Packets] = []
    world.guest.receive("plain", lambda message, now: seen.append(message))
    world.open()
    world.turn()

    def later() -> None:
        time.sleep(0.05)
        world.others["plain"].send(GROUP)
        world.others["plain"].flush()

    thread = threading.Thread(target=later)
    thread.start()
    monkeypatch.setattr(loop, "HEARTBEAT", 60.0)
    assert world.turn() < 30  # it sleeps at the end of a turn, until the wake
    thread.join()
    monkeypatch.setattr(loop, "HEARTBEAT", BRIEF)
    world.turn()
    assert len(seen) == 1


def test_whoever_breaks_the_protocol_is_accused_and_shut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LATCH", 60.0)
    world = World(("orders", "sending", "in"), ("log", "records", "out"))
    closed: list[float] = []
    world.guest.receive("orders", lambda message, now: None)
    world.guest.on_close("orders", closed.append)
    world.open()
    vchan = world.others["orders"]._vchan
    vchan.write((b"\xff\xff\xff\xff\0\0\0\0",), 8)
    world.others["orders"]._has_written = True
    world.others["orders"].flush()
    world.turn(2)
    assert world.page.words[WORD_VIOLATIONS] == 1
    assert closed
    (record,) = world.drain("log")
    assert isinstance(record, Record)
    assert record.event == "peer-violation"
    # a new life of the peer is welcome, and no longer accused
    memfd.mark_dead(world.others["orders"]._wire.memory, Side.CLIENT)
    world.turn()
    world.others["orders"]._vchan.close()
    world.open()
    assert world.page.words[WORD_VIOLATIONS] == 1, "the monitor may not have looked yet"
    world.guest._accused[0].until = 0.0
    world.turn(6)
    assert world.page.words[WORD_VIOLATIONS] == 0


def test_a_second_violation_is_a_second_accusation(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(("orders", "sending", "in"))
    world.guest.receive("orders", lambda message, now: None)
    monkeypatch.setattr(loop, "LATCH", 0.1)
    seen = [0]
    turn = world.guest._turn

    def watched() -> None:
        turn()
        if seen[-1] != world.page.words[WORD_VIOLATIONS]:
            seen.append(world.page.words[WORD_VIOLATIONS])

    monkeypatch.setattr(world.guest, "_turn", watched)
    for _ in range(2):  # the second life of the peer does at once what the first did
        world.open()
        vchan = world.others["orders"]._vchan
        vchan.write((b"\xff\xff\xff\xff\0\0\0\0",), 8)
        world.turn()
        memfd.mark_dead(world.others["orders"]._wire.memory, Side.CLIENT)
        world.turn()
        vchan.close()
    world.open()
    world.turn(30)
    assert seen == [0, 1, 0, 1, 0]


def test_a_peer_that_flaps_is_accused() -> None:
    world = World(("orders", "sending", "in"))
    world.guest.receive("orders", lambda message, now: None)
    for _ in range(loop.MOST_OPENINGS):
        world.open()
        world.others["orders"].close()
        world.turn(2)
    assert world.page.words[WORD_VIOLATIONS] == 0
    for _ in range(6):
        world.others["orders"].progress()
        world.turn()
    assert world.page.words[WORD_VIOLATIONS] == 1


def test_waits_do_not_add_up_in_a_turn() -> None:
    world = World(("a", "sending", "out"), ("b", "sending", "out"), ("c", "sending", "out"), ("d", "sending", "out"))
    world.open()
    outs = [world.guest.out(name) for name in "abcd"]
    for out in outs:
        while out.endpoint.send(order(1)):
            pass
    world.guest._patience.renew()
    began = time.monotonic()
    assert [out.send(order(2)) for out in outs] == [False] * 4
    assert 1.5 < world.guest._patience.spent < 2.5
    assert time.monotonic() - began < 30


def test_a_control_message_to_a_peer_that_died_does_not_wait() -> None:
    world = World(("orders", "sending", "out"))
    world.open()
    out = world.guest.out("orders")
    while out.endpoint.send(order(1)):
        pass
    memfd.mark_dead(world.others["orders"]._wire.memory, Side.SERVER)
    world.guest._patience.renew()
    assert out.send(order(2)) is False
    assert world.guest._patience.spent < 0.5


def test_opening_and_closing_are_told() -> None:
    world = World(("orders", "sending", "out"))
    told: list[str] = []
    world.guest.on_open("orders", lambda now: told.append("opened"))
    world.guest.on_close("orders", lambda now: told.append("closed"))
    world.open()
    world.others["orders"].close()
    world.turn()
    world.open()
    assert told == ["opened", "closed", "opened"]


def answering(world: World, name: str, answer: Callable[[Any], Any], seconds: float) -> threading.Thread:
    """The far end of a call, in a thread, for ``seconds``."""
    other = world.others[name]

    def serve() -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            other.progress()
            request = other.receive()
            if request is not None and (reply := answer(request)) is not None:
                other.send(reply)
                other.flush()
            time.sleep(0.001)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_call_is_answered() -> None:
    world = World(("nonces", "nonces", "client"))
    world.open()
    thread = answering(world, "nonces", lambda request: NonceReply(random=bytes(request.length)), 0.3)
    assert world.guest.client("nonces").call(NonceRequest(length=7)).random == bytes(7)
    thread.join()


def test_a_call_that_is_not_answered_ends_in_time_and_the_next_gets_its_own_reply() -> None:
    world = World(("nonces", "nonces", "client"))
    world.open()
    client = world.guest.client("nonces")
    began = time.monotonic()
    with pytest.raises(PeerStalled):
        client.call(NonceRequest(length=3), deadline=0.1)
    assert time.monotonic() - began < 30
    with pytest.raises(PeerStalled, match="lately"):
        client.call(NonceRequest(length=3))
    client.forgive()
    thread = answering(world, "nonces", lambda request: NonceReply(random=bytes(request.length)), 0.3)
    assert len(client.call(NonceRequest(length=9)).random) == 9
    thread.join()


def test_a_call_to_nobody_fails_at_once() -> None:
    world = World(("nonces", "nonces", "client"))
    with pytest.raises(PeerClosed):
        world.guest.client("nonces").call(NonceRequest(length=3))
    world.open()
    world.others["nonces"].close()
    began = time.monotonic()
    with pytest.raises(PeerClosed):
        world.guest.client("nonces").call(NonceRequest(length=3))
    assert time.monotonic() - began < 30


def test_many_consumers_are_served_and_told_apart() -> None:
    world = World(("nonces.black", "nonces", "server"), ("nonces.red", "nonces", "server"))
    served: list[str] = []

    def handler(consumer: str, request: NonceRequest) -> NonceReply:
        served.append(consumer)
        return NonceReply(random=bytes(request.length))

    world.guest.serve("nonces", handler)
    world.open()
    for name, length in (("nonces.red", 5), ("nonces.black", 6)):
        world.others[name].send(NonceRequest(length=length))
        world.others[name].flush()
        world.turn()
        assert [len(reply.random) for reply in world.drain(name)] == [length]
    assert served == ["red", "black"]


def test_many_senders_are_heard_and_told_apart() -> None:
    world = World(("records.a", "records", "in"), ("records.b", "records", "in"))
    heard: list[tuple[str, str]] = []
    world.guest.receive_many("records", lambda sender, record, now: heard.append((sender, record.event)))
    world.open()
    for name in ("records.b", "records.a"):
        world.others[name].send(Record(severity=6, event=name))
        world.others[name].flush()
        world.turn()
    assert heard == [("b", "records.b"), ("a", "records.a")]


def order(peer: int) -> SendOrder:
    return SendOrder(forget=SendForget(peer=peer))


def test_a_control_message_waits_for_room_and_not_for_ever() -> None:
    world = World(("orders", "sending", "out"))
    world.open()
    out = world.guest.out("orders")
    while out.endpoint.send(order(1)):
        pass

    taken: list[Any] = []

    def later() -> None:
        time.sleep(0.05)
        taken.extend(world.drain("orders"))

    thread = threading.Thread(target=later)
    thread.start()
    assert out.send(order(2)) is True
    thread.join()
    assert (taken + world.drain("orders"))[-1].forget.peer == 2
    while out.endpoint.send(order(1)):
        pass
    began = time.monotonic()
    assert out.send(order(3)) is False
    assert 0.5 < time.monotonic() - began < 30


def test_a_wrong_port_is_named() -> None:
    world = World(("orders", "sending", "out"))
    with pytest.raises(ValueError, match=r"it has no Client port 'orders'; its ports are \['orders'\]"):
        world.guest.client("orders")
    with pytest.raises(ValueError, match="no Port port 'none'"):
        world.guest.on_open("none", lambda now: None)


def spread() -> World:
    return World(
        ("sealed.first", "packets", "out"),
        ("plain.first", "packets", "in"),
        ("sealed.second", "packets", "out"),
        ("plain.second", "packets", "in"),
    )


def test_a_port_of_many_has_its_members_in_order() -> None:
    world = spread()
    assert [out.peer for out in world.guest.spread("sealed")] == ["first", "second"]
    assert world.guest.senders("plain") == ["first", "second"]
    with pytest.raises(ValueError, match=r"it\.sealed is joined to 2 domains, not to one"):
        world.guest.out("sealed")
    for port in ("plain", "nobody"):
        with pytest.raises(ValueError, match="has no DroppingOut port"):
            world.guest.spread(port)


def test_every_sender_is_heard_while_there_is_room_for_all() -> None:
    world = spread()
    seen: list[tuple[str, int]] = []
    outs = world.guest.spread("sealed")
    world.guest.receive_many("plain", lambda sender, message, now: seen.append((sender, message.size)), into=outs)
    world.open()
    for name, size in (("plain.first", 100), ("plain.second", 200)):
        world.others[name].send(Packets(bytes(size), size, 0))
        world.others[name].flush()
    world.turn()
    assert seen == [("first", 100), ("second", 200)]
    while outs[1].send(GROUP):
        pass
    world.others["plain.first"].send(GROUP)
    world.others["plain.first"].flush()
    world.turn()
    assert len(seen) == 2, "it may be for the one that is full"
    world.drain("sealed.second")
    world.turn()
    assert len(seen) == 3


def test_one_handler_may_hear_them_all() -> None:
    world = spread()
    seen: list[int] = []
    world.guest.receive("plain", lambda message, now: seen.append(message.size))
    world.open()
    for name, size in (("plain.second", 200), ("plain.first", 100)):
        world.others[name].send(Packets(bytes(size), size, 0))
        world.others[name].flush()
    world.turn()
    assert sorted(seen) == [100, 200]


def test_members_come_and_go_each_on_its_own() -> None:
    world = spread()
    told: list[str] = []
    for member, name in enumerate(("first", "second")):
        world.guest.on_open("sealed", lambda now, name=name: told.append(f"{name} opened"), member)  # type: ignore[misc]
        world.guest.on_close("sealed", lambda now, name=name: told.append(f"{name} closed"), member)  # type: ignore[misc]
    world.open()
    assert sorted(told) == ["first opened", "second opened"]
    world.others["sealed.second"].close()
    world.turn()
    assert told[2:] == ["second closed"]
    first, second = world.guest.spread("sealed")
    assert first.is_open and not second.is_open


def test_timers_hear_of_a_message_that_was_only_read() -> None:
    world = World(("plain", "packets", "in"))
    told: list[str] = []
    world.guest.receive("plain", lambda message, now: told.append("message"))
    world.guest.timer(lambda now: told.append("timer"))
    world.open()
    world.turn(3)
    told.clear()
    world.others["plain"].send(GROUP)
    world.others["plain"].flush()
    world.turn()
    assert told == ["message", "timer"]


def test_a_sink_that_was_stuck_is_not_waited_for_again_when_it_frees_a_little() -> None:
    world, seen = passing_on()
    fill(world)
    until = time.monotonic() + 10 * STALL_LIMIT
    before = len(seen)
    while len(seen) == before and time.monotonic() < until:
        world.turn()
    while world.others["sealed"].receive() is not None and not world.guest.out("sealed").room():
        pass
    world.others["sealed"].flush()
    fill(world)  # with the little room that there was
    before = len(seen)
    while world.others["plain"].send(GROUP):
        pass
    world.others["plain"].flush()
    world.turn(2)
    assert len(seen) > before
    assert world.guest.out("sealed")._not_waited_for > time.monotonic()


# Callers who may have only so much


def _busy(seconds: float, served: list[float]) -> Callable[[str, Any], NonceReply]:
    def serve(peer: str, request: Any) -> NonceReply:
        served.append(time.monotonic())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        return NonceReply(random=bytes(24))

    return serve


def test_a_caller_takes_no_more_than_its_share() -> None:
    world = World(("served", "nonces", "server"), ("in", "packets", "in"))
    taken: list[float] = []
    served: list[float] = []
    world.guest.serve("served", _busy(BRIEF, served), share=0.25)
    world.guest.receive("in", lambda group, now: taken.append(now))
    world.open()
    caller, producer = world.others["served"], world.others["in"]
    began = time.monotonic()
    while time.monotonic() < began + 20 * BRIEF:
        while caller.send(NonceRequest(length=1)):
            pass
        caller.flush()
        producer.send(GROUP)
        producer.flush()
        world.turn()
        caller.receive()
    assert 2 <= len(served) <= 20 * 0.25 + 1
    assert len(taken) > 20  # turns went on meanwhile


def test_one_that_rests_is_not_forgotten() -> None:
    """The loop sleeps no longer than until the rest is over."""
    world = World(("served", "nonces", "server"))
    served: list[float] = []
    world.guest.serve("served", _busy(0.004, served), share=0.25)
    world.open()
    caller = world.others["served"]
    for _ in range(5):
        assert caller.send(NonceRequest(length=1))
    caller.flush()
    while len(served) < 5:
        world.turn()
    rests = [later - earlier for earlier, later in itertools.pairwise(served)]
    assert 0.016 <= min(rests) < 0.2, rests  # the machine may add to any one; without the rest in mind it is HEARTBEAT


def test_an_operator_may_come_and_go_as_often_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HEARTBEAT", 0.0)
    for peer, is_accused in (("operator", False), ("peer", True)):
        world = World((f"served.{peer}", "nonces", "server"))
        world.guest.serve("served", _busy(0, []))
        other = world.others[f"served.{peer}"]
        for _ in range(2 * loop.MOST_OPENINGS):
            for _ in range(4):
                other.progress()
                world.turn()
            other.close()
            world.turn(2)
        assert bool(world.guest._accused) is is_accused


def test_the_fault_of_one_operator_is_not_held_against_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HEARTBEAT", 0.0)
    monkeypatch.setattr(loop, "LATCH", 0.05)
    world = World(("served.operator", "nonces", "server"))
    world.guest.serve("served", _busy(0, []))
    world.open()
    other = world.others["served.operator"]
    other._vchan._words[other._vchan._prod_word] = 0x12345678
    other._wire.notify()
    world.turn(3)
    assert world.guest._accused
    other.close()
    time.sleep(0.06)
    world.turn(3)
    assert not world.guest._accused  # though nobody has come since
