"""The socket, on loopback: real groups through a real kernel; and each refusal of a kernel, played."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from components.net.udp import LOSSES, SOL_UDP, UDP_GRO, UDP_SEGMENT, Arrival, UdpSocket

LOOPBACK = {4: bytes((127, 0, 0, 1)), 16: bytes(15) + b"\1"}


class End:
    """One bound socket on loopback."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.raw = socket.socket(family, socket.SOCK_DGRAM)
        self.raw.setsockopt(SOL_UDP, UDP_GRO, 1)
        if family == socket.AF_INET6:
            self.raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.raw.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        self.port = self.raw.getsockname()[1]
        self.udp = UdpSocket(self.raw.dup().detach())
        self.address = LOOPBACK[self.udp.address_bytes]

    def receive(self) -> list[tuple[bytes, int, bytes, int]]:
        """All that is there, after waiting for the first."""
        assert select.select([self.raw], [], [], 5)[0], "nothing arrived"
        out = []
        while (arrival := self.udp.receive()) is not None:
            out.append((bytes(arrival.untrusted), *arrival[1:]))
        return out

    def close(self) -> None:
        self.raw.close()


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    pair = End(request.param), End(request.param)
    yield pair
    for end in pair:
        end.close()


def test_a_single_datagram(ends: tuple[End, End]) -> None:
    here, there = ends
    assert here.udp.send(memoryview(b"x" * 100), 100, there.address, there.port) == 1
    assert there.receive() == [(b"x" * 100, 100, here.address, here.port)]
    assert there.udp.receive() is None


@pytest.mark.parametrize(("size", "count", "tail"), [(1452, 44, 0), (1452, 43, 200), (64, 64, 0), (33, 63, 32)])
def test_a_group_arrives_whole_in_one_call(ends: tuple[End, End], size: int, count: int, tail: int) -> None:
    here, there = ends
    group = b"".join(bytes((n,)) * size for n in range(count)) + b"t" * tail
    assert here.udp.send(memoryview(group), size, there.address, there.port) == count + (tail > 0)
    assert there.receive() == [(group, size, here.address, here.port)]


def test_what_was_sent_one_by_one_is_joined_where_it_makes_a_group(ends: tuple[End, End]) -> None:
    here, there = ends
    for size in (100, 200, 200, 50, 50, 300):
        here.udp.send(memoryview(bytes((size % 251,)) * size), size, there.address, there.port)
    arrived = there.receive()
    assert [(len(blob), size) for blob, size, _, _ in arrived] == [(100, 100), (450, 200), (50, 50), (300, 300)]
    assert arrived[1][0] == bytes((200,)) * 400 + bytes((50,)) * 50


def test_only_one_source_makes_a_group(ends: tuple[End, End]) -> None:
    here, there = ends
    other = socket.socket(here.raw.family, socket.SOCK_DGRAM)
    other.connect(there.raw.getsockname())
    for number in range(6):
        if number % 3 == 2:
            other.send(bytes((number,)) * 90)
        else:
            here.udp.send(memoryview(bytes((number,)) * 90), 90, there.address, there.port)
    arrived = there.receive()
    assert [blob[::90] for blob, *_ in arrived] == [b"\0\1", b"\2", b"\3\4", b"\5"]
    assert [port == here.port for *_, port in arrived] == [True, False, True, False]
    other.close()


def test_a_group_has_its_bounds(ends: tuple[End, End]) -> None:
    here, there = ends
    for _ in range(70):
        here.udp.send(memoryview(bytes(64)), 64, there.address, there.port)
    assert [len(blob) for blob, *_ in there.receive()] == [64 * 64, 6 * 64]
    for _ in range(3):
        here.udp.send(memoryview(bytes(30_000)), 30_000, there.address, there.port)
    assert [len(blob) for blob, *_ in there.receive()] == [60_000, 30_000]


def test_an_empty_datagram_is_empty_and_not_the_end(ends: tuple[End, End]) -> None:
    here, there = ends
    here.raw.sendto(b"", there.raw.getsockname())
    here.udp.send(memoryview(b"more"), 4, there.address, there.port)
    first, second = there.receive()
    assert (first[0], second[0]) == (b"", b"more")


def test_what_the_kernel_refuses_as_a_group_is_sent_one_by_one(ends: tuple[End, End]) -> None:
    here, there = ends
    count, size = 200, 100  # more than UDP_MAX_SEGMENTS of any kernel so far
    group = bytes(count * size)
    assert here.udp.send(memoryview(group), size, there.address, there.port) == count
    assert sum(len(blob) for blob, *_ in there.receive()) == len(group)
    assert here.udp.segments, "the next group may fit"


def test_too_long_for_any_datagram_is_lost_and_counted(ends: tuple[End, End]) -> None:
    here, there = ends
    assert here.udp.send(memoryview(bytes(65_535)), 65_535, there.address, there.port) == 0
    assert there.udp.receive() is None


