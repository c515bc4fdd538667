"""A filter that was reborn: established connections go on, and nothing else gets in by it."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from dataclasses import dataclass, field

import pytest
from scapy.layers.inet import IP, TCP  # type: ignore[import-untyped]
from scapy.layers.inet6 import IPv6  # type: ignore[import-untyped]

from appliance.vchan.messages import Packets
from components.filter.engine import Engine
from components.filter.model import Side
from components.net.coalesce import coalesce
from components.net.split import split
from tests.unit.filter.talk import Box, back, engine, tcp_back, tcp_out
from tests.unit.net.kernel_tun import OFFLOADS, Net

STAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (7, 9))]


@pytest.mark.parametrize("version", [4, 6])
def test_a_segment_without_a_flow_becomes_a_question_without_its_data(version: int) -> None:
    box = Box()
    segment = back(version) / TCP(sport=443, dport=40000, flags="PA", seq=1000, ack=5, options=STAMPS) / b"secret"
    assert not box.tunnel(segment)
    assert len(box.answers) == 1
    asked = (IP if version == 4 else IPv6)(box.answers[0])
    assert (asked.src, asked.dst) == (segment.src, segment.dst)
    assert asked[TCP].seq == (1000 - 2**30) % 2**32 and asked[TCP].flags == "A" and asked[TCP].ack == 5
    assert asked[TCP].options == STAMPS and bytes(asked[TCP].payload) == b""
    clean = asked.copy()
    del clean[TCP].chksum
    if version == 4:
        del clean.chksum
    assert bytes(clean) == box.answers[0], "checksums and lengths are right"


def test_the_answer_of_a_host_that_has_the_connection_opens_the_flow_again() -> None:
    box = Box()
    assert not box.tunnel(tcp_back("A"))
    assert box.red(tcp_out("A")) and box.tunnel(tcp_back("A"))


def test_the_answer_of_a_host_that_has_none_opens_nothing_and_tells_nothing() -> None:
    box = Box()
    assert not box.tunnel(tcp_back("A"))
    assert not box.red(tcp_out("R")) and not box.red(tcp_out("RA"))
    assert not box.tunnel(tcp_back("A")) and len(box.engine.flows) == 0


def test_only_what_a_connection_sends_in_its_middle_is_asked_about() -> None:
    box = Box()
    for flags in ("S", "SA", "R", "RA", "F", ""):
        assert not box.tunnel(tcp_back(flags))
    assert box.answers == []
    assert not box.tunnel(tcp_back("FA")) and len(box.answers) == 1


def test_questions_are_few() -> None:
    box = Box()
    for _ in range(100):
        box.tunnel(tcp_back("A"))
    assert len(box.answers) == 1, "one a flow"
    box.now += 0.3
    box.tunnel(tcp_back("A"))
    assert len(box.answers) == 2
    segment = bytearray(tcp_back("A"))
    for port in range(1, 5000):
        segment[22:24] = port.to_bytes(2, "big")
        box.tunnel(segment)
    assert len(box.answers) <= 260
    box.now += 1.0
    for port in range(1, 5000):
        segment[22:24] = port.to_bytes(2, "big")
        box.tunnel(segment)
    assert 300 <= len(box.answers) <= 325


@dataclass
class Gateway:
    """Two TUNs and a filter between them that can be taken away and replaced: the first TUN is the red side."""

    tuns: list[int]
    filter: Engine | None = field(default_factory=engine)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            for fd in select.select(self.tuns, [], [], 0.05)[0]:
                here = self.tuns.index(fd)
                try:
                    read = os.read(fd, 65600)
                except BlockingIOError:
                    continue
                for blob, size in split(memoryview(read)):
                    self.carry(Packets(blob, size, here), here)

    def carry(self, group: Packets, here: int) -> None:
        core, now = self.filter, time.monotonic()
        if core is None:
            return
        outcome = core.judge(group, Side.TUNNEL if here else Side.RED, now, 0.0)
        for side, one in [*outcome.passed, *outcome.answers]:
            self.write(self.tuns[0 if side is Side.RED else 1], one)

    @staticmethod
    def write(tun: int, group: Packets) -> None:
        for buffer in coalesce(group, True).buffers:
            os.write(tun, buffer)


@pytest.mark.root
@pytest.mark.parametrize("down", [0.0, 0.3])
@pytest.mark.parametrize("address", ["10.3.0.2", "fd03::2"])
def test_a_real_download_lives_through_a_new_filter(address: str, down: float) -> None:
    """The red side only receives: the hardest case, as it has nothing of its own to send."""
    nets, tuns = [], []
    for i in range(2):
        net = Net()
        tuns.append(net.tun("t", OFFLOADS, f"10.3.0.{i + 1}/24", f"fd03::{i + 1}/64", mtu=1420))
        nets.append(net)
    gateway = Gateway(tuns)
    thread = threading.Thread(target=gateway.run, daemon=True)
    thread.start()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = nets[1].do(lambda: socket.create_server((address, 5000), family=family))
    client = nets[0].do(lambda: socket.socket(family))
    data = bytes(range(256)) * 4096 * 24

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(data)

    sender = threading.Thread(target=serve, daemon=True)
    sender.start()
    received = bytearray()
    gaps = []
    with client:
        client.settimeout(10)
        client.connect((address, 5000))
        for _ in range(3):
            aim = len(received) + len(data) // 5
            while len(received) < aim:
                received += client.recv(1 << 16)
            gateway.filter = None
            time.sleep(down)
            fresh = engine()
            reborn = time.monotonic()
            gateway.filter = fresh
            # what had reached the socket before does not count: the flow must be there again
            while not len(fresh.flows):
                assert time.monotonic() < reborn + 5, "the connection was not picked up"
                time.sleep(0.001)
            gaps.append(time.monotonic() - reborn)
        while block := client.recv(1 << 16):
            received += block
    sender.join()
    gateway.stop.set()
    thread.join()
    server.close()
    for net, tun in zip(nets, tuns, strict=True):
        os.close(tun)
        net.close()
    print(f"picked up after {[round(gap * 1000) for gap in gaps]} ms")
    assert received == data
