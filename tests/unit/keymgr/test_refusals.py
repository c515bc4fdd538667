"""What the manager refuses, and that a refusal changes nothing: bit flips, replays, floods, strangers, bad reports."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.guest.secret import Secret
from appliance.guest.settings import SettingsError
from appliance.guest.status import ROW_SIZE, PeerRow, write_row
from components.keymgr import events as ev
from components.keymgr.constants import LABEL_COOKIE, MACS
from components.keymgr.cookie import mac
from components.keymgr.manager import Manager, Side
from components.keymgr.messages import CookieReply, Initiation, pack_cookie_reply, parse
from components.keymgr.noise import PrivateKey, hash_
from components.keymgr.settings import Endpoint, Settings
from tests.unit.keymgr.world import LEFT, LEFT_KEY, RIGHT, RIGHT_KEY, Box, World, pair, peer

STRANGER = (b"\xc0\x00\x02\x01", 9)


def state_of(manager: Manager) -> Any:
    """Everything that a refusal must leave as it was: all but counters and the allowance of log lines."""
    shared = manager._shared
    return (
        {
            index: (session.peer, session.sends, session.sent, session.received)
            for index, session in shared.sessions.items()
        },
        dict(shared.pending),
        dict(shared.timers._due),
        {public: (record.received, record.sent) for public, record in shared.floor._records.items()},
        dict(shared.floor._dirty),
        [
            (
                peer.keyring.previous,
                peer.keyring.current,
                peer.keyring.next,
                peer.endpoint,
                peer.owed,
                peer._pending,
                peer._pending and bytes(peer._pending._state.chain),
                peer._trying_since,
                peer._last_sent_handshake,
                peer._last_initiation,
                peer._last_received,
                peer._jar._cookie,
                peer._jar._sent_mac1,
            )
            for peer in manager._peers.values()
        ],
    )


def refused(box: Box, datagram: bytes, source: tuple[bytes, int] = STRANGER) -> str:
    """Offers ``datagram``, checks that it changes nothing but a counter, and returns the log line."""
    manager = box.manager
    before, count = state_of(manager), manager.counters()["refused"]
    todo = manager.handshake_datagram(datagram, *source, box.world.now, box.world.random.randbytes)
    assert state_of(manager) == before
    assert manager.counters()["refused"] == count + 1
    lines = [event for event in todo if isinstance(event, ev.Log)]
    assert lines == todo
    assert all(line.event == "handshake-refused" for line in lines)
    return lines[0].text if lines else ""


def last(box: Box, what: str) -> bytes:
    datagram = [about for _, event, about in box.diary if event == what][-1]
    assert isinstance(datagram, bytes)
    return datagram


def half_way(psk: bytes | None = None) -> tuple[Box, Box]:
    """Left sent an initiation that is still under way."""
    world = World(delay=(1.0, 1.0))
    left, right = pair(world, psk=psk)
    world.run(0.5)
    left.send("hello")
    world.run(0.5)
    return left, right


@settings(max_examples=300, deadline=None)
@given(st.integers(0, (148 - 16) * 8 - 1))
def test_a_flipped_bit_in_an_initiation(bit: int) -> None:
    """All but mac2, which only the doorman can check: it has the cookie secret."""
    left, right = half_way()
    datagram = bytearray(last(left, "initiation"))
    datagram[bit // 8] ^= 1 << bit % 8
    refused(right, bytes(datagram))
    left.world.run(5.0)
    assert [data for _, data in right.got] == ["hello"]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, (92 - 16) * 8 - 1))
def test_a_flipped_bit_in_a_response(bit: int) -> None:
    left, right = half_way()
    left.world.run(1.6)
    datagram = bytearray(last(right, "response"))
    datagram[bit // 8] ^= 1 << bit % 8
    refused(left, bytes(datagram))
    left.world.run(5.0)
    assert [data for _, data in right.got] == ["hello"]


def resign(box: Box, datagram: bytes | bytearray) -> bytes:
    """``datagram`` with a right mac1, which anyone who knows the public key can make."""
    body = bytes(datagram[:-MACS])
    return body + mac(box.manager._mac1_key, body) + bytes(16)


@settings(max_examples=200, deadline=None)
@given(st.integers(8 * 8, (148 - 32) * 8 - 1))
def test_a_flipped_bit_under_a_right_mac1(bit: int) -> None:
    left, right = half_way()
    datagram = bytearray(last(left, "initiation"))
    datagram[bit // 8] ^= 1 << bit % 8
    refused(right, resign(right, datagram))
    left.world.run(1.6)
    datagram = bytearray(last(right, "response"))
    if bit < (92 - 32) * 8:
        datagram[bit // 8] ^= 1 << bit % 8
        refused(left, resign(left, datagram))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.integers(1, 4).flatmap(
            lambda kind: st.sampled_from([64, 92, 148]).flatmap(
                lambda size: st.binary(min_size=size - 4, max_size=size - 4).map(
                    lambda rest: bytes([kind, 0, 0, 0]) + rest
                )
            )
        ),
    )
)
def test_noise_is_refused(datagram: bytes) -> None:
    left, right = half_way()
    refused(left, datagram)
    refused(right, datagram)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 63, 65, 91, 93, 147, 149])
def test_sizes_are_exact(size: int) -> None:
    left, right = half_way()
    datagram = (last(left, "initiation") + bytes(10))[:size]
    for kind in (1, 2, 3, 4):
        refused(right, (bytes([kind, 0, 0, 0]) + datagram[4:])[:size])


def test_reserved_bytes_are_zero() -> None:
    left, right = half_way()
    for position in (1, 2, 3):
        datagram = bytearray(last(left, "initiation"))
        datagram[position] = 1
        assert "no handshake message" in refused(right, resign(right, datagram))


def test_a_replayed_initiation() -> None:
    left, right = half_way()
    left.world.run(3.0)
    assert "replay" in refused(right, last(left, "initiation"))
    assert "replay" in refused(right, last(left, "initiation"), LEFT)


def test_an_older_initiation_that_was_late() -> None:
    left, right = half_way()
    early = last(left, "initiation")
    left.world.drop = lambda packet: packet == early
    left.world.run(10.0)  # RETRY sends another one
    assert right.got
    assert "replay" in refused(right, early, LEFT)


def test_a_replayed_response() -> None:
    left, right = half_way()
    left.world.run(3.0)
    assert "no initiation of ours" in refused(left, last(right, "response"), RIGHT)


def test_initiations_of_one_peer_are_spaced() -> None:
    world = World(delay=(0.0, 0.0))
    left, right = pair(world)
    world.run(1.0)
    for gap, accepted in ((0.0, 1), (0.015, 1), (0.006, 2)):
        world.run(world.now + gap)
        left.manager._peers[1].begin(world.now, urgent=True)
        left._tick()
        world.run(world.now)
        assert right.manager.counters()["initiations_received"] == accepted
    assert any("too closely" in about for _, event, about in right.diary if event == "handshake-refused")


def test_a_peer_that_is_not_in_the_settings() -> None:
    world = World()
    _, right = pair(world)
    stranger = Box(world, b"\x33" * 32, STRANGER, [peer(RIGHT_KEY, RIGHT)])
    stranger.send("let me in")
    world.run(0.0)
    assert "not in the settings" in refused(right, last(stranger, "initiation"))
    world.run(3.0)
    assert not right.got and not right.times("response")


def test_an_initiation_for_somebody_else() -> None:
    world = World()
    left, right = pair(world)
    other = Box(world, b"\x33" * 32, STRANGER, [peer(LEFT_KEY)])
    left.send("hello")
    world.run(0.0)
    assert "mac1" in refused(other, last(left, "initiation"))
    refused(other, resign(other, last(left, "initiation")))
    assert right.manager.counters()["refused"] == 0


def test_a_wrong_preshared_key() -> None:
    world = World(delay=(1.0, 1.0))
    left, right = pair(world, psk=b"\x07" * 32, right_psk=b"\x08" * 32)
    left.send("hello")
    world.run(1.5)
    assert "not authentic" in refused(left, last(right, "response"), RIGHT)


# cookies ------------------------------------------------------------------------------------------------------------


def cookie_reply(box: Box, datagram: bytes, cookie: bytes, nonce: bytes = bytes(24)) -> bytes:
    """What a doorman of ``box`` under load answers ``datagram`` with (5.4.7), made independently of the core."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

    key = hash_(LABEL_COOKIE, box.manager.public_key)
    sealed = encrypt(cookie, datagram[-32:-16], nonce, key)
    return pack_cookie_reply(CookieReply(int.from_bytes(datagram[4:8], "little"), nonce, sealed))


