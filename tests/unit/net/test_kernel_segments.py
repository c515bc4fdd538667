"""The kernel as oracle: it routes superpackets from one TUN to another that has no offloads, and so must segment."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from appliance.vchan.messages import Packets
from components.net.coalesce import coalesce
from components.net.split import split
from tests.unit.net.kernel_tun import OFFLOADS, Net, read_all
from tests.unit.net.packets import cut, hop, offloaded, payload, plain, tcp, udp

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("loops")]


@pytest.fixture(scope="module")
def route() -> Iterator[tuple[int, int]]:
    """Two TUNs with a router between: packets from 10.1.0.2 to 10.2.0.2 go in at the first and out at the second."""
    net = Net()
    tuns = (
        net.tun("a", OFFLOADS, "10.1.0.1/24", "fd01::1/64"),
        net.tun("b", 0, "10.2.0.1/24", "fd02::1/64"),
    )
    net.sysctl("ipv4/ip_forward", 1)
    net.sysctl("ipv6/conf/all/forwarding", 1)
    read_all(tuns[1], 0.2)
    yield tuns
    for fd in tuns:
        os.close(fd)
    net.close()


def routed(route: tuple[int, int], buffers: list[bytes]) -> list[bytes]:
    """What the kernel makes of writes to the first TUN, as read from the second."""
    for buffer in buffers:
        os.write(route[0], buffer)
    reads = [read for read in read_all(route[1]) if read[10:14] != b"\x60\0\0\0" or read[16] in (6, 17)]
    assert all(read[:10] == bytes(10) for read in reads), "the second TUN has no offloads"
    return [read[10:] for read in reads]


CASES = [
    ("tcp", {"flags": "A"}, 5000, 1380),
    ("tcp", {"flags": "FPA"}, 5001, 1380),
    ("tcp", {"flags": "CEPA", "tos": 1}, 5001, 1001),
    ("tcp", {"flags": "PA", "options": [], "id": 65534, "seq": 2**32 - 2000}, 4000, 999),
    ("tcp", {"flags": "A", "df": False}, 60000, 1380),
    ("udp", {}, 5000, 1380),
    ("udp", {"id": 65535}, 5001, 1001),
]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("case", CASES)
def test_split_makes_what_the_kernel_makes(
    route: tuple[int, int], version: int, case: tuple[str, dict[str, object], int, int]
) -> None:
    kind, fields, length, mss = case
    whole = (tcp if kind == "tcp" else udp)(version, payload(length), **dict(fields))
    ecn = "C" in str(fields.get("flags", ""))
    kernels = routed(route, [offloaded(whole, mss, ecn)])
    ours = cut(split(memoryview(offloaded(hop(whole), mss, ecn))))
    assert len(ours) == -(-length // mss)
    assert kernels == ours


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", [tcp, udp])
def test_a_checksum_is_filled_in_as_the_kernel_does(route: tuple[int, int], version: int, kind) -> None:  # type: ignore[no-untyped-def]
    packet = kind(version, payload(501))
    assert routed(route, [offloaded(packet, 0)]) == [hop(packet)]
    assert cut(split(memoryview(offloaded(packet, 0)))) == [packet]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("last", [1000, 301])
def test_the_kernel_takes_a_tcp_superpacket_apart_into_what_went_in(
    route: tuple[int, int], version: int, last: int
) -> None:
    packets = [
        tcp(version, payload(last if i == 9 else 1000, i), id=7 + i, seq=1000 * i, flags="PA" if i == 9 else "A")
        for i in range(10)
    ]
    buffers = coalesce(Packets(b"".join(packets), len(packets[0]), 1), True).buffers
    assert len(buffers) == 1
    assert routed(route, buffers) == [hop(packet) for packet in packets]


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_takes_a_udp_superpacket_apart_into_what_went_in(route: tuple[int, int], version: int) -> None:
    packets = [udp(version, payload(300 if i == 9 else 1000, i), id=7 + i) for i in range(10)]
    buffers = coalesce(Packets(b"".join(packets), len(packets[0]), 1), True).buffers
    assert len(buffers) == 1
    assert routed(route, buffers) == [hop(packet) for packet in packets]


def test_a_corrupt_packet_arrives_corrupt(route: tuple[int, int]) -> None:
    packets = [tcp(4, payload(1000, i), id=7 + i, seq=1000 * i) for i in range(4)]
    packets[2] = packets[2][:-1] + bytes([packets[2][-1] ^ 1])
    buffers = coalesce(Packets(b"".join(packets), len(packets[0]), 1), True).buffers
    assert plain(packets[2]) in buffers
    assert routed(route, buffers) == [hop(packet) for packet in packets]
