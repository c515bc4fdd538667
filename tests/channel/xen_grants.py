"""What is the Xen transport's own: runs inside Xen only, in dom0, which lends to itself (tests/xen/suite.py).

A peer here is hostile with all that Xen leaves it: what it writes into the pages, which references and ports it names,
when it takes pages back, closes its port or dies. Whatever it does, nothing hangs, nothing dies, and what was mapped
stays memory.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from appliance.vchan import layout
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.grants import ClientWire, GrantError, Meeting, ServerWire
from appliance.vchan.layout import Orders
from appliance.vchan.ring import PeerViolation, Side
from appliance.xen import gntalloc, gntdev
from appliance.xen.window import Window
from tests.channel.conformance import numbered, opened
from tests.channel.support import Child, open_both, small, wait

SELF = 0
SHAPE = small(order=12)
SECONDS = 30.0


class Two:
    """A server's and a client's wire, and what they share with others: the devices."""

    def __init__(self, orders: Orders = SHAPE.orders) -> None:
        self.lending, self.borrowing = gntalloc.open_device(), gntdev.open_device()
        self.server, self.client = ServerWire(self.lending, orders), ClientWire(self.borrowing, orders)

    def meet(self) -> None:
        self.client.accept(SELF, self.server.offer(SELF))

    def ends(self) -> tuple[Endpoint, Endpoint]:
        server, client = Endpoint(self.server, Side.SERVER, SHAPE), Endpoint(self.client, Side.CLIENT, SHAPE)
        for end in (server, client):
            end.progress()
        self.meet()
        open_both(server, client)
        return server, client


@pytest.fixture
def two() -> Iterator[Two]:
    made = Two()
    yield made
    for wire in (made.client, made.server):
        wire.detach()
        wire.close()
    os.close(made.borrowing)
    os.close(made.lending)


def until(condition: Callable[[], object]) -> None:
    over = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < over
        time.sleep(0.01)


def readable(wire: Any) -> bool:
    return bool(select.select([wire.fileno()], [], [], 0)[0])


# between two meetings


def test_a_wire_that_is_not_attached_is_a_peer_that_is_not_there(two: Two) -> None:
    for wire, side in ((two.server, Side.SERVER), (two.client, Side.CLIENT)):
        assert not any(wire.memory)
        wire.notify()
        wire.hear()
        end = Endpoint(wire, side, SHAPE)
        assert end.progress() is None
        assert not end.is_open


@pytest.mark.parametrize("first", list(Side))
def test_each_meeting_has_pages_of_its_own(two: Two, first: Side) -> None:
    server, client = two.ends()
    assert client.send(numbered(0, 100))
    memory = server._wire.memory
    for wire in (two.server, two.client) if first is Side.SERVER else (two.client, two.server):
        wire.detach()
    assert not any(memory)
    assert [server.progress(), client.progress()] == ["closed", "closed"]
    two.meet()
    assert server._wire.memory is memory
    open_both(server, client)
    assert server.receive() is None
    assert client.send(numbered(1, 100))
    assert server.receive() == numbered(1, 100)


def test_hundreds_of_meetings_leak_nothing() -> None:
    """More pages in all than the kernel lends at a time, more ports than a domain has at first."""
    two = Two(Orders(17, 12))
    for _ in range(300):
        two.meet()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        two.meet()
        two.client.detach()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    two.server.detach()


# pages taken back


def test_pages_taken_back_stay_readable_until_they_are_let_go(two: Two) -> None:
    _server, client = two.ends()
    two.server.memory[4000] = 0x5A
    two.server.detach()
    assert two.client.memory[4000] == 0x5A
    assert two.client.memory[layout.SRV_LIVE] == layout.CLOSED  # the kernel's doing
    assert readable(two.client)
    assert client.progress() == "closed"
    assert not client.send(numbered(0, 100))
    two.client.detach()
    assert two.client.memory[4000] == 0


def test_what_was_taken_back_cannot_be_mapped_again(two: Two) -> None:
    meeting = two.server.offer(SELF)
    two.client.accept(SELF, meeting)
    two.client.detach()
    two.server.detach()
    with pytest.raises(GrantError):
        two.client.accept(SELF, meeting)
    assert not any(two.client.memory)


def _can_be_mapped(fd: int, window: Window, reference: int) -> bool:
    borrowed = gntdev.borrow(fd, SELF, [reference])
    try:
        window.show(fd, borrowed.offset)
    except OSError:
        return False
    finally:
        window.blank()
        gntdev.give_back(fd, borrowed)
    return True


def test_what_was_taken_back_under_its_hands_cannot_be_mapped_for_long_once_it_let_go(two: Two) -> None:
    """Linux cannot end a grant that is mapped. It tries again once a second, as many as free_per_iteration says."""
    old: list[int] = []
    clients = [ClientWire(two.borrowing, SHAPE.orders) for _ in range(100)]
    for client in clients:
        client.accept(SELF, two.server.offer(SELF))  # the offer takes back what the client before has mapped
        assert two.server._lent is not None
        old += two.server._lent.references
    two.server.detach()
    assert len(set(old)) == len(old) >= 200
    for client in clients:
        client.detach()
        client.close()
    window = Window(layout.PAGE)
    began = time.monotonic()
    until(lambda: not any(_can_be_mapped(two.borrowing, window, reference) for reference in old))
    assert time.monotonic() - began < len(old) / 20  # ten a second, as Linux has it by itself, takes twice as long


def test_a_client_that_never_lets_go_costs_pages_and_nothing_else(two: Two) -> None:
    keeper = ClientWire(two.borrowing, SHAPE.orders)
    keeper.accept(SELF, two.server.offer(SELF))
    keeper.memory[4000] = 0x77
    for _ in range(5):
        two.meet()
        assert two.server.memory[4000] == 0  # not the page that the other still has
    assert keeper.memory[4000] == 0x77
    keeper.detach()
    keeper.close()


# lies


@pytest.mark.parametrize("lie", [0, 1, 7, 4000, 2**31, 2**32 - 1])
@pytest.mark.parametrize("field", ["ring_ref", "port"])
def test_a_lie_about_the_meeting(two: Two, field: str, lie: int) -> None:
    meeting = two.server.offer(SELF)
    with pytest.raises(GrantError):
        two.client.accept(SELF, meeting._replace(**{field: lie}))
    assert not two.client.is_attached
    assert not any(two.client.memory)
    two.meet()
    assert two.client.is_attached


def test_another_domain_grants_nothing(two: Two) -> None:
    with pytest.raises(GrantError):
        two.client.accept(31000, two.server.offer(SELF))


@pytest.mark.parametrize("orders", [(9, 12), (12, 13), (13, 12), (255, 12), (0, 0), (65535, 65535)])
def test_a_lie_about_the_orders(two: Two, orders: tuple[int, int]) -> None:
    meeting = two.server.offer(SELF)
    struct.pack_into("=HH", two.server.memory, layout.LEFT_ORDER, *orders)
    with pytest.raises(GrantError, match="orders"):
        two.client.accept(SELF, meeting)
    assert not any(two.client.memory)


@pytest.mark.parametrize("lie", [0, 1, None, 2**32 - 1], ids=str)
def test_a_lie_about_a_page(two: Two, lie: int | None) -> None:
    lent = gntalloc.lend(two.lending, SELF, 1)
    gntalloc.take_back(two.lending, lent)
    gone = lent.references[0]
    meeting = two.server.offer(SELF)
    if lie is None:
        lie = gone
        if two.server._lent is not None and gone in two.server._lent.references:
            lie = two.server._lent.references[-1] + 100_000
    struct.pack_into("=I", two.server.memory, layout.GRANTS, lie)
    with pytest.raises(GrantError):
        two.client.accept(SELF, meeting)
    assert not two.client.is_attached
    assert not any(two.client.memory)
    two.client.memory[-1] = 1  # there is memory still
    two.meet()


def test_what_the_header_says_later_is_not_looked_at(two: Two) -> None:
    server, client = two.ends()
    struct.pack_into("=HHI", two.server.memory, layout.LEFT_ORDER, 20, 20, 0x01010101)
    two.server.memory[layout.GRANTS : layout.GRANTS + 8] = b"\xff" * 8
    assert client.send(numbered(0, 300))
    assert server.receive() == numbered(0, 300)


def test_one_page_granted_twice_is_only_strange(two: Two) -> None:
    orders = SHAPE.orders
    pages = layout.size(orders) // layout.PAGE
    meeting = two.server.offer(SELF)
    struct.pack_into(f"={pages - 1}I", two.server.memory, layout.GRANTS, *[meeting.ring_ref] * (pages - 1))
    try:
        two.client.accept(SELF, meeting)
    except GrantError:
        return
    client = Endpoint(two.client, Side.CLIENT, SHAPE)
    for _ in range(20):
        try:
            client.progress()
            client.send(numbered(0, 300))
            client.flush()
            client.arm(space=True)
            client.disarm()
        except PeerViolation:
            break


# event channels


def test_a_peer_without_a_port_is_not_heard_and_blocks_nobody(two: Two) -> None:
    server, client = two.ends()
    two.client._event.unbind()
    for _ in range(1000):
        two.server.notify()
    assert client.send(numbered(0, 100))
    client.flush()
    assert server.receive() == numbered(0, 100)
    assert not readable(two.client)
    two.client.notify()
    two.client.hear()


def test_a_flood_of_events_is_one_or_two(two: Two) -> None:
    two.ends()
    for _ in range(5000):
        two.server.notify()
    heard = 0
    while readable(two.client):
        two.client.hear()
        heard += 1
        assert heard < 4


def test_a_peer_that_sleeps_is_woken_once_for_all_that_is_written_until_it_is_awake(two: Two) -> None:
    server, client = two.ends()
    for _ in range(3):
        for wire in (two.server, two.client):
            while readable(wire):  # of the opening
                wire.hear()
        assert server.arm(space=False)
        for number in range(5):
            assert client.send(numbered(number, 100))
            client.flush()
        assert readable(two.server)
        assert server.disarm()
        assert not readable(two.server)  # a second one would have been kept for us until we heard the first
        assert [server.receive() for _ in range(6)] == [*(numbered(number, 100) for number in range(5)), None]


# death


def _be_client(meeting: Meeting) -> None:
    wire = ClientWire(gntdev.open_device(), SHAPE.orders)
    client = Endpoint(wire, Side.CLIENT, SHAPE)
    client.progress()
    wire.accept(SELF, meeting)
    opened(client)
    number = 0
    while True:
        while not client.send(numbered(number, 18 + number % 570)):
            client.flush()
            wait(client, space=True)
            client.progress()
        number += 1
        client.flush()


def test_a_client_is_killed_again_and_again(two: Two) -> None:
    """Its kernel tells: 0 in its live byte, and an event. Each life is heard from its first message on."""
    server = Endpoint(two.server, Side.SERVER, SHAPE)
    server.progress()
    for _ in range(6):
        meeting = two.server.offer(SELF)
        server.progress()
        child = Child(_be_client, meeting)
        opened(server)
        expected = 0
        while expected < 20:
            message = server.receive()
            if message is None:
                server.flush()
                assert not wait(server)
                continue
            assert message == numbered(expected, 18 + expected % 570)
            expected += 1
        child.kill()
        over = time.monotonic() + SECONDS
        while server.progress() != "closed":
            assert time.monotonic() < over
            server.receive()
            server.flush()
            wait(server)
        two.server.detach()
        server.progress()


def _be_server(pipe: int) -> None:
    wire = ServerWire(gntalloc.open_device(), SHAPE.orders)
    server = Endpoint(wire, Side.SERVER, SHAPE)
    server.progress()
    meeting = wire.offer(SELF)
    server.progress()
    os.write(pipe, struct.pack("=II", *meeting))
    opened(server)
    while True:
        while server.receive() is not None:
            server.flush()
        server.flush()
        wait(server)
        server.progress()


def test_a_server_is_killed_again_and_again(two: Two) -> None:
    client = Endpoint(two.client, Side.CLIENT, SHAPE)
    client.progress()
    for _ in range(6):
        reading, writing = os.pipe()
        child = Child(_be_server, writing)
        two.client.accept(SELF, Meeting(*struct.unpack("=II", os.read(reading, 8))))
        opened(client)
        sent = 0
        while sent < 40:
            if client.send(numbered(sent, 300)):
                sent += 1
            else:
                client.flush()
                assert not wait(client, space=True)
        child.kill()
        until(lambda: two.client.memory[layout.SRV_LIVE] == layout.CLOSED)
        assert client.progress() == "closed"
        assert not client.send(numbered(0, 50))
        two.client.detach()
        os.close(reading)
        os.close(writing)
