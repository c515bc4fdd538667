"""A peer that may write anything anywhere in the shared pages, at any time.

What must hold whatever it does: only PeerViolation or a legal message comes out; nothing hangs, crashes or is read
outside the memory; what was checked is what is delivered; and the end that found a violation is closed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from septum.v1.random import RandomReply, RandomRequest

from appliance.vchan import layout, memfd
from appliance.vchan.codec import Codec
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.layout import Orders
from appliance.vchan.message import Message
from appliance.vchan.messages import Packets
from appliance.vchan.ring import PeerViolation, Side
from appliance.vchan.schema import Schema, schema
from appliance.vchan.wire import Wire
from tests.channel.support import Child, ends, one_process_pair, open_both, record, small
from tests.channel.transports import PACE, transport

PATIENCE = 60 if PACE == 1 else 110  # seconds; a child has 120
RECEIVED, VIOLATIONS = max(100, 1000 // PACE), max(5, 20 // PACE)
ROUNDS = 64  # the smallest frame takes 11 bytes: no ring of 1 KiB yields more messages than this without a refill


def encoding(message: Any, codec: Codec) -> bytes:
    return b"".join(codec.encode(message))


def exercise(victim: Endpoint, message: Any) -> int:
    """All that an end does in a few turns. Returns how many messages came out; all of them legal."""
    shape = victim.schema
    incoming = shape.forward if victim.side is Side.SERVER else shape.backward
    codec = Codec(incoming) if incoming is not None else None
    received = 0
    violations = 0
    for _ in range(4):
        try:
            victim.progress()
            while (came := victim.receive()) is not None:
                assert codec is not None
                encoding(came, codec)  # checks every bound once more
                received += 1
                assert received <= 4 * ROUNDS
        except PeerViolation:
            violations += 1
            assert not victim.is_open
            assert victim._wire.memory[victim.side.live] == layout.CLOSED
        if message is not None:
            victim.room()
            victim.send(message)
        victim.flush()
        victim.arm(space=True)
        victim.disarm()
    assert violations <= 1, "once shut, it stays shut"
    return received


# every byte of the page, one at a time, at several moments

Moment = Callable[[Endpoint, Endpoint], None]


def idle(server: Endpoint, client: Endpoint) -> None:
    """Open, some traffic behind them."""
    for size in (300, 400):
        client.send(record(size))
        assert server.receive() is not None


def pending(server: Endpoint, client: Endpoint) -> None:
    """Frames wait to be read, and wrap around the end of the ring."""
    idle(server, client)
    for size in (200, 150, 300):
        assert client.send(record(size))


def half(server: Endpoint, client: Endpoint) -> None:
    """The header of a frame was read and its body is not there yet."""
    client.send(record(300))
    words = server._wire.memory[: layout.GRANTS].cast("I")
    words[layout.LEFT_PROD // 4] -= 100
    assert server.receive() is None
    words[layout.LEFT_PROD // 4] += 100


def full(server: Endpoint, client: Endpoint) -> None:
    """Not a byte more fits."""
    for size in (512, 512):
        assert client.send(record(size))


def asleep(server: Endpoint, client: Endpoint) -> None:
    assert server.arm(space=False)
    client.arm(space=True)


MOMENTS: list[Moment] = [idle, pending, half, full, asleep]


def everywhere(offsets: range, values: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Each value at each offset; where that takes too long every so manieth of them, at every offset of a header."""
    return islice(((offset, value) for offset in offsets for value in values), None, None, PACE + 1 if PACE > 1 else 1)


class Bench:
    """Two ends brought to a moment over and over: their memory is put back, not made anew."""

    def __init__(self, shape: Schema) -> None:
        self.shape = shape
        self.wires = one_process_pair(shape.orders)

    def ends(self) -> tuple[Endpoint, Endpoint]:
        memory = self.wires[0].memory
        memory[:] = bytes(len(memory))
        server = Endpoint(self.wires[0], Side.SERVER, self.shape)
        client = Endpoint(self.wires[1], Side.CLIENT, self.shape)
        open_both(server, client)
        return server, client


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
@pytest.mark.parametrize("side", list(Side))
def test_every_byte_of_the_page_scribbled_over(moment: Moment, side: Side) -> None:
    shape = small()
    assert layout.size(shape.orders) == layout.PAGE  # both rings are in the page
    bench = Bench(shape)
    message = record(100) if side is Side.CLIENT else None
    header = everywhere(range(layout.GRANTS), tuple(range(256)))
    rest = everywhere(range(layout.GRANTS, layout.PAGE), (0x00, 0xFF))
    outcomes = set()
    for offset, value in (*header, *rest):
        server, client = bench.ends()
        moment(server, client)
        victim = server if side is Side.SERVER else client
        victim._wire.memory[offset] = value
        outcomes.add(exercise(victim, message))
    if moment is pending and side is Side.SERVER:
        assert {0, 1, 2, 3} <= outcomes  # each frame was broken once, and those before it were delivered


