"""The red face between real sockets: two namespaces, a TUN in each, and what one reads the other writes."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from appliance.vchan.messages import Packets
from components.net import clear, virtio
from components.net import red as red_module
from components.net.face import READS
from components.net.tun import Tun
from tests.unit.fake_guest import FakeCounter
from tests.unit.net.kernel_tun import OFFLOADS, Net
from tests.unit.net.packets import payload, plain, tcp, udp

pytestmark = pytest.mark.usefixtures("loops")


@dataclass
class Wire:
    """An Out that hands each message on; ``space`` may be taken away."""

    sent: list[Packets] = field(default_factory=list)
    space: bool = True

    def send(self, message: Packets) -> bool:
        assert 20 <= len(message.packets) <= 65507
        self.sent.append(message)
        return True

    def room(self) -> bool:
        return self.space


class FakeGuest:
    """As much of a guest as red uses."""

    device, out_port, in_port = "tun", "plain_out", "plain_in"

    def __init__(self, tun: int) -> None:
        self.settings = {"mtu": 1420}
        self.devices = {self.device: tun}
        self.wire = Wire()
        self.counters: dict[str, FakeCounter] = {}
        self.events: list[str] = []
        self.log = self
        self.arrived: Callable[[float], bool]
        self.depart: Callable[[Packets, float], None]

    def short_end(self, port: str) -> None:
        """No message goes the short way here."""

    def info(self, event: str, text: str) -> None:
        self.events.append(event)

    def on_open(self, port: str, handler: Callable[[float], None]) -> None:
        assert port == "log"
        handler(0.0)

    def counter(self, name: str) -> FakeCounter:
        return self.counters.setdefault(name, FakeCounter())

    def out(self, port: str) -> Wire:
        assert port == self.out_port
        return self.wire

    def readable(self, device: str, handler: Callable[[float], bool], into: object) -> None:
        assert device == self.device and into == (self.wire,)
        self.arrived = handler

    def receive(self, port: str, handler: Callable[[Packets, float], None]) -> None:
        assert port == self.in_port
        self.depart = handler


def face(tun: int) -> FakeGuest:
    guest = FakeGuest(tun)
    red_module.build(guest)  # type: ignore[arg-type]
    return guest


@dataclass
class Bench:
    """Two ends: a namespace and a red face each, and a thread that carries groups between them."""

    nets: list[Net]
    faces: list[FakeGuest]
    offloads: tuple[int, int]
    stop: threading.Event = field(default_factory=threading.Event)

    def carry(self) -> None:
        tuns = [face.devices["tun"] for face in self.faces]
        while not self.stop.is_set():
            for fd in select.select(tuns, [], [], 0.05)[0]:
                here = tuns.index(fd)
                mine, other = self.faces[here], self.faces[1 - here]
                while mine.arrived(time.monotonic()):
                    pass
                for group in mine.wire.sent:
                    other.depart(group, time.monotonic())
                mine.wire.sent.clear()


@pytest.fixture(params=[(OFFLOADS, OFFLOADS), (0, OFFLOADS), (OFFLOADS, 0)], ids=["both", "second", "first"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    nets, faces = [], []
    for i, offloads in enumerate(request.param):
        net = Net()
        faces.append(face(net.tun("t", offloads, f"10.3.0.{i + 1}/24", f"fd03::{i + 1}/64", mtu=1420)))
        nets.append(net)
    bench = Bench(nets, faces, request.param)
    thread = threading.Thread(target=bench.carry, daemon=True)
    thread.start()
    yield bench
    bench.stop.set()
    thread.join()
    for net, end in zip(nets, faces, strict=True):
        os.close(end.devices["tun"])
        net.close()


@pytest.mark.root
@pytest.mark.parametrize("address", ["10.3.0.2", "fd03::2"])
def test_a_real_transfer_arrives_as_it_was_sent(bench: Bench, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = bench.nets[1].do(lambda: socket.create_server((address, 5000), family=family))
    client = bench.nets[0].do(lambda: socket.socket(family))
    data = payload(1 << 20) * 8
    received = hashlib.md5(usedforsecurity=False)

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while block := connection.recv(1 << 16):
                received.update(block)
            connection.sendall(b"done")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with client:
        client.settimeout(20)
        client.connect((address, 5000))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(4) == b"done"
    thread.join()
    server.close()
    assert received.digest() == hashlib.md5(data, usedforsecurity=False).digest()
    for end in bench.faces:
        assert end.counters["malformed"].value == end.counters["bad_checksum"].value == 0
        assert end.counters["write_errors"].value == 0
    sender = bench.faces[0].counters
    assert sender["packets_in"].value > len(data) / 1420
    if bench.offloads[0]:
        assert sender["packets_in"].value / sender["groups_in"].value > 5  # groups, not packets


@pytest.mark.root
@pytest.mark.parametrize("address", ["10.3.0.2", "fd03::2"])
def test_real_datagrams_arrive_as_they_were_sent(bench: Bench, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    receiver = bench.nets[1].do(lambda: socket.socket(family, socket.SOCK_DGRAM))
    sender = bench.nets[0].do(lambda: socket.socket(family, socket.SOCK_DGRAM))
    with receiver, sender:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind((address, 5001))
        receiver.settimeout(5)
        udp_segment = 103
        data = payload(1000 * 40 + 7)
        sender.setsockopt(socket.SOL_UDP, udp_segment, 1000)
        sender.sendto(data, (address, 5001))
        got = [receiver.recv(2000) for _ in range(41)]
    assert got == [data[i : i + 1000] for i in range(0, len(data), 1000)]


@pytest.fixture
def pipe() -> Iterator[tuple[FakeGuest, socket.socket]]:
    """A face over a socket that keeps packets apart, in place of a TUN."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0.5)
    with ours, theirs:
        yield face(theirs.fileno()), ours


