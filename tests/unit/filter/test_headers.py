"""The parser against whatever bytes: it says what a packet is, or Malformed; it never fails otherwise."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP  # type: ignore[import-untyped]
from scapy.layers.inet6 import (  # type: ignore[import-untyped]
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)

from components.filter.headers import Kind, Malformed, parse
from tests.unit.filter.talk import back, out, tcp_out, udp_out

SEEDS = [
    tcp_out("S"),
    tcp_out("PA", 6),
    udp_out(),
    udp_out(6),
    bytes(back() / ICMP(type=3, code=4) / IP(tcp_out("S"))),
    bytes(back(6) / ICMPv6PacketTooBig() / out(6) / IPv6ExtHdrDestOpt() / UDP()),
    bytes(out(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(m=1) / TCP()),
    bytes(IP(flags="MF", proto=17) / bytes(24)),
]


@settings(max_examples=2000, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), max_size=5),
    st.integers(0, 140),
    st.booleans(),
)
def test_whatever_the_bytes(seed: bytes, changes: list[tuple[int, int]], length: int, repair: bool) -> None:
    packet = bytearray(seed.ljust(length, b"\x3c")[:length] if length < 120 else seed)
    for at, value in changes:
        if at < len(packet):
            packet[at] = value
    if repair and len(packet) >= 40:  # with lengths that fit, so that the rest is reached
        if packet[0] >> 4 == 4:
            packet[2:4] = len(packet).to_bytes(2, "big")
        else:
            packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
    try:
        header = parse(bytes(packet))
    except Malformed:
        return
    assert len(header.ends.source) == len(header.ends.destination) == (4 if packet[0] >> 4 == 4 else 16)
    assert len(header.ends.source_port) == len(header.ends.destination_port) == 2
    assert (header.inner is not None) == (header.kind is Kind.ERROR)
    assert (header.kind is Kind.LATER) == (header.offset > 0)


def test_the_seeds_are_what_they_seem() -> None:
    kinds = [parse(seed).kind for seed in SEEDS]
    assert kinds == [Kind.FLOW] * 4 + [Kind.ERROR] * 2 + [Kind.FLOW] * 2
    assert parse(SEEDS[5]).inner is not None
    assert [bool(parse(seed).fragment) for seed in SEEDS] == [False] * 6 + [True] * 2
    assert parse(SEEDS[6]).covered == 20 and parse(SEEDS[7]).covered == 8
    assert [parse(seed).plain for seed in SEEDS] == [True] * 5 + [True, False, False]


def test_an_atomic_fragment_is_a_whole_packet() -> None:
    header = parse(bytes(IPv6(dst="::1") / IPv6ExtHdrFragment(id=9) / UDP(sport=1, dport=2)))
    assert header.fragment == b"" and header.ends.destination_port == b"\0\2" and not header.plain
