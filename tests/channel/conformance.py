"""What every transport under a vchan must do: subclass ``Conformance`` with a transport, and pytest puts it through.

All is said in terms of two Wires: nothing here knows what the memory or the events are made of.
"""

from __future__ import annotations

import random
import time
from typing import Any, Protocol

import pytest
from septum.v1.random import RandomReply, RandomRequest
from septum.v1.records import Record

from appliance.vchan import layout
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.layout import Orders
from appliance.vchan.message import Message
from appliance.vchan.messages import Packets
from appliance.vchan.ring import PeerViolation, Side
from appliance.vchan.schema import Schema, schema
from appliance.vchan.wire import Wire
from tests.channel.support import Child, drain, open_both, record, small, wait
from tests.channel.transports import PACE


class Transport(Protocol):
    """What is put to the test."""

    def make_pair(self, orders: Orders) -> tuple[Wire, Wire]:
        """The wires of server and client of a new channel. Both work in this process, and in its forks."""


FIRSTS = [0, 2**32 - 1, 2**32 - 700, 2**31 - 300]


def numbered(number: int, frame_bytes: int) -> Record:
    made = record(frame_bytes)
    return Record(event=f"{number:08}" + made.event[8:], text=made.text)


class Conformance:
    transport: Transport

    def open_pair(self, shape: Schema, first: int = 0) -> tuple[Endpoint, Endpoint]:
        server_wire, client_wire = self.transport.make_pair(shape.orders)
        server = Endpoint(server_wire, Side.SERVER, shape, first)
        client = Endpoint(client_wire, Side.CLIENT, shape, first)
        open_both(server, client)
        return server, client

    # the wires

    def test_both_ends_see_the_same_bytes(self) -> None:
        orders = Orders(12, 13)
        one, other = self.transport.make_pair(orders)
        assert one.memory.nbytes == other.memory.nbytes == layout.size(orders)
        for offset in (0, layout.PAGE, layout.size(orders) - 1):
            one.memory[offset] = 0x5A
            assert other.memory[offset] == 0x5A

    def test_a_notification_waits_for_its_reader(self) -> None:
        one, other = self.transport.make_pair(Orders(10, 11))
        assert not readable(one)
        other.notify()
        other.notify()
        assert readable(one)
        assert readable(one)
        assert not readable(other)
        drain(one)
        assert not readable(one)

    # streams

    @pytest.mark.parametrize("first", FIRSTS)
    def test_every_size_arrives_in_order(self, first: int) -> None:
        server, client = self.open_pair(small(), first)
        sizes = list(range(18, 590))
        random.Random(1).shuffle(sizes)
        for number, size in enumerate(sizes):
            sent = numbered(number, size)
            assert client.send(sent)
            assert server.receive() == sent
        assert server.receive() is None

    @pytest.mark.parametrize("first", FIRSTS)
    def test_a_full_ring_takes_nothing_and_loses_nothing(self, first: int) -> None:
        server, client = self.open_pair(small(), first)
        sent: list[Record] = []
        received: list[Record] = []
        dice = random.Random(first)
        for round_ in range(200):
            while client.send(numbered(len(sent), size := dice.randrange(18, 590))):
                sent.append(numbered(len(sent), size))
            assert client.statistics.dropped == round_ + 1
            for _ in range(dice.randrange(1, 4)):
                message = server.receive()
                if message is not None:
                    received.append(message)
        while (message := server.receive()) is not None:
            received.append(message)
        assert received == sent
        assert server.statistics.received == client.statistics.sent == len(sent)
        assert server.statistics.received_bytes == client.statistics.sent_bytes

    @pytest.mark.parametrize("first", FIRSTS)
    @pytest.mark.parametrize("before", [0, 11, 500])
    def test_exact_fit(self, first: int, before: int) -> None:
        """A ring can be filled to its last byte, wherever that lies, and not by one byte more."""
        server, client = self.open_pair(small(), first)
        if before:
            assert client.send(record(before))
            assert server.receive() is not None
        assert client.send(record(500))
        assert not client.send(record(525))
        assert client.send(record(524))
        assert not client.send(record(11))
        assert server.receive() == record(500)
        assert not client.send(record(501))
        assert client.send(record(500))
        assert [server.receive() for _ in range(3)] == [record(524), record(500), None]

    def test_room_is_for_the_largest(self) -> None:
        shape = small()
        server, client = self.open_pair(shape)
        largest = 8 + shape.forward.max_bytes
        assert client.room()
        assert client.send(record(1024 - largest))
        assert client.room()
        assert client.send(record(11))
        assert not client.room()
        assert not server.room()
        assert server.receive() is not None
        assert client.room()

    def test_groups_of_packets_at_full_size(self) -> None:
        server, client = self.open_pair(schema("packets"), 2**32 - 300_000)
        blob = random.Random(2).randbytes(65535)
        for number in range(200 // PACE):
            sent = Packets(memoryview(blob)[: 65535 - number], 1420, number)
            assert client.send(sent)
            assert server.receive() == sent

    def test_a_producer_hears_nothing_and_a_consumer_says_nothing(self) -> None:
        server, client = self.open_pair(small())
        assert client.receive() is None
        with pytest.raises(RuntimeError):
            server.send(record(50))

    def test_own_mistakes_name_the_field(self) -> None:
        server, client = self.open_pair(small())
        with pytest.raises(ValueError, match="text: 513 bytes"):
            client.send(Record(event="e", text="t" * 513))
        with pytest.raises(TypeError):
            client.send(Packets(b"x" * 20, 20))
        assert client.send(record(50))
        assert server.receive() == record(50)

    # sleeping and waking, between two processes

    @pytest.mark.parametrize("order", [10, 12, 16])
    def test_no_wake_is_missed(self, order: int) -> None:
        """Megabytes through a ring that is full or empty all the time; only notifications end a sleep."""
        shape = small(order=order)
        server_wire, client_wire = self.transport.make_pair(shape.orders)
        count = 30_000 // PACE
        child = Child(produce, client_wire, shape, count)
        hits, received = consume(server_wire, shape, count)
        assert received == count
        assert child.result() == 0
        assert hits == 0

    def test_a_blocked_producer_is_woken_by_space(self) -> None:
        shape = small()
        server_wire, client_wire = self.transport.make_pair(shape.orders)
        child = Child(fill_then_wait, client_wire, shape)
        server = opened(Endpoint(server_wire, Side.SERVER, shape))
        time.sleep(0.2)  # the producer is asleep by now
        started = time.monotonic()
        while server.receive() is not None:
            server.flush()
        assert child.result() is True
        assert time.monotonic() - started < BOUND

    def test_a_sleeping_consumer_is_woken_by_data(self) -> None:
        shape = small()
        server_wire, client_wire = self.transport.make_pair(shape.orders)
        child = Child(wait_for_one, server_wire, shape)
        client = opened(Endpoint(client_wire, Side.CLIENT, shape))
        time.sleep(0.2)
        started = time.monotonic()
        assert client.send(record(100))
        client.flush()
        assert child.result() == (False, record(100))
        assert time.monotonic() - started < BOUND

    def test_an_awake_peer_is_left_alone(self) -> None:
        server, client = self.open_pair(small())
        drain(server)
        assert client.send(record(50))
        client.flush()
        assert not readable(server)
        assert not server.arm(space=False)
        assert server.receive() is not None
        assert server.arm(space=False)
        assert client.send(record(50))
        assert not readable(server)
        client.flush()
        assert readable(server)

    def test_who_cannot_take_data_is_not_kept_awake_by_it(self) -> None:
        server, client = self.open_pair(small())
        drain(server)
        assert client.send(record(50))
        assert server.arm(space=False, data=False)
        client.flush()
        assert not readable(server)
        client.close()
        assert readable(server)
        server.disarm()
        assert not server.arm(space=False, data=False)

    # closing

    def test_close_while_full(self) -> None:
        server, client = self.open_pair(small())
        while client.send(record(300)):
            pass
        server.close()
        assert not server.is_open
        assert client.progress() == "closed"
        assert not client.send(record(300))
        assert client.receive() is None
        open_both(server, client)
        assert client.send(record(589))
        assert server.receive() == record(589)

    def test_a_close_loses_what_was_not_received(self) -> None:
        server, client = self.open_pair(small())
        assert client.send(record(300))
        client.close()
        assert server.progress() == "closed"
        assert server.receive() is None
        open_both(server, client)
        assert server.receive() is None

    def test_events_come_once_a_session(self) -> None:
        server, client = self.open_pair(small())
        for _ in range(20):
            assert client.progress() is server.progress() is None
            client.close()
            assert client.progress() is None
            assert server.progress() == "closed"
            events = [(server.progress(), client.progress()) for _ in range(5)]
            assert [event for event, _ in events if event] == ["opened"]
            assert [event for _, event in events if event] == ["opened"]

    def test_a_sleeper_is_woken_by_a_close(self) -> None:
        server, client = self.open_pair(small())
        drain(server)
        drain(client)
        assert server.arm(space=False)
        client.close()
        assert readable(server)
        server.disarm()
        assert not server.arm(space=False)
        assert server.progress() == "closed"

    # calls

    def test_calls(self) -> None:
        shape = schema("random")
        server_wire, client_wire = self.transport.make_pair(shape.orders)
        count = 3000 // PACE
        child = Child(answer, server_wire, shape, count)
        client = opened(Endpoint(client_wire, Side.CLIENT, shape))
        for number in range(count):
            length = number % 4096 + 1
            reply = call(client, RandomRequest(length=length))
            assert reply == RandomReply(random=bytes((number & 0xFF,)) * length)
        assert child.result() == 0

    def test_the_reply_to_a_call_given_up_is_not_taken_for_the_next(self) -> None:
        server, client = self.open_pair(schema("random"))
        assert client.send(RandomRequest(length=1))
        assert server.receive() == RandomRequest(length=1)
        assert client.receive() is None  # given up
        assert client.send(RandomRequest(length=2))
        assert server.send(RandomReply(random=b"1"))
        assert client.receive() is None
        assert server.receive() == RandomRequest(length=2)
        assert server.send(RandomReply(random=b"22"))
        assert client.receive() == RandomReply(random=b"22")
        assert client.statistics.stale == 1

    def test_one_reply_a_request(self) -> None:
        server, client = self.open_pair(schema("random"))
        assert not server.send(RandomReply(random=b"x"))
        assert client.send(RandomRequest(length=1))
        assert server.receive() is not None
        assert server.send(RandomReply(random=b"x"))
        assert not server.send(RandomReply(random=b"x"))
        assert server.statistics.dropped == 2

    # rules

    @pytest.mark.parametrize("side", list(Side))
    def test_a_violation_shuts_the_channel_until_the_peer_has_died(self, side: Side) -> None:
        shape = small()
        server, client = self.open_pair(shape)
        good, bad = (server, client) if side is Side.SERVER else (client, server)
        memory = server._wire.memory
        memory[side.other.live] = 77
        with pytest.raises(PeerViolation, match="live byte is 77"):
            good.progress()
        assert not good.is_open
        assert memory[side.live] == layout.CLOSED
        for byte in (77, layout.LIVE, layout.WAITING):
            memory[side.other.live] = byte
            assert good.progress() is None
            assert memory[side.live] == layout.CLOSED
        memory[side.other.live] = layout.CLOSED  # as the monitor does for the dead
        assert good.progress() is None
        reborn = Endpoint(bad._wire, side.other, shape)
        open_both(good, reborn)


BOUND = 5.0  # seconds: half the backstop, and hundreds of times what a wake takes


def readable(wire: Any) -> bool:
    import select

    return bool(select.select([wire.fileno()], [], [], 0)[0])


def opened(endpoint: Endpoint) -> Endpoint:
    while not endpoint.is_open:
        if endpoint.progress() is None and wait(endpoint):
            raise AssertionError("missed the opening")
    return endpoint


def produce(wire: Wire, shape: Schema, count: int) -> int:
    """Sends ``count`` records of all sizes, in bursts. Returns how often the backstop had to wake it."""
    client = opened(Endpoint(wire, Side.CLIENT, shape))
    dice = random.Random(3)
    hits = 0
    number = 0
    while number < count:
        for _ in range(dice.randrange(1, 12)):
            if number < count:
                message = numbered(number, dice.randrange(18, 590))
                while not client.send(message):
                    client.flush()
                    hits += wait(client, space=True)
                number += 1
        client.flush()
        if dice.random() < 0.3:
            time.sleep(0.00002)  # now the consumer is the one that sleeps
    while client.progress() != "closed":
        hits += wait(client)
    return hits


def consume(wire: Wire, shape: Schema, count: int) -> tuple[int, int]:
    server = opened(Endpoint(wire, Side.SERVER, shape))
    hits = received = 0
    while received < count:
        message = server.receive()
        if message is None:
            server.flush()
            hits += wait(server)
            continue
        assert message.event.startswith(f"{received:08}")
        received += 1
        if received % 7 == 0:
            server.flush()
    assert server.receive() is None
    server.close()
    return hits, received


def fill_then_wait(wire: Wire, shape: Schema) -> bool:
    client = opened(Endpoint(wire, Side.CLIENT, shape))
    while client.send(record(200)):
        pass
    client.flush()
    if wait(client, space=True):
        raise AssertionError("only the backstop woke the producer")
    while not client.send(record(200)):
        wait(client, space=True)
    return True


def wait_for_one(wire: Wire, shape: Schema) -> tuple[bool, Message]:
    server = opened(Endpoint(wire, Side.SERVER, shape))
    while True:
        hit = wait(server)
        message = server.receive()
        if message is not None:
            return hit, message


def answer(wire: Wire, shape: Schema, count: int) -> int:
    server = opened(Endpoint(wire, Side.SERVER, shape))
    hits = 0
    for number in range(count):
        while (request := server.receive()) is None:
            hits += wait(server)
        assert server.send(RandomReply(random=bytes((number & 0xFF,)) * request.length))
        server.flush()
    return hits


def call(client: Endpoint, request: Any) -> Any:
    assert client.send(request)
    client.flush()
    while (reply := client.receive()) is None:
        assert not wait(client), "only the backstop woke the caller"
    return reply
