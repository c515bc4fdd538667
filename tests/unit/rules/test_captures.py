"""Packets in words and from captures: what is read is what was written, and damage is said, never believed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP  # type: ignore[import-untyped]
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6  # type: ignore[import-untyped]
from scapy.layers.l2 import ARP, CookedLinux, Dot1Q, Ether  # type: ignore[import-untyped]
from scapy.packet import Packet, Padding  # type: ignore[import-untyped]
from scapy.utils import PcapNgWriter, PcapWriter  # type: ignore[import-untyped]

from appliance.rules import space
from appliance.rules.capture import CaptureError, frames, read
from appliance.rules.packets import Sample, build, parse, say

PEERS = {"alice": 1, "bob's": 2}
NAMES = {number: name for name, number in PEERS.items()}


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    family = draw(st.sampled_from(space.families(with_link=draw(st.booleans()))))
    point = []
    for axis in family.axes:
        low, high = draw(st.sampled_from(family.all(axis)))
        point.append(
            draw(st.integers(low, min(high, low + 70_000))) if axis != space.ORIGIN else draw(st.integers(0, 3))
        )
    return Sample(family, tuple(point))


@given(samples())
def test_what_is_said_is_read_again(sample: Sample) -> None:
    with_link = space.VLAN in sample.family.axes
    said = parse(say(sample, NAMES), with_link, PEERS)
    if sample.on(space.STATE) == space.UNTRACKED:  # has no word of its own: such packets are so
        sample = sample.moved(space.STATE, space.NEW)
    assert said.sample == sample


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the protocol is missing"),
        ("tcp", "the source is missing"),
        ("tcp 10.0.0.1:1 10.0.0.2:2", "must be '>'"),
        ("tcp 10.0.0.1:1 >", "the destination is missing"),
        ("tcp 10.0.0.1:x > 10.0.0.2:2", "port"),
        ("tcp 10.0.0.1:65536 > 10.0.0.2:2", "0 to 65535"),
        ("gre 10.0.0.1:1 > 10.0.0.2", "has a port, and only tcp and udp have"),
        ("tcp 10.0.0 > 10.0.0.2", "is no address"),
        ("tcp 10.0.0.1 > fd00::1", "two IP versions"),
        ("icmp fd00::2 > fd00::1", "goes with the other IP version"),
        ("foo 10.0.0.1 > 10.0.0.2", "is no protocol"),
        ("from here tcp 10.0.0.1 > 10.0.0.2", "must be red, black, tunnel or peer NAME"),
        ("from peer carol tcp 10.0.0.1 > 10.0.0.2", "is no peer that is known"),
        ("tcp 10.0.0.1 > 10.0.0.2 flags syn,foo", "are no TCP flags"),
        ("udp 10.0.0.1 > 10.0.0.2 flags syn", "is nothing that such a packet"),
        ("udp 10.0.0.1 > 10.0.0.2 state old", "is no state"),
        ("udp 10.0.0.1 > 10.0.0.2 colour red", "is not known here"),
        ("icmp 10.0.0.1 > 10.0.0.2 type ping", "is no type"),
        ("udp 10.0.0.1 > 10.0.0.2 vlan 1", "is nothing that such a packet"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text, False, PEERS)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("tcp 10.0.0.1:7 > 10.0.0.2:80", IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=7, dport=80, flags="S", seq=1)),
        ("udp [fd00::1]:7 > [fd00::2]:53", IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=7, dport=53)),
        ("icmp 10.0.0.1 > 10.0.0.2 type 3 code 4", IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=3, code=4)),
        ("icmp6 fd00::1 > fd00::2", IPv6(src="fd00::1", dst="fd00::2") / ICMPv6EchoRequest(id=1, seq=1)),
    ],
)
def test_packets_are_built_as_they_should_be(text: str, made: Packet) -> None:
    built = build(parse(text, False, {}).sample)
    again = type(made)(built)
    for layer, checksum in (
        (IP, "chksum"),
        (TCP, "chksum"),
        (UDP, "chksum"),
        (ICMP, "chksum"),
        (ICMPv6EchoRequest, "cksum"),
    ):
        if layer in again:
            sum_of = getattr(again[layer], checksum)
            delattr(again[layer], checksum)
            assert getattr(type(made)(bytes(again))[layer], checksum) == sum_of
    for field in ("sport", "dport", "type", "code", "flags"):
        if hasattr(made.lastlayer(), field):
            assert getattr(again[type(made.lastlayer())], field) == getattr(made.lastlayer(), field)
    assert (again.src, again.dst) == (made.src, made.dst)


PACKET = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=7, dport=53) / b"x"
SIX = IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=7, dport=53) / b"x"


def captured(path: Path, link: int, packets: list[Packet], ng: bool = False) -> bytes:
    writer = PcapNgWriter(str(path)) if ng else PcapWriter(str(path), linktype=link)
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number
        writer.write(packet)
    writer.close()
    return path.read_bytes()


def test_captures(tmp_path: Path) -> None:
    ethernet = [Ether() / PACKET / Padding(b"\0" * 18), Ether() / Dot1Q(vlan=5) / SIX, Ether() / ARP()]
    for link, ng, packets in (
        (1, False, ethernet),
        (1, True, ethernet),
        (101, False, [PACKET, SIX]),
        (113, False, [CookedLinux(proto=0x0800) / PACKET]),
    ):
        captured(tmp_path / "x", link, packets, ng)
        found = list(read(tmp_path / "x"))
        assert [one.packet for one in found] == [bytes(PACKET), bytes(SIX), b""][: len(packets)]
        assert [round(one.when) for one in found] == [1_700_000_000 + n for n in range(len(packets))]
        assert [one.number for one in found] == list(range(1, len(packets) + 1))


@pytest.mark.parametrize("ng", [False, True])
def test_damaged_captures_end_in_words(tmp_path: Path, ng: bool) -> None:
    raw = captured(tmp_path / "x", 1, [Ether() / PACKET, Ether() / SIX] * 3, ng)
    pick = random.Random(5)
    refused = 0
    for _ in range(2000):
        bent = bytearray(raw[: pick.randrange(len(raw) + 1)] if pick.random() < 0.3 else raw)
        for _ in range(pick.randrange(4)):
            if bent:
                bent[pick.randrange(len(bent))] = pick.randrange(256)
        try:
            assert len(list(frames(bytes(bent)))) <= 6
        except CaptureError:
            refused += 1
    assert refused > 200


def test_what_is_no_capture(tmp_path: Path) -> None:
    for raw in (b"", b"\xd4\xc3\xb2\xa1", b"#!/bin/sh\n", b"\x0a\x0d\x0d\x0a" + bytes(40)):
        with pytest.raises(CaptureError):
            list(frames(raw))
