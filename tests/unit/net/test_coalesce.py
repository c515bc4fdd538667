"""Coalescing: what becomes one superpacket, what must not, and that splitting undoes it to the byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.vchan.messages import Packets
from components.net import virtio
from components.net.coalesce import coalesce
from components.net.split import split
from tests.unit.net.packets import cut, offloaded, payload, plain, tcp, udp

pytestmark = pytest.mark.usefixtures("loops")

MSS = 1000


def group(packets: list[bytes]) -> Packets:
    return Packets(memoryview(b"".join(packets)), len(packets[0]), 3)


def burst(version: int, count: int, last: int = MSS, **fields: object) -> list[bytes]:
    """``count`` segments of a TCP flow, as a sender without offloads makes them."""
    lengths = [MSS] * (count - 1) + [last]
    return [
        tcp(version, payload(n, seed=i), **{"id": 100 + i, "seq": 1000 + MSS * i, **fields})
        for i, n in enumerate(lengths)
    ]


def datagrams(version: int, count: int, last: int = MSS) -> list[bytes]:
    lengths = [MSS] * (count - 1) + [last]
    return [udp(version, payload(n, seed=i), id=100 + i) for i, n in enumerate(lengths)]


def undone(buffers: list[bytes]) -> list[bytes]:
    return [packet for buffer in buffers for packet in cut(split(memoryview(buffer)))]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("make", [burst, datagrams])
@pytest.mark.parametrize(("count", "last"), [(2, MSS), (2, 1), (44, MSS), (44, 77), (62, 501)])
def test_one_flow_becomes_one_write(version: int, make: Callable[..., list[bytes]], count: int, last: int) -> None:
    packets = make(version, count, last)
    writes = coalesce(group(packets), True)
    assert len(writes.buffers) == 1 and writes.bad == 0
    assert undone(writes.buffers) == packets


def test_the_superpacket_is_what_the_kernel_itself_would_hand_over() -> None:
    for version in (4, 6):
        data = b"".join(payload(MSS, seed=i) for i in range(5))
        whole = tcp(version, data, id=100, seq=1000, flags="PA")
        expected = bytearray(offloaded(whole, MSS))
        expected[2:4] = (52 if version == 4 else 72).to_bytes(2, "little")  # hdr_len: exactly the headers
        packets = [*burst(version, 4), tcp(version, payload(MSS, seed=4), id=104, seq=5000, flags="PA")]
        assert coalesce(group(packets), True).buffers == [bytes(expected)]


def test_udp_stays_single_where_the_tun_takes_no_uso() -> None:
    packets = datagrams(4, 5, 70)
    assert coalesce(group(packets), False).buffers == [plain(p) for p in packets]


def test_no_superpacket_of_more_than_64_segments() -> None:
    packets = [tcp(4, payload(100, seed=i), id=i, seq=100 * i, options=[]) for i in range(150)]
    writes = coalesce(group(packets), True)
    assert [len(b) for b in writes.buffers] == [10 + 40 + 6400, 10 + 40 + 6400, 10 + 40 + 2200]
    assert undone(writes.buffers) == packets


CHANGES: dict[str, dict[str, object]] = {
    "tos": {"tos": 4},
    "ttl": {"ttl": 63},
    "df": {"df": False},
    "source port": {"sport": 40001},
    "destination port": {"dport": 81},
    "ack": {"ack": 2001},
    "window": {"window": 500},
    "timestamp": {"options": [("NOP", None), ("NOP", None), ("Timestamp", (8, 9))]},
    "sequence gap": {"seq": 1000 + MSS + 1},
    "repeated": {"seq": 1000, "id": 100},
    "urgent": {"flags": "UA", "urgptr": 5},
    "reset": {"flags": "RA"},
    "syn": {"flags": "SA"},
    "congestion window reduced": {"flags": "CA"},
    "ece": {"flags": "EA"},
    "identification": {"id": 105},
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_that_differs_is_not_joined(name: str, version: int) -> None:
    if version == 6 and name in ("df", "identification"):
        return  # IPv6 has neither
    packets = burst(version, 3)
    packets[1] = tcp(version, payload(MSS, seed=1), **{"id": 101, "seq": 1000 + MSS, **CHANGES[name]})
    writes = coalesce(group(packets), True)
    assert writes.buffers == [plain(p) for p in packets]
    assert writes.bad == 0


def test_a_pushed_segment_ends_its_superpacket() -> None:
    packets = burst(4, 4)
    packets[1] = tcp(4, payload(MSS, seed=1), id=101, seq=1000 + MSS, flags="PA")
    writes = coalesce(group(packets), True)
    assert [len(b) for b in writes.buffers] == [10 + 52 + 2 * MSS] * 2
    assert undone(writes.buffers) == packets


def test_an_identification_that_stays_is_joined_only_with_df() -> None:
    same = [tcp(4, payload(MSS, seed=i), id=0, seq=MSS * i) for i in range(3)]
    assert len(coalesce(group(same), True).buffers) == 1
    fragile = [tcp(4, payload(MSS, seed=i), id=9, seq=MSS * i, df=False) for i in range(3)]
    assert len(coalesce(group(fragile), True).buffers) == 3


def test_without_df_identifications_must_follow() -> None:
    packets = burst(4, 3, df=False)
    writes = coalesce(group(packets), True)
    assert len(writes.buffers) == 1 and undone(writes.buffers) == packets


@pytest.mark.parametrize("make", [burst, datagrams])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("which", [0, 2, 4])
def test_a_corrupt_packet_goes_alone_and_untouched(make: Callable[..., list[bytes]], version: int, which: int) -> None:
    packets = make(version, 5)
    for at in (-1, 200, 41 if version == 6 else 21):  # data twice, then a port
        broken = bytearray(packets[which])
        broken[at] ^= 0x10
        changed = [*packets[:which], bytes(broken), *packets[which + 1 :]]
        writes = coalesce(group(changed), True)
        assert plain(bytes(broken)) in writes.buffers
        assert undone(writes.buffers) == changed
        assert writes.bad == 1


def test_a_corrupt_ip_header_goes_alone_and_untouched() -> None:
    packets = burst(4, 4)
    broken = bytearray(packets[1])
    broken[10] ^= 1
    packets[1] = bytes(broken)
    writes = coalesce(group(packets), True)
    assert plain(packets[1]) in writes.buffers and undone(writes.buffers) == packets and writes.bad == 1


def test_two_errors_that_cancel_are_still_two_errors() -> None:
    packets = [bytearray(p) for p in burst(4, 4)]
    packets[1][60:62], packets[2][60:62] = b"\x10\x00", b"\x20\x00"
    sound = burst(4, 4)
    assert coalesce(group([bytes(p) for p in packets]), True).bad >= 1
    assert all(plain(bytes(packets[i])) in coalesce(group([bytes(p) for p in packets]), True).buffers for i in (1, 2))
    assert len(coalesce(group(sound), True).buffers) == 1


def test_the_wrap_of_sequence_and_identification_loses_nothing() -> None:
    packets = [
        tcp(4, payload(MSS, seed=i), id=(65533 + i) % 65536, seq=(2**32 - 2 * MSS + i * MSS) % 2**32) for i in range(6)
    ]
    writes = coalesce(group(packets), True)
    assert undone(writes.buffers) == packets and len(writes.buffers) <= 3


def test_fragments_options_and_other_protocols_go_alone() -> None:
    fragment = bytearray(burst(4, 1)[0])
    fragment[6] |= 0x20
    later = bytearray(burst(4, 1)[0])
    later[7] = 9
    for odd in (
        bytes(fragment),
        bytes(later),
        tcp(4, payload(MSS), ipopts=b"\x01\x01\x01\x00"),
        b"\x45" + bytes(39),
        b"\x60" + bytes(59),
        bytes(20),
        b"\xff" * 100,
        tcp(4, b"", flags="A"),
        tcp(6, b"", flags="A"),
    ):
        writes = coalesce(group([odd] * 3), True)
        assert writes.buffers == [plain(odd)] * 3


def test_two_flows_in_one_group_keep_their_order() -> None:
    one, two = burst(4, 3), burst(4, 3, sport=50000)
    writes = coalesce(group(one + two), True)
    assert len(writes.buffers) == 2 and undone(writes.buffers) == one + two


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    st.sampled_from([burst, datagrams]),
    st.sampled_from([4, 6]),
    st.integers(1, 100),
    st.booleans(),
)
def test_no_damage_is_ever_repaired_or_hidden(
    damage: list[tuple[int, int]], make: Callable[..., list[bytes]], version: int, size: int, same: bool
) -> None:
    """Whatever bytes the tunnel delivers, cut at whatever size: what is written stands for exactly those packets."""
    blob = bytearray(b"".join(make(version, 3)))
    for at, value in damage:
        blob[at * 7 % len(blob)] = value
    size = len(blob) // 3 if same else size + 19
    packets = [bytes(blob[i : i + size]) for i in range(0, len(blob), size)]
    out = []
    for buffer in coalesce(Packets(memoryview(blob), size, 1), True).buffers:
        out += [buffer[10:]] if buffer[:10] == virtio.PLAIN else cut(split(memoryview(buffer)))
    assert out == packets


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_without_checksum_is_not_given_one(version: int) -> None:
    """Whose sum happens to be right all the same: over IPv6 nobody may accept it (RFC 8200 section 8.1)."""
    packets = [bytearray(udp(version, payload(100, seed=i), id=i)) for i in range(3)]
    start = 20 if version == 4 else 40
    check = slice(start + 6, start + 8)
    for packet in packets[1:]:
        # What the checksum says goes into the last word, and the field says nothing
        last = int.from_bytes(packet[-2:], "big") + int.from_bytes(packet[check], "big")
        packet[-2:] = (last % 0xFFFF).to_bytes(2, "big")
        packet[check] = bytes(2)
    writes = coalesce(group([bytes(packet) for packet in packets]), True)
    assert writes.buffers == [plain(bytes(packet)) for packet in packets]
