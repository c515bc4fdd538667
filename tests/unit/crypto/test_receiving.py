"""The core of decrypt: nothing unauthentic, replayed or spoofed comes through, whatever arrives."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from septum.v1.received import ReceiveReport
from septum.v1.receiving import ReceiveOrder

from components.crypto.constants import (
    GROUP_ITEMS,
    MOST_PREFIXES,
    MOST_SESSIONS,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    REPORT_INTERVAL,
    URGENT_INTERVAL,
    WINDOW,
)
from components.crypto.receiving import Receiver
from components.crypto.refused import Refused
from components.keymgr.settings import MAX_PEERS, MAX_PREFIXES_IN_ALL
from tests.unit.crypto.wire import (
    KEY,
    NET4,
    PLACE,
    cut,
    datagram,
    ipv4,
    ipv6,
    receive_forget,
    receive_peer,
    receive_session,
    receiver,
)
from tests.unit.fake_guest import ROOT


def arrive(
    core: Receiver, *datagrams: bytes, size: int = 0, place: tuple[bytes, int] = PLACE, now: float = 1.0
) -> list[bytes]:
    return cut(core.open(memoryview(b"".join(datagrams)), size or len(datagrams[0]), *place, now))


def reports(core: Receiver, now: float) -> list[ReceiveReport]:
    out = []
    while (report := core.report(now)) is not None:
        out.append(report)
    return out


def test_a_packet_comes_out_without_its_padding() -> None:
    packet = ipv4(101, fill=3)
    core = receiver()
    (group,) = core.open(memoryview(datagram(packet, 0)), 112 + 32, *PLACE, 1.0)
    assert (bytes(group.packets), group.size, group.peer) == (packet, 101, 1)


def test_a_padded_group_comes_out_as_one_group_without_gaps() -> None:
    packets = [ipv4(101, fill=n) for n in range(40)]
    core = receiver()
    (group,) = core.open(memoryview(b"".join(datagram(p, n) for n, p in enumerate(packets))), 144, *PLACE, 1.0)
    assert (group.size, cut([group])) == (101, packets)


def test_mixed_lengths_under_one_padding_come_out_in_order() -> None:
    packets = [ipv4(100 + n % 4, fill=n) for n in range(50)] + [ipv6(110)] * 3
    core = receiver()
    groups = core.open(memoryview(b"".join(datagram(p, n) for n, p in enumerate(packets))), 144, *PLACE, 1.0)
    assert cut(groups) == packets
    for group in groups:
        assert -(-len(group.packets) // group.size) <= GROUP_ITEMS


def test_a_short_tail_belongs_to_the_group() -> None:
    packets = [ipv4(1420)] * 3 + [ipv4(64)]
    (group,) = receiver().open(
        memoryview(b"".join(datagram(p, n, padded=len(p)) for n, p in enumerate(packets))), 1452, *PLACE, 1.0
    )
    assert cut([group]) == packets


def test_any_order_comes_through_and_a_replay_does_not() -> None:
    core = receiver()
    sealed = [datagram(ipv4(96, fill=n), n) for n in range(20)]
    order = [3, 1, 2, 0, 19, 18, 5, 6, 7, 4, *range(8, 18)]
    opened = arrive(core, *(sealed[n] for n in order))
    assert [one[20] for one in opened] == order
    assert arrive(core, *sealed) == []
    assert core.counts["replayed"] == 20


def test_a_twin_in_the_same_group_is_a_replay() -> None:
    core = receiver()
    one, two = datagram(ipv4(96), 0), datagram(ipv4(96), 1)
    assert len(arrive(core, one, two, one, two, two)) == 2
    assert core.counts["replayed"] == 3


def test_too_old_is_a_replay() -> None:
    core = receiver()
    assert len(arrive(core, datagram(ipv4(96), WINDOW + 10))) == 1
    assert len(arrive(core, datagram(ipv4(96), 10))) == 1
    assert arrive(core, datagram(ipv4(96), 9)) == []
    assert core.counts["replayed"] == 1


@pytest.mark.parametrize("at", [8, 15, 16, 60, -1])
def test_a_forgery_neither_passes_nor_moves_the_window(at: int) -> None:
    core = receiver()
    good = datagram(ipv4(96), 0)
    forged = bytearray(good)
    forged[at] ^= 0x40
    assert arrive(core, bytes(forged)) == []
    assert core.counts["unauthentic"] == 1
    assert arrive(core, good) == [ipv4(96)]
    assert reports(core, 9.0)[0].packets == 1


def test_a_forgery_inside_a_group_costs_only_itself() -> None:
    core = receiver()
    sealed = [datagram(ipv4(96, fill=n), n) for n in range(10)]
    forged = sealed[4][:-1] + bytes((sealed[4][-1] ^ 1,))
    opened = arrive(core, *sealed[:4], forged, *sealed[5:])
    assert [one[20] for one in opened] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert arrive(core, sealed[4]) == [ipv4(96, fill=4)], "its counter was not used up"


@pytest.mark.parametrize("kind", [b"\0\0\0\0", b"\1\0\0\0", b"\4\1\0\0", b"\4\0\0\1", b"\x84\0\0\0"])
def test_other_types_are_malformed(kind: bytes) -> None:
    core = receiver()
    assert arrive(core, kind + datagram(ipv4(96), 0)[4:], datagram(ipv4(96), 1)) == [ipv4(96)]
    assert core.counts["malformed"] == 1


def test_an_unknown_session_is_counted() -> None:
    core = receiver()
    assert arrive(core, datagram(ipv4(96), 0, receiver=78)) == []
    assert core.counts["unknown_session"] == 1
    assert reports(core, 9.0) == []


@pytest.mark.parametrize("counter", [REJECT_AFTER_MESSAGES, 2**64 - 1])
def test_counters_have_an_end(counter: int) -> None:
    core = receiver()
    assert arrive(core, datagram(ipv4(96), counter)) == []
    assert core.counts["replayed"] == 1
    last = [datagram(ipv4(96), REJECT_AFTER_MESSAGES - 2 + n) for n in range(4)]
    assert len(arrive(core, *last)) == 2


def test_a_keepalive_is_no_packet_but_a_sign_of_life() -> None:
    core = receiver()
    assert arrive(core, datagram(b"", 0), datagram(b"", 1)) == []
    assert core.counts["keepalives"] == 2
    (report,) = reports(core, 1.0)
    assert (report.packets, report.data_packets, report.bytes) == (2, 0, 64)


@pytest.mark.parametrize(
    "inner",
    [
        b"\x45" + bytes(95),  # total length 0
        ipv4(19 + 77)[:19],  # no header
        ipv4(97)[:96],  # longer than what came
        b"\x44" + ipv4(96)[1:],  # a header of 16 bytes
        b"\x4f" + ipv4(40)[1:],  # a header longer than the packet
        b"\x55" + ipv4(96)[1:],
        b"\x60" + bytes(31),  # IPv6 without its header
        ipv6(97)[:96],
        bytes(16),
    ],
)
def test_what_is_no_packet_inside_is_dropped(inner: bytes) -> None:
    core = receiver()
    assert arrive(core, datagram(inner, 0, padded=len(inner))) == []
    assert core.counts["malformed"] == 1
    assert reports(core, 1.0)[0].data_packets == 1, "it was authentic all the same"


def test_a_peer_speaks_only_for_its_own_addresses() -> None:
    core = receiver()
    core.order(receive_peer(2, (bytes((10, 9, 0, 0)), 16), (bytes(16), 0)), 0.0)
    mine = ipv4(96, source="10.8.0.1")
    others = [ipv4(96, source="10.9.0.1"), ipv4(96, source="11.0.0.1"), ipv6(96, source=bytes(15) + b"\1")]
    sealed = [datagram(p, n) for n, p in enumerate([others[0], mine, others[1], mine, others[2]])]
    assert arrive(core, *sealed) == [mine, mine]
    assert core.counts["spoofed"] == 3


def test_a_session_of_a_peer_without_prefixes_delivers_nothing() -> None:
    core = Receiver()
    core.order(receive_session(), 0.0)
    assert arrive(core, datagram(ipv4(96), 0)) == []
    assert core.counts["spoofed"] == 1


def test_many_sessions_at_a_time_and_many_in_one_group() -> None:
    core = receiver()
    other = bytes(reversed(KEY))
    core.order(receive_peer(2, (bytes((10, 9, 0, 0)), 16)), 0.0)
    core.order(receive_session(2, 99, other), 0.0)
    mine, theirs = ipv4(96), ipv4(96, source="10.9.0.1")
    sealed = [
        datagram(mine, 0),
        datagram(theirs, 0, 99, other),
        datagram(mine, 1),
        datagram(mine, 1, 55),
        datagram(theirs, 1, 99, other),
    ]
    groups = core.open(memoryview(b"".join(sealed)), 128, *PLACE, 1.0)
    assert [(group.peer, bytes(group.packets)) for group in groups] == [(1, mine), (2, theirs), (1, mine), (2, theirs)]
    assert core.counts["unknown_session"] == 1


def test_a_key_opens_only_its_own_session() -> None:
    core = receiver()
    core.order(receive_session(1, 99, bytes(reversed(KEY))), 0.0)
    assert arrive(core, datagram(ipv4(96), 0, receiver=99, key=KEY)) == []
    assert core.counts["unauthentic"] == 1


def test_no_packet_after_180_seconds() -> None:
    core = receiver()
    assert len(arrive(core, datagram(ipv4(96), 0), now=REJECT_AFTER_TIME - 0.001)) == 1
    assert arrive(core, datagram(ipv4(96), 1), now=REJECT_AFTER_TIME) == []
    assert core._sessions == {}


def test_an_idle_session_is_dropped_in_time() -> None:
    core = receiver()
    assert core.due() == REJECT_AFTER_TIME
    core.tick(REJECT_AFTER_TIME)
    assert (core._sessions, core.due()) == ({}, None)


def test_a_forgotten_session_is_gone_and_never_comes_back() -> None:
    core = receiver()
    core.order(receive_forget(), 1.0)
    assert arrive(core, datagram(ipv4(96), 0)) == []
    with pytest.raises(Refused):
        core.order(receive_session(), 2.0)
    assert arrive(core, datagram(ipv4(96), 0)) == []


def test_a_second_copy_of_a_key_does_not_empty_the_window() -> None:
    core = receiver()
    one = datagram(ipv4(96), 0)
    assert len(arrive(core, one)) == 1
    with pytest.raises(Refused):
        core.order(receive_session(), 1.0)
    assert arrive(core, one) == []


@pytest.mark.parametrize(
    "order",
    [
        ReceiveOrder(),
        receive_peer(0, NET4),
        receive_peer(1, (b"123", 8)),
        receive_session(0, 9),
        receive_session(1, 9, b"short"),
    ],
)
def test_orders_that_cannot_be_obeyed_are_refused_and_change_nothing(order: ReceiveOrder) -> None:
    core = receiver()
    with pytest.raises(Refused):
        core.order(order, 1.0)
    assert arrive(core, datagram(ipv4(96), 0)) == [ipv4(96)]


def test_forgetting_what_is_forgotten_is_no_refusal() -> None:
    core = receiver()
    core.order(receive_forget(9), 1.0)
    assert arrive(core, datagram(ipv4(96), 0)) == [ipv4(96)]


def test_sessions_are_bounded_and_the_oldest_gives_way() -> None:
    core = receiver()
    for number in range(1000, 1000 + MOST_SESSIONS - 1):
        core.order(receive_session(1, number), 0.0)
    assert len(arrive(core, datagram(ipv4(96), 0))) == 1
    core.order(receive_session(1, 7), 0.0)
    assert len(core._sessions) == MOST_SESSIONS
    assert not arrive(core, datagram(ipv4(96), 1)), "there before all the others"
    assert len(arrive(core, datagram(ipv4(96), 0, receiver=7))) == 1
    assert len(arrive(core, datagram(ipv4(96), 0, receiver=1000))) == 1
    with pytest.raises(Refused):
        core.order(receive_session(1, 77), 1.0)


def test_as_many_peers_as_there_can_be_fit_the_memory_of_a_domain() -> None:
    """All sessions, prefixes and remembered numbers at once, in a process with the limit of component.toml."""
    declared = tomllib.loads((ROOT / "components/crypto/component.toml").read_text())["roles"]["decrypt"]
    assert MOST_SESSIONS >= 3 * MAX_PEERS and MOST_PREFIXES >= MAX_PREFIXES_IN_ALL
    script = f"""
