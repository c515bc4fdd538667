"""Who meets whom and when, by a xenstore that is a dictionary and wires that only note what is done to them."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.guest.loop import Turn
from appliance.guest.neighbours import Neighbour, Neighbours
from appliance.vchan.grants import ClientWire, GrantError, Meeting, ServerWire
from appliance.xen.xswire import Event, number


class Store:
    """Fires watches as xenstored does: once when set, then for every change at or below."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.watches: dict[str, str] = {}
        self.events: deque[Event] = deque()
        self.unreadable: set[str] = set()
        self.written: list[tuple[str, str]] = []
        self.reads = 0

    def hear(self) -> bool:
        return False

    def read(self, path: str) -> str | None:
        self.reads += 1
        if path in self.unreadable:
            raise PermissionError
        return self.values.get(path)

    def write(self, path: str, value: str) -> None:
        self.written.append((path, value))

    def put(self, path: str, value: str) -> None:
        self.values[path] = value
        for watched, token in self.watches.items():
            if path == watched or path.startswith(watched + "/"):
                self.events.append(Event(path, token))

    def watch(self, path: str, token: str) -> None:
        self.watches[path] = token
        self.events.append(Event(path, token))

    def unwatch(self, path: str, token: str) -> None:
        assert self.watches.pop(path) == token


class Server(ServerWire):
    def __init__(self) -> None:
        self.is_attached = False
        self.offered: list[int] = []
        self.refuses = False

    def offer(self, domid: int) -> Meeting:
        if self.refuses:
            raise OSError
        self.offered.append(domid)
        self.is_attached = True
        return Meeting(100 + domid, 200 + domid)

    def detach(self) -> None:
        self.is_attached = False


class Client(ClientWire):
    def __init__(self) -> None:
        self.is_attached = False
        self.accepted: list[tuple[int, Meeting]] = []
        self.refuses = False

    def accept(self, domid: int, meeting: Meeting) -> None:
        self.accepted.append((domid, meeting))
        if self.refuses:
            raise GrantError
        self.is_attached = True

    def detach(self) -> None:
        self.is_attached = False


class World:
    def __init__(self) -> None:
        self.store = Store()
        self.server, self.client = Server(), Client()
        self.progressed: list[tuple[str, bool]] = []
        ports: list[Any] = [SimpleNamespace(name="in"), SimpleNamespace(name="out")]
        self.one, self.other = Neighbour(3, ports[0], self.server), Neighbour(5, ports[1], self.client)
        guest: Any = SimpleNamespace(progress=self.progress)
        store: Any = self.store
        self.neighbours = Neighbours(store, guest, [self.one, self.other])
        self.now = 1000.0

    def progress(self, port: Any) -> None:
        wire = {"in": self.server, "out": self.client}[port.name]
        self.progressed.append((port.name, wire.is_attached))

    def turn(self) -> Turn:
        self.now += 1e9  # long past any rest
        outcome = self.neighbours.turn(self.now)
        while outcome is Turn.MORE:
            outcome = self.neighbours.turn(self.now)
        assert self.neighbours.arm()
        return outcome


@pytest.fixture
def world() -> World:
    return World()


def offered(world: World, domid: int, ring_ref: str, port: str) -> None:
    world.store.put(f"/local/domain/{domid}/data/channel/5/event-channel", port)
    world.store.put(f"/local/domain/{domid}/data/channel/5/ring-ref", ring_ref)


def test_a_server_offers_to_each_new_peer_and_says_the_port_first(world: World) -> None:
    world.store.put("septum/channel/3/peer", "")
    world.turn()
    assert world.server.offered == []
    for domid in (7, 9):
        world.store.put("septum/channel/3/peer", str(domid))
        world.turn()
        world.turn()
        assert world.server.offered[-1] == domid
        assert world.store.written == [
            ("data/channel/3/event-channel", str(200 + domid)),
            ("data/channel/3/ring-ref", str(100 + domid)),
        ]
        world.store.written.clear()
        # the component heard of the end of what was before while nothing was attached, and only then of this
        assert [is_attached for name, is_attached in world.progressed if name == "in"][-2:] == [False, True]
    assert world.server.offered == [7, 9]
    world.store.put("septum/channel/3/peer", "")
    world.turn()
    assert not world.server.is_attached


