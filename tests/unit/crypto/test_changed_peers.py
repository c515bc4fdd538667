"""Peers come, go and change while encrypt and decrypt run: who stays does not notice, of who goes nothing is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.crypto.receiving import Receiver
from components.crypto.refused import Refused
from components.crypto.routing import absent
from components.crypto.sending import Sender
from tests.unit.crypto.wire import (
    KEY,
    NET4,
    PLACE,
    among,
    cut,
    datagram,
    ipv4,
    receive_only,
    receive_peer,
    receive_session,
    seal_whole,
    send_keepalive,
    send_only,
    send_peer,
    send_session,
    undo,
)

OTHER_KEY = bytes(range(1, 33))
NET1, NET2, NET3 = ((bytes((10, n, 0, 0)), 16) for n in (1, 2, 3))


def to(net: int) -> bytes:
    return ipv4(100, source="10.9.0.1", destination=f"10.{net}.0.1")


def out_of(net: int) -> bytes:
    return ipv4(100, source=f"10.{net}.0.1", destination="10.9.0.1")


def seal(core: Sender, *packets: bytes, now: float = 1.0) -> list[bytes]:
    return cut(seal_whole(core, b"".join(packets), len(packets[0]), now))


def open_(core: Receiver, one: bytes, now: float = 1.0) -> list[bytes]:
    return cut(core.open(memoryview(one), len(one), *PLACE, now))


def three_sent_to() -> Sender:
    core = Sender(1420)
    for peer, net in enumerate((NET1, NET2, NET3), start=1):
        core.order(send_peer(peer, net), 0.0)
        core.order(send_session(peer=peer, session=peer, receiver=70 + peer), 0.0)
    return core


def three_heard() -> Receiver:
    core = Receiver()
    for peer, net in enumerate((NET1, NET2, NET3), start=1):
        core.order(receive_peer(peer, net), 0.0)
        core.order(receive_session(peer=peer, session=70 + peer), 0.0)
    return core


@given(st.sets(st.integers(1, 65535), max_size=40), st.sets(st.integers(1, 65535), max_size=40))
def test_absent_is_who_has_no_bit(known: set[int], stay: set[int]) -> None:
    assert set(absent(known, among(stay))) == known - stay


def test_who_is_gone_is_sent_nothing_and_the_others_count_on() -> None:
    core = three_sent_to()
    assert [undo(one)[:2] for one in seal(core, to(1), to(2), to(3))] == [(71, 0), (72, 0), (73, 0)]
    assert core.order(send_only(1, 3), 1.0) == []
    assert [undo(one)[:2] for one in seal(core, to(1), to(2), to(3))] == [(71, 1), (73, 1)]
    assert core.counts["no_peer"] == 1
    with pytest.raises(Refused, match="peer 2 is not known"):
        core.order(send_keepalive(2), 1.0)
    while (report := core.report(2.0)) is not None:
        assert report.peer != 2 or report.session == 2  # of what it was, no more
    core.tick(200.0)  # and no end of it is left to come
    assert core.due() is None


def test_what_waited_for_who_is_gone_waits_no_more() -> None:
    core = Sender(1420)
    core.order(send_peer(1, NET1), 0.0)
    assert not seal(core, to(1))
    core.order(send_only(), 1.0)
    assert core.counts["no_session"] == 1 and core.report(9.0) is None
    core.order(send_peer(1, NET1), 1.0)
    assert core.order(send_session(), 1.0) == []


def test_a_prefix_moves_from_one_to_another_while_both_have_sessions() -> None:
    core, ear = three_sent_to(), three_heard()
    core.order(send_peer(1), 1.0)
    core.order(send_peer(2, NET1, NET2), 1.0)
    ear.order(receive_peer(2, NET1, NET2), 1.0)  # the other order: whoever it is given to last has it
    ear.order(receive_peer(1), 1.0)
    assert [undo(one)[:2] for one in seal(core, to(1), to(2), to(3))] == [(72, 0), (72, 1), (73, 0)]
    assert not open_(ear, datagram(out_of(1), 0, receiver=71)) and ear.counts["spoofed"] == 1
    assert open_(ear, datagram(out_of(1), 0, receiver=72)) == [out_of(1)]


def test_a_number_of_another_peer_has_nothing_of_the_one_before() -> None:
    """What is meant for the new one must never be sealed with the key of the old one, nor the old one speak for it."""
    core, ear = three_sent_to(), three_heard()
    core.order(send_peer(2, NET2, public=OTHER_KEY), 1.0)
    ear.order(receive_peer(2, NET2, public=OTHER_KEY), 1.0)
    assert not seal(core, to(2)) and core.counts["queued"] == 1
    assert not open_(ear, datagram(out_of(2), 0, receiver=72)) and ear.counts["unknown_session"] == 1
    assert [undo(one)[:2] for one in seal(core, to(1), to(3))] == [(71, 0), (73, 0)]
    assert open_(ear, datagram(out_of(1), 0, receiver=71)) == [out_of(1)]
    (first,) = cut(core.order(send_session(peer=2, session=9, receiver=99, key=OTHER_KEY), 1.0))
    assert undo(first, OTHER_KEY)[:2] == (99, 0)


def test_the_same_peer_told_again_keeps_its_sessions() -> None:
    core, ear = three_sent_to(), three_heard()
    for _ in range(2):
        core.order(send_only(1, 2, 3), 1.0)
        core.order(send_peer(2, NET2, NET4), 1.0)
        ear.order(receive_only(1, 2, 3), 1.0)
        ear.order(receive_peer(2, NET2, NET4), 1.0)
    assert [undo(one)[:2] for one in seal(core, to(2), to(9))] == [(72, 0), (72, 1)]
    assert open_(ear, datagram(out_of(2), 0, receiver=72)) == [out_of(2)]


def test_who_is_gone_is_heard_no_more() -> None:
    ear = three_heard()
    assert open_(ear, datagram(out_of(2), 0, receiver=72)) == [out_of(2)]
    ear.order(receive_only(1, 3), 1.0)
    assert not open_(ear, datagram(out_of(2), 1, receiver=72)) and ear.counts["unknown_session"] == 1
    assert open_(ear, datagram(out_of(3), 0, receiver=73)) == [out_of(3)]
    ear.order(receive_only(), 1.0)
    assert not open_(ear, datagram(out_of(3), 1, receiver=73))
    assert (ear.due() or 0.0) <= 1.0, "only what is still to be reported"


def test_sessions_of_who_was_never_told_of_end_too() -> None:
    """A key manager died between the two orders, and the next one knows no such peer."""
    ear = Receiver()
    ear.order(receive_session(peer=5, session=75), 0.0)
    ear.order(receive_only(), 1.0)
    assert not open_(ear, datagram(out_of(1), 0, receiver=75)) and ear.counts["unknown_session"] == 1


def test_a_key_that_was_handed_out_is_not_taken_again_after_its_peer_was_gone() -> None:
    core, ear = three_sent_to(), three_heard()
    core.order(send_only(), 1.0)
    ear.order(receive_only(), 1.0)
    core.order(send_peer(1, NET1), 1.0)
    ear.order(receive_peer(1, NET1), 1.0)
    with pytest.raises(Refused, match="handed out before"):
        core.order(send_session(peer=1, session=1, key=KEY), 1.0)
    with pytest.raises(Refused, match="handed out before"):
        ear.order(receive_session(peer=1, session=71), 1.0)


def test_a_public_key_that_is_none_changes_nothing() -> None:
    core, ear = three_sent_to(), three_heard()
    with pytest.raises(Refused, match="public key"):
        core.order(send_peer(1, NET2, public=b"short"), 1.0)
    with pytest.raises(Refused, match="public key"):
        ear.order(receive_peer(1, NET2, public=b"short"), 1.0)
    assert [undo(one)[:2] for one in seal(core, to(1), to(2))] == [(71, 0), (72, 0)]