import resource
from components.crypto import decrypt
from components.crypto.constants import MOST_PREFIXES, MOST_SESSIONS, REMEMBERED_SESSIONS
from components.crypto.receiving import Receiver
from tests.unit.crypto.wire import receive_peer, receive_session
resource.setrlimit(resource.RLIMIT_AS, ({declared["memory_mib"]} << 20,) * 2)
core = Receiver()
share = MOST_PREFIXES // {MAX_PEERS}
for peer in range(1, {MAX_PEERS} + 1):
    network = 0xFD << 120 | peer << 64
    core.order(receive_peer(peer, *(((network | n).to_bytes(16, "big"), 128) for n in range(share))), 0.0)
for number in range(REMEMBERED_SESSIONS):
    core._once.is_first(2**32 - number)
for number in range(MOST_SESSIONS + 9):
    core.order(receive_session(1, number), 0.0)
assert len(core._sessions) == MOST_SESSIONS and len(core._routing.v6) == MOST_PREFIXES
rest = [bytearray(1 << 20) for _ in range(32)]  # rings, what is under way
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


# what arrives is hostile ----------------------------------------------------------------------------------------------


def test_sizes_and_endpoints_that_cannot_be() -> None:
    core = receiver()
    good = datagram(ipv4(96), 0)
    for size, blob, place in (
        (0, good, PLACE),
        (31, good, PLACE),
        (1452, bytes(65536), PLACE),
        (len(good), good, (b"12345", 1)),
        (len(good), good, (b"1234", 0)),
        (len(good), good, (b"1234", 65536)),
    ):
        assert core.open(memoryview(blob), size, *place, 1.0) == []
    assert core.counts["malformed"] == 6
    assert core.open(memoryview(b""), 100, *PLACE, 1.0) == []
    assert arrive(core, good, good[:31], size=len(good)) == [ipv4(96)]
    assert core.counts["malformed"] == 7