def test_a_client_follows_what_its_server_offers(world: World) -> None:
    world.store.put("septum/channel/5/peer", "4")
    world.turn()
    assert world.client.accepted == []
    assert "/local/domain/4/data/channel/5" in world.store.watches
    world.store.put("/local/domain/4/data/channel/5/event-channel", "31")
    world.turn()
    assert world.client.accepted == []
    world.store.put("/local/domain/4/data/channel/5/ring-ref", "17")
    world.turn()
    world.turn()
    assert world.client.accepted == [(4, Meeting(17, 31))]
    offered(world, 4, "18", "32")
    world.turn()
    assert world.client.accepted[-1] == (4, Meeting(18, 32))
    world.store.put("septum/channel/5/peer", "6")
    world.turn()
    assert not world.client.is_attached
    assert list(world.store.watches) == ["septum", "/local/domain/6/data/channel/5"]
    offered(world, 6, "18", "32")
    world.turn()
    assert world.client.accepted[-1] == (6, Meeting(18, 32))
    offered(world, 6, "", "")
    world.turn()
    assert not world.client.is_attached


def test_what_fails_is_tried_again_and_not_more_often_than_that(world: World) -> None:
    world.server.refuses = world.client.refuses = True
    world.store.put("septum/channel/3/peer", "7")
    world.store.put("septum/channel/5/peer", "4")
    offered(world, 4, "17", "31")
    world.turn()
    assert len(world.client.accepted) == 1
    for _ in range(100):  # a peer that floods is no reason to try
        offered(world, 4, "17", "31")
        world.neighbours.turn(0.0)
    assert len(world.client.accepted) == 1
    world.server.refuses = world.client.refuses = False
    world.turn()
    assert world.client.is_attached
    assert world.server.is_attached


@pytest.mark.parametrize("words", [("17", "18"), ("17", ""), ("", "x")])
def test_a_peer_that_changes_its_word_all_the_time_is_listened_to_ten_times_a_second(
    world: World, words: tuple[str, str]
) -> None:
    world.store.put("septum/channel/5/peer", "4")
    world.turn()
    began, looks = world.now, world.store.reads
    for turn in range(10_000):  # in five seconds
        offered(world, 4, words[turn % 2], "31")
        world.neighbours.turn(began + turn / 2000)
    assert world.store.reads - looks <= 3 * (5 * 10 + 10)
    offered(world, 4, "17", "31")
    world.turn()
    assert world.client.is_attached


@pytest.mark.parametrize("lie", ["x", "-1", "4294967296", "٣", " 5", "5\n", "0", "1e3", "9" * 3000, "0x10"])
def test_a_lie_in_the_xenstore_is_nobody_there(world: World, lie: str) -> None:
    world.store.put("septum/channel/5/peer", "4")
    offered(world, 4, lie, "31")
    world.turn()
    offered(world, 4, "17", lie)
    world.turn()
    assert world.client.accepted == []


@pytest.mark.parametrize("lie", ["32752", "-1", "DOMID_SELF", "4 5"])
def test_no_peer_has_a_reserved_id(world: World, lie: str) -> None:
    world.store.put("septum/channel/3/peer", lie)
    world.turn()
    assert world.server.offered == []


def test_what_is_not_readable_yet_is_not_there(world: World) -> None:
    path = "/local/domain/4/data/channel/5/ring-ref"
    world.store.unreadable.add(path)
    world.store.put("septum/channel/5/peer", "4")
    offered(world, 4, "17", "31")
    world.turn()
    assert world.client.accepted == []
    world.store.unreadable.clear()
    world.store.put(path, "17")
    world.turn()
    assert world.client.is_attached


def test_go(world: World) -> None:
    assert not world.neighbours.is_go()
    world.store.put("septum/go", "1")
    assert world.neighbours.is_go()


def test_numbers() -> None:
    assert number("0") == 0
    assert number("4294967295") == 2**32 - 1
    assert number("17", 16) is number("") is number(None) is None
