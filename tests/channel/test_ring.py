"""The byte rings against a model, at every alignment; and stores that cannot tear."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.vchan import layout, memfd
from appliance.vchan.layout import Orders
from appliance.vchan.live import State
from appliance.vchan.ring import PeerViolation, SecretVchan, Side, Vchan
from tests.channel.support import Child

ORDERS = Orders(10, 11)


def pair(memory: memoryview, first: int = 0, orders: Orders = ORDERS, kind: type[Vchan] = Vchan) -> tuple[Vchan, Vchan]:
    server, client = kind(memory, Side.SERVER, orders, first), kind(memory, Side.CLIENT, orders, first)
    for _ in range(4):
        server.progress()
        client.progress()
    assert server.state is client.state is State.OPEN
    return server, client


def page(orders: Orders = ORDERS) -> memoryview:
    return memoryview(bytearray(layout.size(orders)))


FIRSTS = st.one_of(st.integers(2**32 - 3000, 2**32 - 1), st.integers(0, 2**32 - 1))
STEPS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 2100)), max_size=60)


@settings(max_examples=300, deadline=None)
@given(FIRSTS, STEPS)
def test_both_rings_are_fifos_of_bytes(first: int, steps: list[tuple[bool, bool, int]]) -> None:
    server, client = pair(page(), first)
    queues = {client: bytearray(), server: bytearray()}
    sizes = {client: 1024, server: 2048}
    written = 0
    for from_client, is_write, count in steps:
        writer, reader = (client, server) if from_client else (server, client)
        queue = queues[writer]
        if is_write:
            assert writer.fits(count) == (len(queue) + count <= sizes[writer])
            if writer.fits(count):
                data = bytes((written + i) & 0xFF for i in range(count))
                cut = count // 3
                writer.write((data[:cut], memoryview(data)[cut : 2 * cut], bytearray(data[2 * cut :])), count)
                queue += data
                written += count
        else:
            assert reader.has(count) == (len(queue) >= count)
            if reader.has(count):
                skip = count // 4
                assert reader.copy(count - skip, skip) == queue[skip:count]
                reader.consume(count)
                del queue[:count]


@given(FIRSTS, st.integers(0, 1024), st.integers(0, 2**32 - 1))
def test_no_index_of_the_peer_is_believed_that_the_ring_cannot_hold(first: int, used: int, index: int) -> None:
    memory = page()
    server, client = pair(memory, first)
    client.write((bytes(used),), used)
    words = memory[: layout.GRANTS].cast("I")
    words[layout.LEFT_PROD // 4] = index
    ready = (index - first) % 2**32
    if ready <= 1024:
        assert server.has(ready)
        assert not server.has(ready + 1)
    else:
        with pytest.raises(PeerViolation, match="prod"):
            server.has(1)
    words[layout.LEFT_CONS // 4] = index
    unread = (first + used - index) % 2**32
    if unread <= 1024:
        assert client.fits(1024 - unread)
        assert not client.fits(1025 - min(unread, used))
    else:
        with pytest.raises(PeerViolation, match="cons"):
            client.fits(1025 - used)


def test_zeroed_indices_of_a_dead_peer_are_no_violation() -> None:
    """The monitor may clear a dead side before a busy survivor has noticed the death."""
    memory = page()
    server, client = pair(memory)
    for _ in range(3):
        client.write((bytes(1000),), 1000)
        assert server.has(1000)
        server.consume(1000)
    memfd.zero_dead(memory, Side.CLIENT)
    assert not server.has(1)
    client = Vchan(memory, Side.CLIENT, ORDERS)
    assert client.progress() is None
    assert not server.has(1)
    assert memory[layout.CLI_LIVE] == layout.CLOSED  # until the survivor has let go
    assert server.progress() == "closed"
    events = [event for _ in range(4) for event in (client.progress(), server.progress())]
    assert events.count("opened") == 2


def test_own_indices_are_never_read_back() -> None:
    memory = page()
    server, client = pair(memory)
    client.write((b"abcd",), 4)
    words = memory[: layout.GRANTS].cast("I")
    words[layout.LEFT_CONS // 4] = 0xDEAD
    assert server.copy(4) == b"abcd"
    server.consume(4)
    assert words[layout.LEFT_CONS // 4] == 4


def test_memory_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        Vchan(page(Orders(12, 10)), Side.SERVER, ORDERS)


@settings(max_examples=200, deadline=None)
@given(FIRSTS, st.lists(st.integers(0, 1024), min_size=1, max_size=20), st.data())
def test_a_secret_ring_holds_what_is_unread_and_no_more(first: int, counts: list[int], data: st.DataObject) -> None:
    memory = page()
    server, client = pair(memory, first, kind=SecretVchan)
    into, back = layout.left(ORDERS), layout.right(ORDERS)
    unread = 0
    for count in counts:
        if client.fits(count):
            client.write((b"\xff" * count,), count)
            unread += count
        taken = data.draw(st.integers(0, unread))
        assert server.copy(taken) == b"\xff" * taken
        server.consume(taken)
        unread -= taken
        assert bytes(memory[into.offset : into.offset + into.size]).count(0xFF) == unread
    server.write((b"\xff" * 2048,), 2048)
    client.close()
    assert server.progress() == "closed"
    assert not any(memory[into.offset : into.offset + into.size])
    assert not any(memory[back.offset : back.offset + back.size])


STRIDE = 0x10101  # moves the three low bytes of an index at once, and by its carries all four
STRIDES = 60_000  # fewer than would wrap: 2**32 is no multiple of the stride


def _advance(memory: memoryview, orders: Orders) -> None:
    """A client that writes as fast as it can."""
    client = Vchan(memory, Side.CLIENT, orders, first=1)
    chunk = bytes(STRIDE)
    count = 0
    while count < STRIDES:
        client.progress()
        if client.state is State.OPEN and client.fits(STRIDE):
            client.write((chunk,), STRIDE)
            count += 1


def test_indices_are_never_seen_torn() -> None:
    """One process moves an index by STRIDE, the other looks: what it sees is always a multiple, and one."""
    orders = Orders(20, 10)
    fds = memfd.create(orders)
    memory = memfd.map_memory(fds.memory_fd, orders)
    words = memory[: layout.GRANTS].cast("I")
    until = time.monotonic() + 60
    child = Child(_advance, memory, orders)
    server = Vchan(memory, Side.SERVER, orders, first=1)
    seen: set[int] = set()
    while len(seen) < 5000 and server._cons < STRIDES * STRIDE and time.monotonic() < until:
        server.progress()
        if server.state is State.OPEN:
            for _ in range(100):
                seen.add(words[layout.LEFT_PROD // 4])
            while server.has(STRIDE):
                server.consume(STRIDE)
    child.kill()
    assert len(seen) > 500
    assert not [index for index in seen if index % STRIDE != 1]