@given(st.binary(max_size=2000), st.integers(0, 1500), st.binary(max_size=20), st.integers(-1, 70000))
def test_no_bytes_break_it(blob: bytes, size: int, address: bytes, port: int) -> None:
    core = receiver()
    assert core.open(memoryview(blob), size, address, port, 1.0) == []
    assert arrive(core, datagram(ipv4(96), 0)) == [ipv4(96)]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 127), st.integers(1, 255)), max_size=8))
def test_no_flipped_bits_come_through(flips: list[tuple[int, int, int]]) -> None:
    core = receiver()
    sealed = [bytearray(datagram(ipv4(96, fill=n), n)) for n in range(13)]
    for which, at, bits in flips:
        sealed[which][at] ^= bits
    untouched = [n for n in range(13) if bytes(sealed[n]) == datagram(ipv4(96, fill=n), n)]
    assert [one[20] for one in arrive(core, *map(bytes, sealed))] == untouched


@given(st.binary(max_size=200), st.integers(0, 5))
def test_no_authentic_plaintext_breaks_it(inner: bytes, more: int) -> None:
    core = receiver()
    for packet in arrive(core, *(datagram(inner, n, padded=len(inner)) for n in range(more + 1))):
        assert packet[0] >> 4 in (4, 6)
        assert inner.startswith(packet)
    assert arrive(core, datagram(ipv4(96), 99)) == [ipv4(96)]


