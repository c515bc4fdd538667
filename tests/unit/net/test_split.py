"""Splitting, against scapy's idea of a packet."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrRouting  # type: ignore[import-untyped]

from components.net import twin
from components.net.groups import Grouper, most
from components.net.split import Malformed, split
from tests.unit.net.packets import cut, offloaded, ones, payload, plain, tcp, udp

pytestmark = pytest.mark.usefixtures("loops")


@given(st.binary(max_size=3000))
def test_total_is_the_textbooks_sum(data: bytes) -> None:
    assert twin.total(data) % 65535 == ones(data) % 65535


@given(st.integers(0, 70000), st.sampled_from([0, 255]))
def test_total_of_long_and_uniform_buffers(length: int, byte: int) -> None:
    assert twin.total(bytes([byte]) * length) % 65535 == ones(bytes([byte]) * length) % 65535


def segments(version: int, data: bytes, mss: int, flags: str, *start: int, **fields: object) -> list[bytes]:
    """What a sender without offloads would have sent."""
    (first_id, seq), out = start, []
    count = -(-len(data) // mss)
    for i in range(count):
        mine = {c for c in flags if not (c in "FP" and i < count - 1) and not (c == "C" and i)}
        chosen = {"flags": "".join(sorted(mine)), "id": (first_id + i) % 65536, "seq": (seq + i * mss) % 2**32}
        out.append(tcp(version, data[i * mss : (i + 1) * mss], **chosen, **fields))
    return out


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", ["A", "PA", "FPA", "CA", "CEPA"])
@pytest.mark.parametrize(
    ("length", "mss"), [(5000, 1380), (2760, 1380), (1380, 1380), (700, 1380), (4001, 1001), (9, 2)]
)
def test_tso(version: int, flags: str, length: int, mss: int) -> None:
    data = payload(length)
    whole = tcp(version, data, flags=flags, id=65534, seq=2**32 - 1500, tos=2)
    pairs = split(memoryview(offloaded(whole, mss, ecn="C" in flags)))
    assert cut(pairs) == segments(version, data, mss, flags, 65534, 2**32 - 1500, tos=2)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("options", [[], [("NOP", None)] * 40, [("MSS", 1400), ("NOP", None), ("NOP", None)]])
def test_tso_with_any_tcp_options(version: int, options: list[tuple[str, object]]) -> None:
    data = payload(3000)
    whole = tcp(version, data, options=options, flags="PA")
    assert cut(split(memoryview(offloaded(whole, 1200)))) == segments(
        version, data, 1200, "PA", 77, 1000, options=options
    )


def test_tso_with_ip_options() -> None:
    data = payload(3000)
    whole = tcp(4, data, ipopts=b"\x01\x01\x01\x00")
    assert cut(split(memoryview(offloaded(whole, 1200)))) == segments(
        4, data, 1200, "A", 77, 1000, ipopts=b"\x01\x01\x01\x00"
    )


def test_tso_behind_an_extension_header() -> None:
    data, ext = payload(3000), IPv6ExtHdrDestOpt()
    whole = tcp(6, data, ext=ext)
    assert cut(split(memoryview(offloaded(whole, 1200)))) == segments(6, data, 1200, "A", 77, 1000, ext=ext)


def test_tso_behind_a_routing_header_keeps_the_kernels_pseudo_header() -> None:
    # scapy, too, sums the last address of the routing header instead of the destination
    data, ext = payload(3000), IPv6ExtHdrRouting(addresses=["fd09::9"], segleft=1)
    whole = tcp(6, data, ext=ext)
    read = bytearray(offloaded(whole, 1200))
    destination = bytes.fromhex("fd090000000000000000000000000009")
    start = 10 + 40 + 24
    pseudo = ones(whole[8:24] + destination + struct.pack("!HH", 6, len(whole) - 64))
    read[start + 16 : start + 18] = pseudo.to_bytes(2, "big")
    assert cut(split(memoryview(read))) == segments(6, data, 1200, "A", 77, 1000, ext=ext)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("length", "mss"), [(5000, 1200), (2401, 1200), (1200, 1200), (10, 1200), (2001, 667)])
def test_uso(version: int, length: int, mss: int) -> None:
    data = payload(length)
    whole = udp(version, data, id=65535)
    expected = [udp(version, data[i : i + mss], id=(65535 + i // mss) % 65536) for i in range(0, length, mss)]
    assert cut(split(memoryview(offloaded(whole, mss)))) == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("make", [tcp, udp])
@pytest.mark.parametrize("length", [1, 2, 999, 1400])
def test_a_checksum_to_fill_in(version: int, make, length: int) -> None:  # type: ignore[no-untyped-def]
    packet = make(version, payload(length))
    assert split(memoryview(offloaded(packet, 0))) == [(packet, len(packet))]


def test_a_udp_checksum_of_zero_is_written_as_ffff() -> None:
    bare = bytearray(udp(4, b"\0\0"))
    bare[28:30] = bytes(bare[26:28])  # adding the checksum itself makes the sum all ones
    fixed = split(memoryview(offloaded(bytes(bare), 0)))[0][0]
    assert fixed[26:28] == b"\xff\xff"


def test_a_datagrams_checksum_of_zero_is_written_as_ffff() -> None:
    data = bytearray(payload(40))
    data[10:12] = b"\0\0"
    data[10:12] = cut(split(memoryview(offloaded(udp(4, bytes(data)), 10))))[1][26:28]  # the sum is all ones now
    assert cut(split(memoryview(offloaded(udp(4, bytes(data)), 10))))[1][26:28] == b"\xff\xff"


def test_a_segment_larger_than_the_packet_is_the_packet() -> None:
    whole = tcp(6, payload(700))
    assert split(memoryview(offloaded(whole, 65535))) == [(whole, len(whole))]


def test_a_plain_packet_is_left_alone() -> None:
    packet = udp(4, b"x" * 100)[:-1] + b"!"  # its checksum is wrong, and not ours to judge
    assert split(memoryview(plain(packet))) == [(packet, len(packet))]


def test_what_does_not_fit_one_group_makes_several() -> None:
    data = payload(60000)
    pairs = split(memoryview(offloaded(tcp(4, data), 100)))
    assert cut(pairs) == segments(4, data, 100, "A", 77, 1000)
    assert all(len(blob) <= size * most(size) and len(blob) <= 65507 for blob, size in pairs)
    assert [size for _, size in pairs[:-1]] == [152] * (len(pairs) - 1)


def header(flags: int, kind: int, size: int, start: int, offset: int) -> bytes:
    return struct.pack("=BBHHHH", flags, kind, 0, size, start, offset)


TCP4 = tcp(4, payload(3000))
UDP6 = udp(6, payload(3000))


@pytest.mark.parametrize(
    "read",
    [
        b"",
        header(0, 0, 0, 0, 0),
        header(0, 0, 0, 0, 0) + TCP4[:19],
        header(0, 0, 0, 0, 0) + bytes(65536),
        header(1, 0, 0, 20, 65000) + TCP4,
        header(1, 0, 0, 65000, 16) + TCP4,
        header(1, 0, 0, len(TCP4), 0) + TCP4,
        header(1, 0, 0, len(TCP4) - 17, 16) + TCP4,
        header(1, 0, 0, 20, 0) + TCP4,
        header(0, 1, 1000, 20, 16) + TCP4,
        header(1, 1, 0, 20, 16) + TCP4,
        header(1, 4, 1000, 20, 16) + TCP4,
        header(1, 1, 1000, 24, 16) + TCP4,
        header(1, 1, 1000, 20, 6) + TCP4,
        header(1, 1, 1000, 20, 16) + TCP4[:-1],
        header(1, 3, 1000, 20, 6) + TCP4,
        header(1, 7, 1000, 20, 6) + TCP4,
        header(1, 1, 1000, 20, 16) + TCP4[:32] + b"\xf0" + TCP4[33:52],
        header(1, 1, 1000, 20, 16) + TCP4[:2] + (52).to_bytes(2, "big") + TCP4[4:52],
        header(1, 1, 1000, 20, 16) + TCP4[:32] + b"\x10" + TCP4[33:],
        header(1, 1, 1000, 20, 16) + b"\x44" + TCP4[1:],
        header(1, 5, 1000, 40, 16) + UDP6,
        header(1, 5, 1000, 0, 6) + UDP6,
        header(1, 5, 1000, 48, 6) + UDP6,
        header(1, 5, 1000, len(UDP6) - 4, 6) + UDP6,
        header(1, 5, 1000, 65535, 6) + UDP6,
    ],
)
def test_a_header_that_does_not_fit_is_refused(read: bytes) -> None:
    with pytest.raises(Malformed):
        split(memoryview(read))


def test_random_headers_never_read_beyond_the_packet() -> None:
    chance = random.Random(5)
    for _ in range(3000):
        packet = bytearray(chance.choice([TCP4, UDP6, tcp(6, payload(2000))])[: chance.choice([40, 60, 100, 3000])])
        for _ in range(chance.randrange(4)):
            packet[chance.randrange(min(60, len(packet)))] = chance.randrange(256)
        fields = (chance.choice([0, 1]), chance.choice([0, 1, 4, 5, 0x81]), chance.choice([1, 500, 1000]))
        read = header(*fields, chance.choice([0, 20, 40, 48, 65535]), chance.choice([6, 16, 65535])) + packet
        try:
            pairs = split(memoryview(read))
        except Malformed:
            continue
        body = sum(len(blob) for blob, _ in pairs)
        assert body >= len(packet) and all(0 < size <= len(blob) for blob, size in pairs)


def test_waiting_packets_of_one_size_share_a_group() -> None:
    grouper = Grouper()
    for length in (100, 100, 100, 60, 60, 100, 40, 40):
        grouper.add(bytes([length]) * length, length)
    assert [(g.size, len(g.packets), g.peer) for g in grouper.all()] == [
        (100, 360, 0),
        (60, 60, 0),
        (100, 140, 0),
        (40, 40, 0),
    ]
    assert grouper.all() == []


def test_a_group_is_closed_once_nothing_can_join_it() -> None:
    grouper = Grouper()
    grouper.add(b"x" * 100, 100)
    assert grouper.closed() == []
    grouper.add(b"x" * 60, 60)
    assert [len(g.packets) for g in grouper.closed()] == [160]
    grouper.add(b"y" * 60, 60)
    grouper.add(b"z" * 80, 80)
    assert [len(g.packets) for g in grouper.closed()] == [60]
    assert [len(g.packets) for g in grouper.all()] == [80]


def test_a_group_stays_within_one_send() -> None:
    grouper = Grouper()
    for _ in range(150):
        grouper.add(b"x" * 64, 64)
    grouper.add(b"y" * 1420 * 40, 1420)
    grouper.add(b"y" * 1420 * 10, 1420)
    assert [len(g.packets) // g.size for g in grouper.all()] == [64, 64, 22, 40, 10]
    assert most(1420) == 44 and most(64) == 64 and most(65535) == 1


@pytest.mark.parametrize("make", [tcp, udp])
def test_a_superpacket_that_would_become_a_gigabyte_is_refused(make: Callable[..., bytes]) -> None:
    whole = bytearray(offloaded(make(4, payload(60_000)), 1))
    with pytest.raises(Malformed, match="segments of 1 bytes"):
        split(memoryview(whole))