class ClearGuest(FakeGuest):
    device, out_port, in_port = "outer_tun", "arrived", "departing"


def test_the_face_to_the_outside_does_the_same_on_its_own_device() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    packet = b"\x45" + bytes(19) + b"hello"
    with ours, theirs:
        ours.settimeout(0.5)
        guest = ClearGuest(theirs.fileno())
        clear.build(guest)  # type: ignore[arg-type]
        ours.send(virtio.PLAIN + packet)
        assert guest.arrived(0.0) is False
        assert [bytes(group.packets) for group in guest.wire.sent] == [packet]
        guest.depart(Packets(packet, len(packet)), 0.0)
        assert ours.recv(2000) == virtio.PLAIN + packet
    assert "loops" in guest.events


def test_red_says_which_loops_run(pipe: tuple[FakeGuest, socket.socket], loops: str) -> None:
    guest, _ = pipe
    assert guest.counters["compiled"].value == (loops == "fast")
    assert guest.events == ["loops"]


def test_what_waits_is_read_in_one_turn_and_grouped_by_size(pipe: tuple[FakeGuest, socket.socket]) -> None:
    guest, kernel = pipe
    packets = [udp(4, payload(50, i)) for i in range(5)] + [udp(4, payload(90, i)) for i in range(3)]
    for packet in packets:
        kernel.send(plain(packet))
    assert guest.arrived(0.0) is False
    assert [(g.size, g.packets, g.peer) for g in guest.wire.sent] == [
        (78, b"".join(packets[:5]), 0),
        (118, b"".join(packets[5:]), 0),
    ]
    assert guest.counters["packets_in"].value == 8 and guest.counters["groups_in"].value == 2


def test_a_turn_is_bounded(pipe: tuple[FakeGuest, socket.socket]) -> None:
    guest, kernel = pipe
    for i in range(READS + 1):
        kernel.send(plain(udp(4, payload(50, i))))
    assert guest.arrived(0.0) is True
    assert guest.counters["packets_in"].value == READS
    assert guest.arrived(0.0) is False
    assert guest.counters["packets_in"].value == READS + 1


def test_without_room_what_was_read_waits_for_the_next_turn(pipe: tuple[FakeGuest, socket.socket]) -> None:
    guest, kernel = pipe
    for _ in range(3):
        kernel.send(plain(udp(4, payload(50))))
    guest.wire.space = False
    assert guest.arrived(0.0) is True
    assert guest.wire.sent == []
    guest.wire.space = True
    assert guest.arrived(0.0) is False
    assert [len(g.packets) // g.size for g in guest.wire.sent] == [3]


def test_what_is_malformed_or_too_large_is_counted(pipe: tuple[FakeGuest, socket.socket]) -> None:
    guest, kernel = pipe
    kernel.send(b"\0" * 12)
    kernel.send(plain(udp(4, payload(1400))))
    kernel.send(plain(udp(4, payload(1392))))
    assert guest.arrived(0.0) is False
    assert guest.counters["malformed"].value == 2 and guest.counters["packets_in"].value == 1


class Refusing(Tun):
    """A TUN of a kernel that knows no USO, or of one whose interface is down."""

    def __init__(self, fd: int, refusal: int) -> None:
        super().__init__(fd)
        self.refusal = refusal
        self.written: list[bytes] = []

    def write(self, buffer: bytes) -> int:
        if self.refusal == errno.EIO or buffer[1] == 5:
            return self.refusal
        self.written.append(buffer)
        return 0


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.EIO])
def test_refused_writes(pipe: tuple[FakeGuest, socket.socket], monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    tuns: list[Refusing] = []

    def make(fd: int) -> Refusing:
        tuns.append(Refusing(fd, refusal))
        return tuns[-1]

    monkeypatch.setattr(red_module, "Tun", make)
    guest = face(pipe[0].devices["tun"])
    packets = [udp(4, payload(100, i), id=i) for i in range(3)]
    for _ in range(2):
        guest.depart(Packets(memoryview(b"".join(packets)), len(packets[0]), 1), 0.0)
    if refusal == errno.EINVAL:
        assert tuns[0].written == [plain(p) for p in packets] * 2
        assert guest.events == ["loops", "no-uso"] and guest.counters["write_errors"].value == 0
    else:
        assert tuns[0].written == [] and guest.counters["write_errors"].value == 2
    assert guest.counters["packets_out"].value == 6


def test_a_superpacket_is_written_at_once(pipe: tuple[FakeGuest, socket.socket]) -> None:
    guest, kernel = pipe
    packets = [tcp(4, payload(1000, i), id=i, seq=1000 * i) for i in range(20)]
    guest.depart(Packets(memoryview(b"".join(packets)), len(packets[0]), 1), 0.0)
    assert len(kernel.recv(70000)) == 10 + 52 + 20000


def test_an_unknown_error_is_not_swallowed() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        Tun(write).write(b"x")
    os.close(write)