def test_a_cookie_goes_into_the_next_initiations_for_two_minutes() -> None:
    world = World(delay=(0.001, 0.001))
    left, right = pair(world)
    world.drop = lambda packet: isinstance(packet, bytes) and len(packet) == 92  # right never gets through
    world.every(20.0, lambda: left.send("hello"), until=200.0)
    world.run(1.0)
    first = last(left, "initiation")
    assert first[-16:] == bytes(16)
    cookie = bytes(range(16))
    left.arrive(cookie_reply(right, first, cookie), *RIGHT)
    begun = len(left.times("initiation"))
    assert left.manager.counters()["cookies_received"] == 1
    world.run(180.0)
    times, datagrams = zip(*((when, about) for when, event, about in left.diary if event == "initiation"), strict=True)
    for when, datagram in zip(times[begun:], datagrams[begun:], strict=True):
        expected = mac(cookie, datagram[:-16]) if when < 121.0 else bytes(16)
        assert datagram[-16:] == expected, when
    assert times[begun] >= 5.0  # 6.6: it goes with the next retry, not before
    assert times[-1] > 130.0


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 64 * 8 - 1))
def test_a_flipped_bit_in_a_cookie_reply(bit: int) -> None:
    left, right = half_way()
    datagram = bytearray(cookie_reply(right, last(left, "initiation"), bytes(16)))
    datagram[bit // 8] ^= 1 << bit % 8
    refused(left, bytes(datagram), RIGHT)


def test_a_cookie_reply_is_taken_once_and_only_for_the_last_message() -> None:
    left, right = half_way()
    reply = cookie_reply(right, last(left, "initiation"), bytes(16))
    left.arrive(reply, *RIGHT)
    assert left.manager.counters()["cookies_received"] == 1
    assert "no message of ours" in refused(left, reply, RIGHT)
    left.world.run(10.0)
    refused(left, reply, RIGHT)


def test_a_cookie_reply_to_a_response() -> None:
    """A responder too may be told to prove its address."""
    left, right = half_way()
    left.world.run(1.6)
    right.arrive(cookie_reply(left, last(right, "response"), bytes(16)), *LEFT)
    assert right.manager.counters()["cookies_received"] == 1


# reports ------------------------------------------------------------------------------------------------------------


def test_reports_that_cannot_be_true_change_nothing() -> None:
    world = World()
    left, _ = pair(world)
    left.peers = [peer(RIGHT_KEY, RIGHT), peer(b"\x33" * 32)]
    left.boot()
    left.send("hello")
    world.run(1.0)
    manager, before = left.manager, state_of(left.manager)
    (session,) = manager._shared.sessions
    many = 2**64 - 1
    for todo in (
        manager.send_report(ev.SendReport(3, session, many, many, many, False), 1.0),
        manager.send_report(ev.SendReport(2, session, many, many, many, False), 1.0),
        manager.receive_report(ev.ReceiveReport(3, session, 9, 9, 9, *RIGHT), 1.0),
        manager.receive_report(ev.ReceiveReport(2, session, 9, 9, 9, *RIGHT), 1.0),
        manager.receive_report(ev.ReceiveReport(1, session, 9, 9, 9, b"12345", 1), 1.0),
    ):
        assert [type(event) for event in todo] == [ev.Log]
        assert todo[0].event == "report-refused"
    # Totals that go back, or stand still
    assert not manager.send_report(ev.SendReport(1, session, 0, 0, 0, False), 1.0)
    assert not manager.receive_report(ev.ReceiveReport(1, session, 0, 0, 0, *STRANGER), 1.0)
    assert state_of(manager) == before


def test_no_reports_add_up_to_more_than_a_status_row_holds() -> None:
    most = 2**64 - 1
    world = World()
    left, _ = pair(world)
    left.send("hello")
    world.run(1.0)
    manager, board, shown = left.manager, memoryview(bytearray(ROW_SIZE)), []
    (first,) = manager._shared.sessions
    for packets, octets in ((10, most), (11, 0), (12, most)):
        for todo in (
            manager.send_report(ev.SendReport(1, first, packets, packets, octets, False), 1.0),
            manager.receive_report(ev.ReceiveReport(1, first, packets, packets, octets, *RIGHT), 1.0),
        ):
            assert octets or [event.event for event in todo if isinstance(event, ev.Log)] == ["report-refused"]
            assert octets or len(todo) == 1
            shown += [event for event in todo if isinstance(event, ev.ShowPeer)]
    left.manager._peers[1].begin(7.0, urgent=True)
    world.run(7.0)
    left._tick()
    world.run(8.0)
    second = max(manager._shared.sessions.values(), key=lambda session: session.created).index
    assert second != first
    shown += manager.send_report(ev.SendReport(1, second, 99, 99, most, False), 8.0)
    shown += manager.receive_report(ev.ReceiveReport(1, second, 99, 99, most, *RIGHT), 8.0)
    rows = [event for event in shown if isinstance(event, ev.ShowPeer)]
    assert max(row.sent for row in rows) == max(row.received for row in rows) == most
    for row in rows:
        write_row(board, PeerRow(row.peer, 0, row.received, row.sent, row.address, row.port))


def test_an_address_that_is_none_is_refused() -> None:
    left, right = half_way()
    assert "5 bytes" in refused(right, last(left, "initiation"), (b"12345", 1))


def test_a_session_that_ran_out_of_messages_is_not_used_any_more() -> None:
    world = World()
    left, _ = pair(world)
    left.send("hello")
    world.run(1.0)
    (session,) = left.manager._shared.sessions
    todo = left.manager.send_report(ev.SendReport(1, session, 2**60 + 1, 1, 2**63, False), 1.0)
    assert left.manager._peers[1]._trying_since == 1.0  # 6.2: REKEY_AFTER_MESSAGES
    todo = left.manager.send_report(ev.SendReport(1, session, 2**64 - 1, 1, 2**63, False), 1.0)
    assert ev.SendForget(1) in todo and ev.ReceiveForget(session) in todo


# the settings -------------------------------------------------------------------------------------------------------


def test_the_domain_refuses_names_and_itself() -> None:
    named = peer(RIGHT_KEY, RIGHT)
    named = type(named)(named.public_key, None, named.allowed_ips, Endpoint("vpn.example.net", 51820), 0)
    with pytest.raises(SettingsError, match=r"peers\[0\].endpoint.*resolved"):
        Manager(Settings(Secret(LEFT_KEY), (named,)))
    with pytest.raises(SettingsError, match=r"peers\[0\].public_key.*our own"):
        Manager(Settings(Secret(LEFT_KEY), (peer(LEFT_KEY),)))


def test_the_private_key_is_wiped_where_it_came_from() -> None:
    given_key = Secret(LEFT_KEY)
    manager = Manager(Settings(given_key, (peer(RIGHT_KEY),)))
    assert given_key.reveal() == bytes(32)
    assert manager.public_key == PrivateKey(LEFT_KEY).public


def test_nothing_is_answered_before_everybody_is_there() -> None:
    world = World(delay=(5.0, 5.0))
    left, right = pair(world)
    left.send("hello")
    world.run(0.0)
    datagram = last(left, "initiation")
    for gone in Side:
        right.manager.closed(gone, 0.0)
        assert "not ready" in refused(right, datagram)
        right.did(lambda manager, now, gone=gone: manager.opened(gone, now))
    fresh = Manager(Settings(Secret(RIGHT_KEY), tuple(right.peers)))
    fresh.opened(Side.ENCRYPT, 0.0)
    fresh.opened(Side.DECRYPT, 0.0)
    fresh.tick(0.0, 0.0, world.random.randbytes)
    assert not fresh.is_ready()  # the floor is not loaded


def test_no_secret_is_logged() -> None:
    world = World(loss=0.2, seed=7)
    left, right = pair(world, psk=b"\x07" * 32)
    world.every(1.0, lambda: (left.send("x"), right.send("y")), until=400.0)
    world.run(400.0)
    secrets = {LEFT_KEY, RIGHT_KEY, b"\x07" * 32, *world.send_keys, *world.receive_keys}
    for box in (left, right):
        for _, event, about in box.diary:
            text = repr(about)
            assert not any(secret.hex() in text or repr(secret)[2:-1] in text for secret in secrets), event
    assert len(world.send_keys) > 4
    message = parse(last(left, "initiation"))
    assert isinstance(message, Initiation)