# reports --------------------------------------------------------------------------------------------------------------


def test_the_first_authentic_packet_is_reported_at_once_then_paced() -> None:
    core = receiver()
    seen = []
    for n in range(60):
        now = 1.0 + n / 100
        arrive(core, datagram(ipv4(96), n), now=now)
        seen += [report.packets for report in reports(core, now)]
    assert seen == [1, 26, 51]
    due = core.due()
    assert due is not None
    (last,) = reports(core, due)
    assert (last.peer, last.session, last.packets, last.data_packets, last.bytes) == (1, 77, 60, 60, 60 * 128)
    assert (last.address, last.port) == PLACE


def test_a_new_session_is_reported_at_once_however_busy_the_old_one_is() -> None:
    core = receiver()
    arrive(core, datagram(ipv4(96), 0))
    assert len(reports(core, 1.0)) == 1
    core.order(receive_session(1, 78), 1.01)
    arrive(core, datagram(ipv4(96), 0, receiver=78), now=1.01)
    assert [report.session for report in reports(core, 1.01)] == [78]


def test_a_moved_endpoint_is_reported_at_once_but_cannot_flood() -> None:
    core = receiver()
    arrive(core, datagram(ipv4(96), 0), now=1.0)
    reports(core, 1.0)
    elsewhere = (bytes(16), 9)
    arrive(core, datagram(ipv4(96), 1), place=elsewhere, now=1.05)
    (report,) = reports(core, 1.05)
    assert (report.address, report.port) == elsewhere
    count = 0
    for n in range(1000):
        now = 2.0 + n / 10_000
        arrive(core, datagram(ipv4(96), 2 + n), place=(b"1234", 1 + n % 2), now=now)
        count += len(reports(core, now))
    assert 2 <= count <= 0.1 / URGENT_INTERVAL + 1
    assert core.due() is not None, "where it ended up is still to be told"
    assert reports(core, 2.1 + URGENT_INTERVAL)[0].port == 2


def test_only_what_is_authentic_moves_a_peer() -> None:
    core = receiver()
    arrive(core, datagram(ipv4(96), 0))
    arrive(core, datagram(ipv4(96), 1)[:-1] + b"x", datagram(ipv4(96), 0), place=(b"6666", 666))
    assert [(report.address, report.port) for report in reports(core, 9.0)] == [PLACE]


def test_the_totals_of_a_forgotten_session_are_not_lost() -> None:
    core = receiver()
    arrive(core, datagram(ipv4(96), 0))
    reports(core, 1.0)
    arrive(core, datagram(ipv4(96), 1), now=1.1)
    assert reports(core, 1.1) == []
    core.order(receive_forget(), 1.1)
    assert core.due() == 0.0
    assert [report.packets for report in reports(core, 1.1)] == [2]
    assert reports(core, 1.1 + REPORT_INTERVAL) == []