@pytest.mark.parametrize("side", list(Side))
def test_every_byte_of_the_header_of_a_call(side: Side) -> None:
    shape = schema("random")
    bench = Bench(shape)
    for offset, value in everywhere(range(layout.GRANTS), tuple(range(256))):
        server, client = bench.ends()
        assert client.send(RandomRequest(length=9))
        assert server.receive() is not None
        assert server.send(RandomReply(random=b"nine bytes"))
        victim = server if side is Side.SERVER else client
        victim._wire.memory[offset] = value
        exercise(victim, RandomReply(random=b"x") if side is Side.SERVER else RandomRequest(length=1))


SCRIBBLE = st.tuples(
    st.one_of(st.integers(0, layout.GRANTS - 1), st.integers(0, layout.PAGE - 1)), st.binary(min_size=1, max_size=8)
)
STEP = st.one_of(SCRIBBLE, st.sampled_from(["send", "receive", "progress", "other", "close", "arm"]))


@settings(max_examples=max(50, 500 // PACE), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(Side)), st.integers(0, 2**32 - 1), st.lists(STEP, max_size=40))
def test_scribbles_between_any_two_steps(side: Side, first: int, steps: list[Any]) -> None:
    shape = small()
    server, client = ends(shape, first)
    victim, other = (server, client) if side is Side.SERVER else (client, server)
    codec = Codec(shape.forward)
    memory = victim._wire.memory
    for step in steps:
        if isinstance(step, tuple):
            offset, data = step
            data = data[: layout.PAGE - offset]
            memory[offset : offset + len(data)] = data
            continue
        try:
            match step:
                case "send" if side is Side.CLIENT:
                    victim.send(record(77))
                case "receive":
                    message = victim.receive()
                    if message is not None:
                        encoding(message, codec)
                case "progress":
                    victim.progress()
                case "close":
                    victim.close()
                case "arm":
                    victim.arm(space=True)
        except PeerViolation:
            assert not victim.is_open
        if step == "other":
            try:
                other.progress()
                other.receive() if side is Side.CLIENT else other.send(record(300))
            except PeerViolation:
                pass


# what exactly is refused


def frame(server: Endpoint, length: int, serial: int, body: bytes) -> None:
    """Writes a frame where ``server`` will read next, as a client would."""
    memory = server._wire.memory
    data = length.to_bytes(4, "little") + serial.to_bytes(4, "little") + body
    ring = layout.left(server.schema.orders)
    words = memory[: layout.GRANTS].cast("I")
    at = words[layout.LEFT_PROD // 4]
    for i, byte in enumerate(data):
        memory[ring.offset + (at + i) % ring.size] = byte
    words[layout.LEFT_PROD // 4] = at + len(data)


GOOD = b"".join(Codec(schema("records").forward).encode(record(30)))


@pytest.mark.parametrize(
    ("length", "serial", "body", "why"),
    [
        (len(GOOD), 1, GOOD, "frame 1 where 0 is due"),
        (len(GOOD), 2**32 - 1, GOOD, "where 0 is due"),
        (584, 0, bytes(584), "frame of 584 bytes, at most 583"),
        (2**32 - 1, 0, b"", "frame of 4294967295 bytes"),
        (2**31, 0, b"", "frame of 2147483648 bytes"),
        (3, 0, b"\xff\xff\xff", "sent a bad message: event: 0 bytes, not 1 to 64"),
        (0, 0, b"", "event: 0 bytes, not 1 to 64"),
        (len(GOOD) + 2, 0, GOOD + b"\x50\x01", "unknown, repeated or misplaced field at byte 22"),
        (2, 0, b"\x08\x08", "severity: 8, not 0 to 7"),
    ],
)
def test_what_is_wrong_with_a_frame(length: int, serial: int, body: bytes, why: str) -> None:
    server, _ = ends(small())
    frame(server, length, serial, body)
    with pytest.raises(PeerViolation, match=why):
        server.receive()
    assert not server.is_open
    assert server.receive() is None


def test_a_frame_comes_whole_or_not_yet() -> None:
    server, _ = ends(small())
    words = server._wire.memory[: layout.GRANTS].cast("I")
    frame(server, len(GOOD), 0, GOOD)
    end = words[layout.LEFT_PROD // 4]
    for prod in range(end):
        words[layout.LEFT_PROD // 4] = prod
        assert server.receive() is None
        assert server.arm(space=False), "half a frame is nothing to stay awake for"
    words[layout.LEFT_PROD // 4] = end
    assert not server.arm(space=False)
    assert server.receive() == record(30)


def test_a_header_once_read_is_not_read_again() -> None:
    server, _ = ends(small())
    words = server._wire.memory[: layout.GRANTS].cast("I")
    frame(server, len(GOOD), 0, GOOD)
    words[layout.LEFT_PROD // 4] -= 1
    assert server.receive() is None
    ring = layout.left(server.schema.orders)
    server._wire.memory[ring.offset : ring.offset + 8] = b"\xff" * 8
    words[layout.LEFT_PROD // 4] += 1
    assert server.receive() == record(30)


def test_a_stream_consumer_that_talks_back() -> None:
    for look in (Endpoint.progress, Endpoint.receive):
        _, client = ends(small())
        client._wire.memory[layout.RIGHT_PROD] = 1
        with pytest.raises(PeerViolation, match="back ring"):
            look(client)
        assert not client.is_open


def test_what_send_room_and_arm_find_is_raised_by_progress() -> None:
    finds: list[Callable[[Endpoint], bool]] = [
        lambda client: client.send(record(589)),
        Endpoint.room,
        lambda client: client.arm(space=True),
    ]
    for find in finds:
        _, client = ends(small())
        client.send(record(500))
        client._wire.memory[layout.LEFT_CONS + 3] = 0x40
        assert client.is_open
        assert find(client) is False
        assert not client.is_open
        assert client._wire.memory[layout.CLI_LIVE] == layout.CLOSED
        with pytest.raises(PeerViolation, match="cons"):
            client.progress()
        assert client.progress() is None


def test_replies_to_nothing_or_twice() -> None:
    reply = RandomReply(random=b"x")
    for asked, serial in ((0, 0), (1, 1), (1, 2**32 - 1), (2, 2)):
        server, client = ends(schema("random"))
        for _ in range(asked):
            assert client.send(RandomRequest(length=1))
            assert server.receive() is not None
        server._unanswered = serial
        assert server.send(reply)
        with pytest.raises(PeerViolation, match="answers no request"):
            client.receive()
    server, client = ends(schema("random"))
    assert client.send(RandomRequest(length=1))
    assert server.receive() is not None
    for _ in range(2):
        server._unanswered = 0
        assert server.send(reply)
    assert client.receive() == reply
    with pytest.raises(PeerViolation, match="answers no request"):
        client.receive()


# while we read


def _scribbler(wire: Wire, shape: Schema, seed: int, until: float) -> None:
    """A producer that goes on rewriting what it has handed over."""
    dice = random.Random(seed)
    memory = wire.memory
    ring = layout.left(shape.orders)
    words = memory[: layout.GRANTS].cast("I")
    flat = shape.name == "packets"
    while time.monotonic() < until:
        client = Endpoint(wire, Side.CLIENT, shape)
        for _ in range(20_000):
            try:
                client.progress()
            except PeerViolation:
                break
            if client.is_open or time.monotonic() > until:
                break
            os.sched_yield()
        for _ in range(dice.randrange(1, 400)):
            at = words[layout.LEFT_PROD // 4]
            size = dice.randrange(20, 2000 if flat else 589)
            message: Any = Packets(bytes((dice.randrange(256),)) * size, 20) if flat else record(size)
            if not client.send(message):
                break
            # Behind the index: the frame just sent, while it is read. Mostly its payload; else length, serial, tags.
            for _ in range(dice.randrange(6)):
                place = dice.randrange(8 + size) if dice.random() < 0.99 else dice.randrange(14)
                memory[ring.offset + (at + place) % ring.size] = dice.randrange(128)  # mostly still UTF-8
            if dice.random() < 0.004:
                words[dice.choice((layout.LEFT_PROD, layout.RIGHT_PROD)) // 4] = dice.getrandbits(32)
            if dice.random() < 0.002:
                memory[layout.CLI_LIVE] = dice.randrange(256)
        client.close()


@pytest.mark.parametrize("shape", [small(order=12), small("packets", 17)], ids=["records", "packets"])
def test_a_child_that_rewrites_what_is_being_read(shape: Schema) -> None:
    orders: Orders = shape.orders
    server_wire, wire = transport().make_pair(orders)
    until = time.monotonic() + PATIENCE
    child = Child(_scribbler, wire, shape, 5, until)
    server = Endpoint(server_wire, Side.SERVER, shape)
    codec = Codec(shape.forward)
    received = violations = opened = 0
    while (received < RECEIVED or violations < VIOLATIONS) and time.monotonic() < until:
        try:
            opened += server.progress() == "opened"
            message = server.receive()
        except PeerViolation:
            violations += 1
            assert not server.is_open
            memfd.mark_dead(server_wire.memory, Side.CLIENT)  # the monitor's part; the child does not even notice
            continue
        if message is not None:
            received += 1
            before = encoding(message, codec)  # every bound, of what was delivered
            assert isinstance(message, Message | Packets)
            held = bytes(message.packets) if isinstance(message, Packets) else before
            time.sleep(0 if received % 16 else 0.0002)
            assert encoding(message, codec) == before
            assert not isinstance(message, Packets) or held == bytes(message.packets)
        else:
            server.arm(space=False)
            server.disarm()
            os.sched_yield()
    child.kill()
    assert received >= RECEIVED
    assert violations >= VIOLATIONS
    assert opened > VIOLATIONS // 4