def test_nobody_there_is_no_error(ends: tuple[End, End]) -> None:
    here, there = ends
    port = there.port
    there.raw.connect(("127.0.0.1" if there.udp.address_bytes == 4 else "::1", 9))  # deaf to others from now on
    assert here.udp.send(memoryview(b"x"), 1, here.address, port) == 1
    assert here.udp.receive() is None


@pytest.mark.parametrize(
    ("family", "kind"),
    [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_DGRAM)],
)
def test_only_a_udp_socket_of_one_family_is_taken(family: socket.AddressFamily, kind: socket.SocketKind) -> None:
    with pytest.raises(ValueError, match=r"no UDP socket|takes IPv4 too"):
        UdpSocket(socket.socket(family, kind).detach())


class Playing:
    """A kernel that refuses: plays one errno after the other, then takes everything."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.taken: list[tuple[bytes, bool]] = []

    def _next(self) -> None:
        if self.errors and (error := self.errors.pop(0)):
            raise OSError(error, "played")

    def sendmsg(self, buffers: list[memoryview], ancillary: list[Any], flags: int, target: Any) -> int:
        self._next()
        self.taken.append((b"".join(buffers), bool(ancillary)))
        assert all(item[:2] == (SOL_UDP, UDP_SEGMENT) for item in ancillary)
        return 0

    def recvmsg_into(self, buffers: list[memoryview], space: int) -> tuple[int, list[Any], int, tuple[str, int]]:
        self._next()
        buffers[0][:3] = b"abc"
        return 3, [], (socket.MSG_TRUNC if self.errors else 0), ("127.0.0.1", 7)


@pytest.fixture
def playing() -> Iterator[tuple[UdpSocket, Playing]]:
    end = End(socket.AF_INET)
    kernel = Playing()
    real, end.udp._socket = end.udp._socket, kernel  # type: ignore[assignment]
    yield end.udp, kernel
    end.udp._socket = real
    end.close()


def test_a_device_without_checksum_offload_gets_single_datagrams_for_good(playing: tuple[UdpSocket, Playing]) -> None:
    udp, kernel = playing
    kernel.errors = [errno.EIO]
    assert udp.send(memoryview(b"aabbc"), 2, LOOPBACK[4], 9) == 3
    assert not udp.segments
    assert udp.send(memoryview(b"dde"), 2, LOOPBACK[4], 9) == 2
    assert kernel.taken == [(one, False) for one in (b"aa", b"bb", b"c", b"dd", b"e")]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EMSGSIZE])
def test_a_path_too_narrow_gets_single_datagrams_once(playing: tuple[UdpSocket, Playing], error: int) -> None:
    udp, kernel = playing
    kernel.errors = [error]
    assert udp.send(memoryview(b"aabb"), 2, LOOPBACK[4], 9) == 2
    assert udp.send(memoryview(b"ccdd"), 2, LOOPBACK[4], 9) == 2
    assert kernel.taken == [(b"aa", False), (b"bb", False), (b"ccdd", True)]


@pytest.mark.parametrize("error", sorted(LOSSES - {errno.EIO, errno.EINVAL, errno.EMSGSIZE}))
def test_a_loss_is_a_loss(playing: tuple[UdpSocket, Playing], error: int) -> None:
    udp, kernel = playing
    kernel.errors = [error]
    assert udp.send(memoryview(b"aabb"), 2, LOOPBACK[4], 9) == 0
    assert udp.send(memoryview(b"aabb"), 2, LOOPBACK[4], 9) == 2
    assert udp.segments


def test_a_single_loss_costs_one_datagram(playing: tuple[UdpSocket, Playing]) -> None:
    udp, kernel = playing
    udp.segments = False
    kernel.errors = [0, errno.ENOBUFS]
    assert udp.send(memoryview(b"aabbcc"), 2, LOOPBACK[4], 9) == 2
    assert [one for one, _ in kernel.taken] == [b"aa", b"cc"]


def test_a_broken_socket_is_no_loss(playing: tuple[UdpSocket, Playing]) -> None:
    udp, kernel = playing
    kernel.errors = [errno.EBADF, errno.ENOTSOCK]
    with pytest.raises(OSError, match="played"):
        udp.send(memoryview(b"aabb"), 2, LOOPBACK[4], 9)
    with pytest.raises(OSError, match="played"):
        udp.receive()


def test_an_error_about_an_earlier_datagram_is_not_the_end(playing: tuple[UdpSocket, Playing]) -> None:
    udp, kernel = playing
    kernel.errors = [errno.ECONNREFUSED]
    first = udp.receive()
    assert first is not None and not first.untrusted
    assert udp.receive() == Arrival(memoryview(b"abc" * 64), 3, LOOPBACK[4], 7)
    kernel.errors = [errno.EAGAIN]
    assert udp.receive() is None


def test_what_the_buffer_cannot_hold_is_lost_whole(playing: tuple[UdpSocket, Playing]) -> None:
    udp, kernel = playing
    kernel.errors = [0, 0]  # one is left when the flags are made up: MSG_TRUNC
    truncated = udp.receive()
    assert truncated is not None and not truncated.untrusted
