"""Frames to groups and back, between made-up bytes and between real packet sockets on a veth."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP  # type: ignore[import-untyped]
from scapy.layers.l2 import ARP, Ether  # type: ignore[import-untyped]

from appliance.vchan.codec import Codec
from appliance.vchan.messages import Frames
from appliance.vchan.schema import schema
from components.net import virtio
from components.net.frames import LONGEST, FrameGrouper, FrameWrites, alone, unframe
from components.net.packetsocket import AUXDATA, PACKET_AUXDATA, SOL_PACKET, _tag
from components.net.split import Malformed, split
from tests.unit.net.packets import payload, tcp, udp

pytestmark = pytest.mark.usefixtures("loops")

MACS = bytes.fromhex("020000000001020000000002")
TEN = bytes.fromhex("8100000a")
TWENTY = bytes.fromhex("88a80014")


def read(frame: bytes, header: bytes = virtio.PLAIN) -> memoryview:
    return memoryview(header + frame)


def test_a_frame_is_a_link_header_and_a_payload() -> None:
    packet = udp(4, b"hello")
    for tags in (b"", TEN, TWENTY + TEN):
        link = MACS + tags + b"\x08\x00"
        assert unframe(read(link + packet), b"") == (link, [(packet, len(packet))])


def test_a_tag_that_the_kernel_took_out_is_put_back() -> None:
    packet = udp(6, b"hello")
    assert unframe(read(MACS + b"\x86\xdd" + packet), TEN)[0] == MACS + TEN + b"\x86\xdd"
    assert unframe(read(MACS + TEN + b"\x86\xdd" + packet), TWENTY)[0] == MACS + TWENTY + TEN + b"\x86\xdd"
    link, pairs = unframe(read(MACS + TEN + TEN + b"\x86\xdd" + packet), TWENTY)
    assert link == MACS + TWENTY + TEN + b"\x81\x00", "a third tag is left in the payload"
    assert pairs[0][0] == TEN[2:] + b"\x86\xdd" + packet


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("0800", udp(4, b"")),
        ("86dd", udp(6, b"")),
        ("0806", bytes(ARP(hwsrc="02:00:00:00:00:02", psrc="10.0.0.1", pdst="10.0.0.2"))),
        ("0026", b"\x42\x42\x03" + bytes(35)),
    ],
)
def test_padding_is_not_passed_on(kind: str, body: bytes) -> None:
    link = MACS + bytes.fromhex(kind)
    assert unframe(read(link + body + bytes(18)), b"") == (link, [(body, len(body))])
    assert unframe(read(link + body[:-1]), b"")[1] == [(body[:-1], len(body) - 1)], "what lies goes on as it came"


@pytest.mark.parametrize(
    "frame", [b"", MACS, MACS + b"\x08\x00", MACS + TEN, MACS + TEN + b"\x08\x00", bytes(LONGEST + 1)]
)
def test_no_frame(frame: bytes) -> None:
    with pytest.raises(Malformed):
        unframe(read(frame), b"")


def superframe(
    version: int, transport: int, size: int, count: int, tags: bytes = b""
) -> tuple[bytes, bytes, list[bytes]]:
    """A virtio_net_hdr, a superframe, and the packets that it stands for."""
    data = payload(size * count)
    make = tcp if transport == virtio.TCP else udp
    whole = bytearray(make(version, data))
    start = 20 if version == 4 else 40
    header = len(whole) - len(data)
    check = start + (virtio.TCP_CHECK if transport == virtio.TCP else virtio.UDP_CHECK)
    addresses = whole[12:20] if version == 4 else whole[8:40]
    words = bytes(addresses) + bytes((0, transport)) + (len(whole) - start).to_bytes(2, "big")
    pseudo = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words), 2)) % 0xFFFF
    whole[check : check + 2] = pseudo.to_bytes(2, "big")
    kind = virtio.GSO_UDP_L4 if transport == virtio.UDP else {4: virtio.GSO_TCPV4, 6: virtio.GSO_TCPV6}[version]
    at = 14 + len(tags)
    of_frame = virtio.HEADER.pack(1, kind, header + at, size, start + at, check - start)
    of_packet = virtio.HEADER.pack(1, kind, header, size, start, check - start)
    packets = [blob[i : i + n] for blob, n in split(memoryview(of_packet + whole)) for i in range(0, len(blob), n)]
    link = MACS + tags + (b"\x08\x00" if version == 4 else b"\x86\xdd")
    return of_frame, link + bytes(whole), packets


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("transport", [virtio.TCP, virtio.UDP])
@pytest.mark.parametrize("tags", [b"", TEN])
def test_superframes_are_cut_and_made_again(version: int, transport: int, tags: bytes) -> None:
    header, frame, packets = superframe(version, transport, 1000, 12, tags)
    link, pairs = unframe(read(frame, header), b"")
    assert b"".join(blob for blob, _ in pairs) == b"".join(packets) and len(packets) == 12
    (group,) = grouped([(link, *pair) for pair in pairs])
    writes = FrameWrites(group, udp=True)
    assert not writes.bad
    (written,) = (b"".join(pieces) for pieces in writes.buffers)
    if transport == virtio.UDP or version == 6:
        assert written == header + frame
    again, same = unframe(memoryview(written), b"")
    assert again == link and b"".join(blob for blob, _ in same) == b"".join(packets)
    assert [b"".join(pieces) for pieces in alone(group)] == [virtio.PLAIN + link + packet for packet in packets]


def grouped(added: list[tuple[bytes, bytes, int]]) -> list[Frames]:
    grouper = FrameGrouper()
    for one in added:
        grouper.add(*one)
    return grouper.all()


def test_frames_of_one_header_make_a_group_whoever_else_talks() -> None:
    one, other = MACS + b"\x08\x00", MACS[::-1] + b"\x08\x00"
    groups = grouped([(link, bytes([i]) * 100, 100) for i in range(10) for link in (one, other)])
    assert [(group.link, len(group.payloads), group.size) for group in groups] == [(one, 1000, 100), (other, 1000, 100)]
    assert grouped([]) == []


def test_what_is_no_ip_goes_frame_by_frame() -> None:
    link = MACS + b"\x88\xb5"
    writes = FrameWrites(Frames(b"abcdefgh", 3, link), udp=True)
    assert [b"".join(pieces) for pieces in writes.buffers] == [
        virtio.PLAIN + link + part for part in (b"abc", b"def", b"gh")
    ]


def test_the_tag_in_what_the_kernel_says_beside_a_frame() -> None:
    def said(status: int, control: int = 0xA00A, protocol: int = 0x88A8) -> bytes:
        return _tag([(SOL_PACKET, PACKET_AUXDATA, AUXDATA.pack(status, 60, 60, 0, 14, control, protocol))])

    assert said(1) == b""
    assert said(1 | 1 << 4) == bytes.fromhex("8100a00a")
    assert said(1 | 1 << 4 | 1 << 6) == bytes.fromhex("88a8a00a")
    assert _tag([]) == b"" and _tag([(1, PACKET_AUXDATA, bytes(20))]) == b"" and _tag([(SOL_PACKET, 8, b"x")]) == b""


@given(st.binary(max_size=120), st.binary(min_size=virtio.HEADER.size, max_size=virtio.HEADER.size), st.booleans())
def test_whatever_comes_is_frames_that_the_channel_takes_or_malformed(
    frame: bytes, header: bytes, tagged: bool
) -> None:
    codec = Codec(schema("frames").forward)
    try:
        link, pairs = unframe(read(frame, header), TEN if tagged else b"")
    except Malformed:
        return
    for group in grouped([(link, *pair) for pair in pairs]):
        codec.encode(group)
        for pieces in FrameWrites(group, udp=True).buffers:
            assert unframe(memoryview(b"".join(pieces)), b"")[0][:12] == frame[:12]


def test_a_frame_as_scapy_has_it() -> None:
    packet = IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / random.Random(1).randbytes(9)
    frame = bytes(Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / packet)
    assert unframe(read(frame), b"") == (MACS + b"\x08\x00", [(bytes(packet), 37)])
