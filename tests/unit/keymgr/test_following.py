"""The list of peers changes while they talk: who stays does not notice, who goes is gone, who comes is there."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.guest.secret import Secret
from appliance.signed.trust import Trust
from components.keymgr import events as ev
from components.keymgr.manager import ORDERS_PER_TICK, Manager, Side
from components.keymgr.noise import PrivateKey
from components.keymgr.settings import Endpoint, PeerSettings, Prefix, Settings
from tests.unit.keymgr.world import LEFT, LEFT_KEY, RIGHT, RIGHT_KEY, START, Box, World, pair, peer

TRUST = Trust(b"\1" * 32, b"\2" * 32)
THIRD_KEY, THIRD = b"\x33" * 32, (b"\x0a\x00\x00\x03", 51820)
AT_RIGHT, AT_THIRD = peer(RIGHT_KEY, RIGHT), replace(peer(THIRD_KEY, THIRD), allowed_ips=(Prefix(b"\x0a\2\0\0", 16),))


def hub(world: World) -> tuple[Box, Box, Box]:
    """One that is told who its peers are, and two that know it."""
    left = Box(world, LEFT_KEY, LEFT, [], TRUST)
    right = Box(world, RIGHT_KEY, RIGHT, [peer(LEFT_KEY, LEFT)])
    third = Box(world, THIRD_KEY, THIRD, [peer(LEFT_KEY, LEFT)])
    return left, right, third


def talk(world: World, *pairs: tuple[Box, int], every: float = 0.5) -> None:
    for box, number in pairs:
        world.every(every, lambda box=box, number=number: box.send(f"{world.now:.2f}", number))  # type: ignore[misc]


def test_before_it_is_told_there_is_nobody_and_nothing_is_answered() -> None:
    world = World()
    left, right, _ = hub(world)
    right.send("hello")
    world.run(1.0)
    assert left.manager.counters()["refused"] == 1 and not left.times("response")
    assert not left.times("SendOnly"), "what lives on from before is not ended for a config that is late"
    left.follow({1: AT_RIGHT})
    world.run(20.0)
    assert [data for _, data in right.got] == [] and [data for _, data in left.got] == ["hello"]


def test_fifty_changes_of_others_are_not_noticed() -> None:
    world = World()
    left, right, _third = hub(world)
    left.follow({7: AT_RIGHT})
    left.send("first", 7)
    world.run(0.5)
    talk(world, (left, 7), (right, 1), every=0.05)
    world.run(1.0)
    begun = left.times("initiation", "response")
    for n in range(50):
        others = {20 + n % 3: replace(AT_THIRD, keepalive=n), 30 + n: peer(bytes([n + 100]) * 32)}
        session = left.encrypt.sessions[7]
        kept, _ = left.follow({7: replace(AT_RIGHT, name=f"right {n}"), **others})
        assert kept >= 1 and left.encrypt.sessions[7] is session
        world.run(1.0 + n * 0.5)
    assert left.times("initiation", "response")[: len(begun)] == begun
    for box in (left, right):
        assert box.unread == 0
        arrived = [when for when, _ in box.got if when > 0.5]
        assert max(b - a for a, b in itertools.pairwise(arrived)) < 0.2
    assert [e.peer for _, name, e in left.diary if name == "SendPeer"].count(7) == 1, "its own orders came once"
    assert "report-refused" not in left.counts()


def test_who_is_removed_is_forgotten_at_once_and_can_come_back() -> None:
    world = World()
    left, right, third = hub(world)
    left.follow({1: AT_RIGHT, 2: AT_THIRD})
    talk(world, (left, 1), (left, 2))
    world.run(1.0)
    talk(world, (right, 1), (third, 1))
    world.run(5.0)
    assert left.manager.counters()["sessions"] == 2
    assert left.follow({2: AT_THIRD}) == (1, 1)
    assert set(left.encrypt.known) == set(left.decrypt.known) == set(left.encrypt.sessions) == {2}
    assert {session.peer for session in left.decrypt.sessions.values()} == {2}
    assert not [key for key in left.manager._shared.timers._due if key[1] == 1]
    world.run(5.1)
    got, unread = len(right.got), left.unread
    world.run(40.0)
    assert len(right.got) == got and left.unread > unread
    assert left.manager.counters()["refused"] >= 1  # it calls in vain
    assert "report-refused" not in left.counts()
    left.follow({1: AT_RIGHT, 2: AT_THIRD})
    world.run(60.0)
    assert len(right.got) > got + 10


def test_a_number_that_goes_to_another_key_takes_nothing_along() -> None:
    world = World()
    left, right, third = hub(world)
    left.follow({1: AT_RIGHT})
    left.send("for right")
    world.run(1.0)
    left.follow({1: AT_THIRD})
    assert not left.encrypt.sessions and not left.decrypt.sessions
    left.send("for third")
    world.run(2.0)
    assert [data for _, data in right.got] == ["for right"] and [data for _, data in third.got] == ["for third"]
    left.follow({1: AT_RIGHT, 2: AT_THIRD})  # and back again, with the other under another number
    left.send("for right again", 1)
    left.send("for third again", 2)
    world.run(20.0)
    assert [data for _, data in right.got][1:] == ["for right again"]
    assert [data for _, data in third.got][1:] == ["for third again"]


def test_a_reborn_manager_with_another_list_ends_what_the_crypto_domains_kept() -> None:
    """It died in the midst of a commit: encrypt and decrypt live on with the peers of the list before."""
    world = World()
    left, _right, _third = hub(world)
    left.follow({1: AT_RIGHT, 2: AT_THIRD})
    talk(world, (left, 1), (left, 2))
    world.run(5.0)
    session = left.encrypt.sessions[2]
    left.boot()
    world.run(10.0)
    assert left.encrypt.sessions[2] is session, "nobody told it yet: what was allowed goes on"
    left.follow({2: AT_THIRD})
    assert set(left.encrypt.sessions) == {2} and left.encrypt.sessions[2] is session
    assert {one.peer for one in left.decrypt.sessions.values()} == {2}
    left.boot()
    left.follow({2: AT_RIGHT})
    assert not left.encrypt.sessions and not left.decrypt.sessions, "the same number, another peer"


def test_allowed_ips_change_without_a_handshake_and_the_smaller_is_told_first() -> None:
    world = World()
    left, _right, _third = hub(world)
    left.follow({1: AT_RIGHT, 2: AT_THIRD})
    talk(world, (left, 1), (left, 2))
    world.run(5.0)
    left.diary.clear()
    both = AT_RIGHT.allowed_ips + AT_THIRD.allowed_ips
    assert left.follow({1: replace(AT_RIGHT, allowed_ips=both), 2: replace(AT_THIRD, allowed_ips=())}) == (2, 0)
    told = [event for _, name, event in left.diary if name in ("SendPeer", "ReceivePeer", "SendOnly", "ReceiveOnly")]
    assert [(type(event), event.peer, event.allowed_ips) for event in told if isinstance(event, ev.SendPeer)] == [
        (ev.SendPeer, 2, ()),
        (ev.SendPeer, 1, both),
    ]
    assert len(told) == 4
    world.run(20.0)
    assert not left.times("initiation", "response")


def test_an_endpoint_is_where_it_is_told_or_heard_last() -> None:
    world = World()
    left, right, _ = hub(world)
    left.follow({1: AT_RIGHT})
    left.send("hello")
    world.run(1.0)
    elsewhere = (b"\x0a\0\0\x09", 9)
    right.move(elsewhere)
    left.follow({1: replace(AT_RIGHT, endpoint=Endpoint("10.0.0.9", 9))})
    left.send("there")
    world.run(2.0)
    assert [data for _, data in right.got] == ["hello", "there"]
    right.move(RIGHT)
    right.send("back")
    world.run(3.0)
    left.follow({1: replace(AT_RIGHT, endpoint=None, keepalive=20)})
    left.follow({1: replace(AT_RIGHT, endpoint=None)})
    assert left.manager._peers[1].endpoint == RIGHT
    left.send("still there")
    world.run(4.0)
    assert [data for _, data in right.got][-1] == "still there"
    assert len(left.times("initiation", "response")) == 1


def test_an_attempt_at_the_wrong_place_goes_on_at_the_right_one_at_once() -> None:
    world = World()
    left, right, _ = hub(world)
    left.follow({1: replace(AT_RIGHT, endpoint=Endpoint("10.0.0.77", 7))})
    left.send("hello")
    world.run(1.0)
    assert not right.got
    left.follow({1: AT_RIGHT})
    world.run(1.2)
    assert [data for _, data in right.got] == ["hello"]


def test_a_keepalive_begins_and_ends_with_its_setting() -> None:
    world = World()
    left, _right, _ = hub(world)
    left.follow({1: AT_RIGHT})
    world.run(10.0)
    assert not left.times("initiation")
    left.follow({1: replace(AT_RIGHT, keepalive=5)})
    world.run(40.0)
    assert left.times("initiation") == [10.0] and len(left.times("keepalive")) >= 5
    left.follow({1: replace(AT_RIGHT, keepalive=20)})
    left.diary.clear()
    world.run(101.0)
    assert 2 <= len(left.times("keepalive")) <= 3
    left.follow({1: AT_RIGHT})
    left.diary.clear()
    world.run(400.0)
    assert not left.times("keepalive", "initiation")


def test_a_preshared_key_counts_from_the_next_handshake_on() -> None:
    world = World()
    left, right = pair(world, psk=b"\5" * 32)
    left.send("with the old one")
    world.run(1.0)
    assert left.follow({1: peer(RIGHT_KEY, RIGHT, psk=b"\6" * 32)}) == (1, 0)
    left.send("the session lives on")
    world.run(2.0)
    assert len(right.got) == 2
    world.at(10.0, lambda: left.kill(Side.ENCRYPT))
    world.run(11.0)
    left.send("in vain")
    world.run(17.0)
    assert len(right.got) == 2 and right.manager.counters()["handshakes"] == 1
    right.follow({1: peer(LEFT_KEY, LEFT, psk=b"\6" * 32)})
    world.run(30.0)
    assert [data for _, data in right.got][2:] == ["in vain"]


def test_a_handshake_under_way_is_begun_anew_with_another_preshared_key() -> None:
    world = World()
    left, right = pair(world, psk=b"\5" * 32, right_psk=b"\6" * 32)
    left.send("hello")
    world.run(0.005)
    left.follow({1: peer(RIGHT_KEY, RIGHT, psk=b"\6" * 32)})
    world.run(0.2)  # the one before is answered in vain, and comes too close to the next one for that to be answered
    world.run(6.0)
    assert [data for _, data in right.got] == ["hello"]


def test_what_was_recorded_is_a_replay_even_after_its_sender_was_gone_for_a_while() -> None:
    world = World()
    left, right, _ = hub(world)
    left.follow({1: AT_RIGHT})
    right.send("hello")
    world.run(1.0)
    (recorded,) = [datagram for _, name, datagram in right.diary if name == "initiation"]
    left.follow({})
    world.run(5.0)
    for reborn in (False, True):
        if reborn:
            left.boot()
        left.follow({9: AT_RIGHT})
        left.arrive(recorded, *RIGHT)
        world.run(world.now + 1.0)
        assert len(left.times("response")) == 1 and "replay" in left.diary[-1][2]


def test_what_is_shown_of_who_is_gone_is_hidden() -> None:
    world = World()
    left, _right, _ = hub(world)
    left.follow({3: AT_RIGHT})
    left.send("hello", 3)
    world.run(1.0)
    assert left.shown.peer == 3 and [state.peer for _, state in left.manager.states(0, 9)] == [3]
    left.follow({})
    assert [number for _, name, number in left.diary if name == "hidden"] == [3]
    assert left.manager.states(0, 9) == [] and left.manager.counters()["peers"] == 0


def test_states_come_in_pages() -> None:
    manager = Manager(Settings(Secret(LEFT_KEY), (), TRUST))
    made = {n: PeerSettings(n.to_bytes(32, "big"), None, (), None, 0) for n in range(3, 900, 3)}
    manager.follow(made, 0.0)
    found: list[int] = []
    while page := manager.states(found[-1] + 1 if found else 0, 100):
        assert len(page) <= 100 and all(made[state.peer].public_key == public for public, state in page)
        found += [state.peer for _, state in page]
    assert found == sorted(made)


def test_many_are_told_of_in_bounded_steps_and_a_change_meanwhile_is_not_lost() -> None:
    world = World()
    manager = Manager(Settings(Secret(LEFT_KEY), (), TRUST))
    for name in manager.missing_floors():
        manager.floor_loaded(name, 0, b"", 0.0)
    manager.opened(Side.ENCRYPT, 0.0)
    manager.opened(Side.DECRYPT, 0.0)
    many = {
        n: PeerSettings(n.to_bytes(32, "big"), None, (Prefix(n.to_bytes(4, "big"), 32),), None, 0)
        for n in range(1, 3000)
    }
    todo = manager.follow(many, 0.0).todo
    assert len(todo) <= ORDERS_PER_TICK + 3
    del many[1], many[2999]
    many[2] = replace(many[2], allowed_ips=())
    followed = manager.follow(many, 0.0)
    step = followed.todo
    while step:
        assert len(step) <= ORDERS_PER_TICK + 8
        todo += step
        step = manager.tick(0.0, START, world.random.randbytes) if manager.next_tick() is not None else []
    known: dict[type, dict[int, Any]] = {ev.SendPeer: {}, ev.ReceivePeer: {}}
    for event in todo:
        if isinstance(event, ev.SendPeer | ev.ReceivePeer):
            known[type(event)][event.peer] = event.allowed_ips
        elif isinstance(event, ev.SendOnly | ev.ReceiveOnly):
            mine = known[ev.SendPeer if isinstance(event, ev.SendOnly) else ev.ReceivePeer]
            for number in [n for n in mine if n >> 3 >= len(event.peers) or not event.peers[n >> 3] >> (n & 7) & 1]:
                del mine[number]
    expected = {n: one.allowed_ips for n, one in many.items()}
    assert known == {ev.SendPeer: expected, ev.ReceivePeer: expected} and manager.is_ready()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.integers(1, 4), st.integers(0, 2), max_size=3).filter(
                lambda one: len(set(one.values())) == len(one)
            ),
            st.sampled_from(["", "", "encrypt", "decrypt", "keymgr"]),
            st.floats(0.0, 7.0),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_changes_and_dies_the_crypto_domains_know_the_last_list_and_no_key_is_used_twice(
    steps: list[tuple[Mapping[int, int], str, float]],
) -> None:
    """The world watches over keys and nonces; packets of a peer never reach another one."""
    world = World(seed=5, loss=0.05)
    keys = [(RIGHT_KEY, RIGHT), (THIRD_KEY, THIRD), (b"\x44" * 32, (b"\x0a\0\0\4", 4))]
    left = Box(world, LEFT_KEY, LEFT, [], TRUST)
    others = [Box(world, key, place, [peer(LEFT_KEY, LEFT)]) for key, place in keys]
    for numbers, dies, pause in steps:
        if dies == "keymgr":
            left.boot()
        elif dies:
            left.kill(Side(dies))
        left.follow({number: peer(*keys[one]) for number, one in numbers.items()})
        for number, one in numbers.items():
            left.send(f"for {one}", number)
            others[one].send("for left")
        world.run(world.now + pause)
    numbers = steps[-1][0]
    world.run(world.now + 1.0)
    public = {number: PrivateKey(keys[one][0]).public for number, one in numbers.items()}
    assert left.encrypt.known == left.decrypt.known == public
    assert set(left.encrypt.sessions) <= set(numbers)
    assert {session.peer for session in left.decrypt.sessions.values()} <= set(numbers)
    for one, box in enumerate(others):
        assert {data for _, data in box.got} <= {f"for {one}"}
    world.loss = 0.0
    for number, one in numbers.items():
        left.send(f"for {one}", number)
    world.run(world.now + 120.0)
    assert set(left.encrypt.sessions) == set(numbers)


def test_a_trust_and_peers_do_not_go_together() -> None:
    from appliance.guest.settings import SettingsError
    from components.keymgr.settings import parse

    table = {"private_key": base64.b64encode(LEFT_KEY).decode(), "trust": {"box": "ab" * 32, "console": "cd" * 32}}
    assert parse("keymgr", table).trust == Trust(b"\xab" * 32, b"\xcd" * 32)
    with pytest.raises(SettingsError, match="peers: must not be there beside trust"):
        parse("keymgr", {**table, "peers": [{"public_key": base64.b64encode(RIGHT_KEY).decode()}]})
    with pytest.raises(SettingsError, match=r"trust\.console: must be 32 bytes in hexadecimal"):
        parse("keymgr", {**table, "trust": {"box": "ab" * 32, "console": "CD" * 32}})
    with pytest.raises(SettingsError, match=r"trust\.console: is missing"):
        parse("keymgr", {**table, "trust": {"box": "ab" * 32}})
