"""The core of encrypt: what goes onto the wire, and what never does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from septum.v1.sending import SendOrder
from septum.v1.sent import SendReport

from components.crypto.constants import (
    GROUP_DATAGRAM_BYTES,
    GROUP_ITEMS,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    REPORT_INTERVAL,
    STAGED_BYTES,
    STAGED_PACKETS,
)
from components.crypto.refused import Refused
from components.crypto.sending import Sender
from tests.unit.crypto.wire import (
    KEY,
    NET4,
    PLACE,
    cut,
    datagram,
    ipv4,
    ipv6,
    seal_whole,
    send_endpoint,
    send_forget,
    send_keepalive,
    send_peer,
    send_session,
    sender,
    undo,
)


def seal(core: Sender, *packets: bytes, size: int = 0, now: float = 1.0) -> list[bytes]:
    return cut(seal_whole(core, b"".join(packets), size or len(packets[0]), now))


def reports(core: Sender, now: float) -> list[SendReport]:
    out = []
    while (report := core.report(now)) is not None:
        out.append(report)
    return out


def test_a_datagram_is_the_papers() -> None:
    packet = ipv4(100)
    assert seal(sender(), packet) == [datagram(packet, 0)]


def test_counters_go_up_by_one_over_all_calls() -> None:
    core = sender()
    sealed = seal(core, *[ipv4(500)] * 3) + seal(core, ipv4(500)) + seal(core, ipv6(60), ipv6(60))
    assert [undo(one)[:2] for one in sealed] == [(77, n) for n in range(6)]


@pytest.mark.parametrize(
    ("length", "padded"), [(20, 32), (32, 32), (33, 48), (1404, 1404 + 4), (1409, 1420), (1420, 1420), (1421, 1421)]
)
def test_padding_is_to_16_bytes_but_never_beyond_the_mtu(length: int, padded: int) -> None:
    (one,) = seal(sender(mtu=1420), ipv4(length, fill=0xAA))
    assert len(one) == padded + 32
    assert undo(one)[2] == ipv4(length, fill=0xAA).ljust(padded, b"\0")


def test_old_plaintext_never_shows_in_the_padding() -> None:
    core = sender()
    seal(core, ipv4(1400, fill=0xAA))
    seal(core, ipv4(1419, fill=0xBB))
    (one,) = seal(core, ipv4(21))
    assert undo(one)[2] == ipv4(21).ljust(32, b"\0")


def test_a_group_with_a_short_tail_stays_one_group() -> None:
    core = sender()
    packets = [ipv4(1420)] * 43 + [ipv4(600)]
    (group,) = seal_whole(core, b"".join(packets), 1420, 1.0)
    assert (group.size, group.address, group.port) == (1452, *PLACE)
    assert [undo(one)[2][:600] for one in cut([group])] == [p[:600] for p in packets]


@given(st.integers(20, 1500), st.integers(1, 200), st.integers(0, 1499))
def test_no_group_is_more_than_the_kernel_takes(size: int, count: int, tail: int) -> None:
    core = sender()
    blob = ipv4(size) * min(count, 65535 // size)
    tail = min(tail, size - 1, 65535 - len(blob))
    if tail >= 20:
        blob += ipv4(tail)
    groups = seal_whole(core, blob, size, 1.0)
    for group in groups:
        assert len(group.datagrams) <= GROUP_DATAGRAM_BYTES
        assert -(-len(group.datagrams) // group.size) <= GROUP_ITEMS
    sealed = cut(groups)
    assert [undo(one)[1] for one in sealed] == list(range(len(sealed)))
    assert len(sealed) == blob.count(ipv4(size)[:20]) + (tail >= 20 and tail != size)


def test_groups_in_succession_are_joined_until_one_is_full() -> None:
    core = sender()
    packets = [ipv4(1408, fill=number) for number in range(60)]
    first = core.seal(memoryview(b"".join(packets[:28])), 1408, 1.0)
    assert first == [], "more may come"
    made = [
        one._replace(datagrams=bytes(one.datagrams)) for one in core.seal(memoryview(b"".join(packets[28:])), 1408, 1.0)
    ]
    made += [one._replace(datagrams=bytes(one.datagrams)) for one in core.rest()]
    full = GROUP_DATAGRAM_BYTES // 1440
    assert [len(one.datagrams) // one.size for one in made] == [full, 60 - full]
    assert cut(made) == [datagram(packet, counter) for counter, packet in enumerate(packets)]
    assert core.rest() == []


def test_an_order_sends_what_was_kept_back_before_what_it_brings() -> None:
    core = sender()
    assert core.seal(memoryview(ipv4(100)), 100, 1.0) == []
    assert cut(core.order(send_keepalive(1), 1.0)) == [datagram(ipv4(100), 0), datagram(b"", 1)]


def test_each_destination_has_its_own_peer_session_and_endpoint() -> None:
    core = sender()
    other, place = bytes(reversed(KEY)), (bytes(15) + b"\1", 7)
    core.order(send_peer(2, (bytes((10, 9, 0, 0)), 16)), 0.0)
    core.order(send_session(peer=2, session=6, receiver=99, key=other, place=place), 0.0)
    near, far = ipv4(100), ipv4(100, destination="10.9.1.1")
    groups = seal_whole(core, near + near + far + near, 100, 1.0)
    assert [(g.address, g.port) for g in groups] == [PLACE, place, PLACE]
    first, second, third, fourth = cut(groups)
    assert [undo(first)[:2], undo(second)[:2], undo(third, other)[:2], undo(fourth)[:2]] == [
        (77, 0),
        (77, 1),
        (99, 0),
        (77, 2),
    ]


def test_an_endpoint_order_moves_the_peer() -> None:
    core = sender()
    core.order(send_endpoint(1, b"\x7f\0\0\1", 9), 1.0)
    (group,) = seal_whole(core, ipv4(100), 100, 1.0)
    assert (group.address, group.port) == (b"\x7f\0\0\1", 9)


def test_what_has_no_peer_goes_nowhere() -> None:
    core = sender()
    assert seal(core, ipv4(100, destination="11.0.0.1"), ipv4(100)) == [datagram(ipv4(100), 0)]
    assert core.counts["no_peer"] == 1


@pytest.mark.parametrize(
    "bad",
    [
        b"\x45" + bytes(99),  # total length 0
        ipv4(99) + b"\0",  # a byte too many
        ipv4(101)[:100],  # a byte too few
        b"\x44" + ipv4(100)[1:],  # a header of 16 bytes
        b"\x55" + ipv4(100)[1:],  # IP version 5
        ipv6(99) + b"\0",
        b"\x60" + bytes(99),
    ],
)
def test_what_is_no_packet_goes_nowhere_and_harms_nobody(bad: bytes) -> None:
    core = sender()
    assert seal(core, ipv4(100), bad, ipv4(100)) == [datagram(ipv4(100), 0), datagram(ipv4(100), 1)]
    assert core.counts["malformed"] == 1


def test_too_much_or_too_small_is_dropped_whole() -> None:
    core = sender()
    assert seal(core, ipv4(100), size=19) == []
    assert seal_whole(core, bytes(65536), 1420, 1.0) == []
    assert seal_whole(core, b"", 1420, 1.0) == []
    assert seal(core, ipv4(65000)) == [], "no UDP datagram holds it"
    assert seal(core, ipv4(100), ipv4(100)[:10], size=100) == [datagram(ipv4(100), 0)]


@given(st.binary(max_size=3000), st.integers(0, 2000))
def test_no_bytes_break_it(blob: bytes, size: int) -> None:
    core = sender()
    seal_whole(core, blob, size, 1.0)
    mixed = ipv4(60) + blob
    sealed = seal(core, mixed, size=60)
    assert undo(sealed[0])[2] == ipv4(60).ljust(64, b"\0")


# waiting for a session ------------------------------------------------------------------------------------------------


def test_without_a_session_packets_wait_and_one_is_wanted() -> None:
    core = sender(session=False)
    assert seal(core, ipv4(100, fill=1), ipv4(100, fill=2)) == []
    assert core.counts["queued"] == 2
    (report,) = reports(core, 1.0)
    assert (report.peer, report.wanted) == (1, True)
    assert reports(core, 60.0) == [], "once is enough while nothing new comes"
    sealed = cut(core.order(send_session(confirm=True), 2.0))
    assert sealed == [datagram(ipv4(100, fill=1), 0), datagram(ipv4(100, fill=2), 1)], "no keepalive: these confirm"


def test_wanted_is_repeated_once_an_interval_while_packets_come() -> None:
    core = sender(session=False)
    times = [1.0 + n / 100 for n in range(100)]
    wanted = []
    for now in times:
        seal(core, ipv4(100), now=now)
        wanted += [now for report in reports(core, now) if report.wanted]
    assert wanted[0] == 1.0
    assert all(later - sooner >= REPORT_INTERVAL for sooner, later in pairwise(wanted))
    assert len(wanted) == 4


def test_the_first_packet_that_finds_no_session_is_told_of_at_once() -> None:
    core = sender()
    seal(core, ipv4(100), now=2.0)
    reports(core, 2.0)
    seal(core, ipv4(100), now=300.01)  # between two ticks
    assert [report.wanted for report in reports(core, 300.01)] == [True]


def test_the_stage_keeps_the_newest_packets() -> None:
    core = sender(session=False)
    for n in range(STAGED_PACKETS + 10):
        seal(core, ipv4(100, fill=n))
    sealed = cut(core.order(send_session(), 2.0))
    assert [undo(one)[2][20] for one in sealed] == list(range(10, STAGED_PACKETS + 10))
    assert core.counts["no_session"] == 10


def test_the_stage_is_bounded_in_bytes() -> None:
    core = sender(mtu=9000, session=False)
    for n in range(100):
        seal(core, ipv4(8000, fill=n))
    sealed = cut(core.order(send_session(), 2.0))
    assert len(sealed) == STAGED_BYTES // 8000
    assert undo(sealed[-1])[2][20] == 99


def test_the_largest_stage_fits_the_buffer() -> None:
    core = sender(session=False)
    for n in range(STAGED_PACKETS):
        seal(core, ipv4(STAGED_BYTES // STAGED_PACKETS - 15, fill=n))
    sealed = cut(core.order(send_session(), 2.0))
    assert [undo(one)[2][20] for one in sealed] == list(range(STAGED_PACKETS))


def test_the_most_that_one_call_can_lay_down_fits_the_buffer() -> None:
    core = sender()
    assert len(seal(core, *[ipv4(20)] * (65535 // 20))) == 65535 // 20


def test_all_stages_together_are_bounded() -> None:
    core = Sender(1420)
    for peer in range(1, 200):
        core.order(send_peer(peer, (bytes((10, peer, 0, 0)), 16)), 0.0)
        for _ in range(5):
            seal_whole(core, ipv4(60_000, destination=f"10.{peer}.0.1"), 60_000, 1.0)
    assert core._staged_bytes <= 32 * 1024 * 1024
    assert core._staged_bytes == sum(peer.staged_bytes for peer in core._peers.values())


def test_forget_drops_the_session_and_what_waits() -> None:
    core = sender(session=False)
    seal(core, ipv4(100))
    core.order(send_forget(), 1.0)
    assert reports(core, 9.0) == [], "nothing waits any more"
    assert core.order(send_session(), 2.0) == []
    core.order(send_forget(), 3.0)
    assert seal(core, ipv4(100), now=3.0) == []
    assert core._staged_bytes == 100


# sessions -------------------------------------------------------------------------------------------------------------


def test_confirm_sends_a_keepalive_when_nothing_waits() -> None:
    core = sender(session=False)
    assert cut(core.order(send_session(confirm=True), 1.0)) == [datagram(b"", 0)]


def test_a_keepalive_is_32_bytes_and_no_data() -> None:
    core = sender()
    assert cut(core.order(send_keepalive(), 1.0)) == [datagram(b"", 0)]
    (report,) = reports(core, 1.0)
    assert (report.packets, report.data_packets, report.bytes) == (1, 0, 32)


def test_a_keepalive_without_a_session_wants_one() -> None:
    core = sender(session=False)
    assert core.order(send_keepalive(), 1.0) == []
    assert [report.wanted for report in reports(core, 1.0)] == [True]


def test_a_new_session_starts_at_0_and_the_old_key_is_gone() -> None:
    core = sender()
    seal(core, ipv4(100))
    old = core._peers[1].session
    new_key = bytes(reversed(KEY))
    core.order(send_session(session=6, receiver=78, key=new_key), 2.0)
    assert undo(seal(core, ipv4(100), now=2.0)[0], new_key)[:2] == (78, 0)
    assert core._peers[1].session is not old


def test_a_session_is_taken_once_in_its_life() -> None:
    core = sender()
    seal(core, ipv4(100))
    with pytest.raises(Refused):
        core.order(send_session(), 2.0)
    assert undo(seal(core, ipv4(100))[0])[1] == 1, "the session in use went on"
    core.order(send_forget(), 3.0)
    with pytest.raises(Refused):
        core.order(send_session(), 4.0)
    assert seal(core, ipv4(100), now=4.0) == []


def test_no_packet_after_180_seconds() -> None:
    core = sender()
    assert len(seal(core, ipv4(100), now=REJECT_AFTER_TIME - 0.001)) == 1
    assert seal(core, ipv4(100), now=REJECT_AFTER_TIME) == []
    assert core._peers[1].session is None
    assert [report.wanted for report in reports(core, 999.0)] == [False, True]


def test_an_idle_session_is_dropped_in_time() -> None:
    core = sender()
    assert core.due() == REJECT_AFTER_TIME
    core.tick(REJECT_AFTER_TIME - 0.001)
    assert core._peers[1].session is not None
    core.tick(REJECT_AFTER_TIME)
    assert core._peers[1].session is None
    assert core.due() is None
    assert core.order(send_keepalive(), REJECT_AFTER_TIME) == []


def test_no_packet_beyond_the_last_counter() -> None:
    core = sender()
    session = core._peers[1].session
    assert session is not None
    session.counter = REJECT_AFTER_MESSAGES - 2
    sealed = seal(core, ipv4(100), ipv4(100))
    assert [undo(one)[1] for one in sealed] == [REJECT_AFTER_MESSAGES - 2, REJECT_AFTER_MESSAGES - 1]
    assert seal(core, ipv4(100)) == []
    assert any(report.wanted for report in reports(core, 9.0))


@pytest.mark.parametrize(
    "order",
    [
        SendOrder(),
        send_peer(0, NET4),
        send_peer(1, (b"123", 8)),
        send_session(peer=2, session=9),
        send_session(session=9, key=b"short"),
        send_session(session=9, place=(b"12345", 1)),
        send_session(session=9, place=(b"1234", 0)),
        send_endpoint(2, b"1234", 1),
        send_endpoint(1, b"12345", 1),
        send_endpoint(1, b"1234", 65536),
        send_keepalive(2),
        send_forget(2),
    ],
)
def test_orders_that_cannot_be_obeyed_are_refused_and_change_nothing(order: SendOrder) -> None:
    core = sender()
    with pytest.raises(Refused):
        core.order(order, 1.0)
    (group,) = seal_whole(core, ipv4(100), 100, 1.0)
    assert (bytes(group.datagrams), group.address, group.port) == (datagram(ipv4(100), 0), *PLACE)


def test_no_refusal_shows_a_key() -> None:
    with pytest.raises(Refused) as refused:
        sender().order(send_session(session=9, key=b"hunter2"), 1.0)
    assert "hunter2" not in str(refused.value)
    core = sender()
    assert KEY.hex() not in repr(core._peers[1].session) + repr(vars(core))


# reports --------------------------------------------------------------------------------------------------------------


def test_reports_are_totals_at_once_then_paced_then_a_last_one() -> None:
    core = sender()
    seen = []
    for n in range(60):
        now = 1.0 + n / 100
        seal(core, ipv4(100), now=now)
        seen += [(now, report.packets) for report in reports(core, now)]
    assert [packets for _, packets in seen] == [1, 26, 51]
    due = core.due()
    assert due is not None
    (last,) = reports(core, due)
    assert (last.peer, last.session, last.packets, last.data_packets, last.bytes) == (1, 5, 60, 60, 60 * 144)
    assert not last.wanted
    assert core.due() == REJECT_AFTER_TIME, "nothing more to say"


def test_the_totals_of_a_replaced_session_are_not_lost() -> None:
    core = sender()
    seal(core, ipv4(100))
    assert [report.packets for report in reports(core, 1.0)] == [1]
    seal(core, ipv4(100), now=1.1)
    core.order(send_session(session=6), 1.1)
    assert [(report.session, report.packets) for report in reports(core, 1.1)] == [(5, 2)]
