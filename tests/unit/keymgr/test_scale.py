"""Ten thousand peers; and how many handshakes a core does in a second of its own time, whatever else runs on it."""

from __future__ import annotations

import time

import pytest

from appliance.guest.secret import Secret
from components.keymgr import events as ev
from components.keymgr.manager import HANDSHAKES_PER_TICK, ORDERS_PER_TICK, RANDOM_PER_CALL, Manager, Side
from components.keymgr.settings import Endpoint, PeerSettings, Settings
from components.keymgr.timers import Timer, Timers
from tests.unit.keymgr.world import LEFT, LEFT_KEY, RIGHT, RIGHT_KEY, START, World, peer

MANY = 10_000
LEAST_RATE = 300  # handshakes a second; the aim is 1000


def ready(settings: Settings, world: World) -> tuple[Manager, list[ev.Event]]:
    """A manager that has told everybody of its peers, and all that it wanted done until then."""
    manager = Manager(settings)
    for name in manager.missing_floors():
        manager.floor_loaded(name, 0, b"", 0.0)
    todo = manager.opened(Side.ENCRYPT, 0.0) + manager.opened(Side.DECRYPT, 0.0)
    while (when := manager.next_tick()) is not None and when <= 0.0:
        step = manager.tick(0.0, START, world.random.randbytes)
        assert len(step) <= ORDERS_PER_TICK + 2 * HANDSHAKES_PER_TICK + 8
        todo += step
    return manager, todo


def many_peers(keepalive: int = 0) -> tuple[PeerSettings, ...]:
    # Any 32 bytes are a public key; making real ones would take longer than the test
    one = peer(RIGHT_KEY)
    endpoint = Endpoint("10.9.9.9", 51820)
    return tuple(
        PeerSettings(n.to_bytes(32, "little"), None, one.allowed_ips, endpoint, keepalive)
        for n in range(100, 100 + MANY)
    )


def test_ten_thousand_peers_start_in_bounded_steps() -> None:
    world = World()
    begun = time.process_time()
    manager, todo = ready(Settings(Secret(LEFT_KEY), many_peers(keepalive=25)), world)
    spent = time.process_time() - begun
    kinds = [type(event) for event in todo]
    assert kinds.count(ev.SendPeer) == kinds.count(ev.ReceivePeer) == MANY
    assert kinds.count(ev.SendHandshake) == MANY == manager.counters()["initiations_sent"]
    assert ev.SendPeer not in kinds[kinds.index(ev.SendHandshake) :]  # first they all know the peers
    assert spent / MANY < 1 / LEAST_RATE, f"{spent:.1f} s"


def test_a_report_or_a_datagram_costs_the_same_with_ten_thousand_peers() -> None:
    world = World()
    manager, _ = ready(Settings(Secret(LEFT_KEY), many_peers()), world)
    report = ev.SendReport(MANY, 0, 0, 0, 0, True)
    begun = time.process_time()
    for n in range(1000):
        manager.send_report(report, 1.0 + n / 1000)
        manager.handshake_datagram(bytes(148), *RIGHT, 1.0, world.random.randbytes)
        manager.next_tick()
    assert time.process_time() - begun < 0.5


def test_random_bytes_are_drawn_within_the_promise() -> None:
    world = World()
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        drawn += count
        return world.random.randbytes(count)

    manager = Manager(Settings(Secret(LEFT_KEY), many_peers(keepalive=25)[:200]))
    for name in manager.missing_floors():
        manager.floor_loaded(name, 0, b"", 0.0)
    manager.opened(Side.ENCRYPT, 0.0)
    manager.opened(Side.DECRYPT, 0.0)
    most = 0
    for _ in range(100):
        drawn = 0
        manager.tick(0.0, START, draw)
        most = max(most, drawn)
    assert 0 < most <= RANDOM_PER_CALL


@pytest.mark.parametrize("role", ["responder", "initiator"])
def test_handshakes_a_second(role: str, record_property: pytest.RecordProperty) -> None:
    """One handshake is all that one side does for it: parse, check, answer or finish, hand out keys, order, log."""
    world = World()
    count = 300
    left, _ = ready(Settings(Secret(LEFT_KEY), (peer(RIGHT_KEY, RIGHT),)), world)
    right, _ = ready(Settings(Secret(RIGHT_KEY), (peer(LEFT_KEY, LEFT),)), world)
    spent = {"initiator": 0.0, "responder": 0.0}

    def timed(who: str, what: object, *arguments: object) -> list[ev.Event]:
        begun = time.process_time()
        todo = what(*arguments)  # type: ignore[operator]
        spent[who] += time.process_time() - begun
        return todo

    def datagram(todo: list[ev.Event]) -> bytes:
        (one,) = [event.datagram for event in todo if isinstance(event, ev.SendHandshake)]
        return one

    for n in range(count):
        now = 1.0 + n
        left._peers[1].begin(now, urgent=True)
        initiation = datagram(timed("initiator", left.tick, now, START + now, world.random.randbytes))
        response = datagram(
            timed("responder", right.handshake_datagram, initiation, *LEFT, now, world.random.randbytes)
        )
        timed("initiator", left.handshake_datagram, response, *RIGHT, now, world.random.randbytes)
        (index,) = [number for number in right._shared.sessions if right._peers[1].keyring.next.index == number]
        timed("responder", right.receive_report, ev.ReceiveReport(1, index, 1, 0, 32, *LEFT), now)
    assert left.counters()["handshakes"] == right.counters()["handshakes"] == count
    rate = count / spent[role]
    record_property("handshakes a second", round(rate))
    print(f"{role}: {rate:.0f} handshakes a second")
    assert rate >= LEAST_RATE


def test_timers_come_in_order_and_once() -> None:
    world = World(seed=3)
    timers, due = Timers(), {}
    for n in range(3000):
        key = (Timer(n % 4), n % 700)
        match world.random.randrange(4):
            case 0:
                timers.stop(key)
                due.pop(key, None)
            case _:
                due[key] = world.random.uniform(0, 100)
                timers.start(key, due[key])
    assert len(timers) == len(due)
    assert timers.next() == min(due.values())
    fired = [(when, key) for when in range(101) for key in timers.due(float(when))]
    assert sorted(key for _, key in fired) == sorted(due)
    assert all(when - 1 < due[key] <= when for when, key in fired)
    assert timers.next() is None and not timers._queued


def test_a_timer_pushed_away_again_and_again_stays_one_entry() -> None:
    timers = Timers()
    key = (Timer.PERSISTENT, 1)
    for n in range(10_000):
        timers.start(key, 25.0 + n)
    assert len(timers._heap) == 1
    assert not list(timers.due(10_023.0))
    assert list(timers.due(10_024.0)) == [key]
