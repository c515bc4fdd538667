"""The transparent filter between two halves of one network, which know nothing of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, LLC, STP, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapWriter

from tests.system.lab import MARKER, Transfer, iperf_server, ping, reaches, tcp_mbit, wait_for
from tests.system.lab.ends.septum import PROGRAM
from tests.system.lab.line import Bridge, Line, listening
from tests.system.lab.namespace import LabError, Namespace, run

pytestmark = pytest.mark.root

INSIDE, OUTSIDE = "02:00:00:00:09:02", "02:00:00:00:09:01"
GROUP = "01:80:c2:00:00:00"  # that bridges speak to each other by
ETH_P_ALL = 3


@pytest.fixture
def line() -> Iterator[Line]:
    with Line() as made:
        yield made


def put(namespace: Namespace, *frames: Packet) -> None:
    """Puts frames on the wire as they are."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", 0))
        for frame in frames:
            wire.send(bytes(frame))


def crosses(line: Line, *frames: Packet, outwards: bool = True) -> list[bool]:
    """Which of the frames come out at the other end; each must have MARKER and its number in it."""
    sender, receiver = (line.inside, line.outside) if outwards else (line.outside, line.inside)
    with listening(receiver) as heard:
        put(sender, *frames)
    return [any(mark(number) in frame for frame in heard.frames) for number in range(len(frames))]


def mark(number: int) -> bytes:
    return MARKER + bytes((number,))


def ether(**more: str) -> Packet:
    return Ether(**{"src": INSIDE, "dst": OUTSIDE, **more})


def udp(number: int, **more: int) -> Packet:
    return IP(src=Line.inside4, dst=Line.outside4) / UDP(**{"sport": 40000, "dport": 4000, **more}) / Raw(mark(number))


def test_two_halves_of_a_network_talk_through_a_box_without_an_address(line: Line) -> None:
    before = line.box.run("ip", "-brief", "address", "show", "lan0")
    with Bridge(line) as box, listening(line.inside) as inside, listening(line.outside) as outside:
        assert reaches(line.inside, line.outside4)
        assert reaches(line.inside, line.outside6)
        for address in (line.outside4, line.outside6):
            assert ping(line.inside, address, 5).loss == 0
        assert not ping(line.outside, line.inside4, 2, patience=0.5).times, "the outside may open nothing"
        with iperf_server(line.outside):
            assert tcp_mbit(line.inside, line.outside4, 2) > 1
            assert tcp_mbit(line.inside, line.outside6, 1, reverse=True) > 1
        counted = {name: domain["counters"] for name, domain in box.domains().items()}
        assert counted["black"]["frames_out"] > 2 * counted["black"]["groups_out"], "superframes go as groups"
        assert not counted["black"]["write_errors"] + counted["red"]["write_errors"] + counted["red"]["malformed"]
        status = box.status()
        assert status["network"]["tunnel"] is None
        assert status["bypasses"] == [
            {"port": "filter.black_out", "reason": "a transparent bridge: nothing is encrypted here"}
        ]
    ends = {hardware_address(line.inside), hardware_address(line.outside)}
    assert {frame[6:12] for frame in inside.frames + outside.frames} <= ends, "nobody else has said anything"
    assert line.box.run("ip", "-brief", "address", "show", "lan0") == before, "the interfaces are back as they were"
    assert "NOARP" not in line.box.run("ip", "link", "show", "lan0")


def test_the_running_bridge_explains_frames_and_refuses_what_it_cannot_do(line: Line, tmp_path: Path) -> None:
    rules = "allow established related vlan none, 7\nallow arp\nallow from red vlan 7 udp\n"
    with Bridge(line, rules) as box:
        name = box.name

        environment = [f"{key}={value}" for key, value in box.environment.items()]

        def explained(*words: str) -> list[dict[str, Any]]:
            command = (PROGRAM, "filter", "explain", *words, "--box", name, "--json")
            return list(json.loads(run("env", *environment, *command, check=False)))

        packet = f"udp {line.inside4}:4000 > {line.outside4}:53"
        told = explained("arp request", "stp", f"{packet} vlan 7", packet)
        assert [one["verdict"] for one in told] == ["allow", "drop", "allow", "drop"]
        assert [one["at"] and one["at"].rpartition(":")[2] for one in told] == ["2", None, "3", None]
        assert explained(f"{packet} vlan 7")[0]["state"].startswith("no flow"), "asking opens none"
        with listening(line.outside, length=2000) as heard:
            assert not reaches(line.inside, line.outside4, 0.1)
        writer = PcapWriter(str(tmp_path / "heard.pcap"), linktype=1)
        for frame in heard.frames:
            writer.write(Ether(frame))
        writer.close()
        told = explained("--pcap", str(tmp_path / "heard.pcap"))
        assert told and {one["at"].rpartition(":")[2] for one in told if "0x0806" in one["packet"]} == {"2"}
        nat = tmp_path / "nat.rules"
        nat.write_text("allow from red\nnat from red to black -> 192.0.2.1\n")
        with pytest.raises(LabError, match=r"nat\.rules:2:1: a bridge translates nothing"):
            box.septum("filter", "apply", str(nat), "--box", name)
        assert explained("arp request")[0]["verdict"] == "allow", "nothing was changed"


def hardware_address(namespace: Namespace) -> bytes:
    found = re.search(r"link/ether ([0-9a-f:]{17})", namespace.run("ip", "link", "show", "eth0"))
    assert found
    return bytes.fromhex(found[1].replace(":", ""))


def test_what_is_not_ip_passes_by_rule_alone(line: Line) -> None:
    arp = ether(dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=INSIDE, psrc=line.inside4, pdst=line.outside4)
    bad_arp = ether() / ARP(hwsrc=INSIDE, psrc=line.inside4, pdst=line.outside4, hwlen=4)
    stp = Dot3(src=INSIDE, dst=GROUP) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP()
    unknown, lldp = ether(type=0x88B5), ether(type=0x88CC, dst="01:80:c2:00:00:0e")
    netbeui = Dot3(src=INSIDE, dst=OUTSIDE) / LLC(dsap=0xF0, ssap=0xF0, ctrl=3)
    frames = [frame / Raw(mark(n)) for n, frame in enumerate((arp, bad_arp, stp, unknown, lldp, netbeui))]
    # ARP's packet ends where it says: what stands behind is padding, and is not passed on
    with Bridge(line):
        with listening(line.outside) as heard:
            put(line.inside, *frames)
        types = {frame[12:14] for frame in heard.frames if frame[6:12] == bytes.fromhex(INSIDE.replace(":", ""))}
        assert types == {b"\x08\x06"}
        assert not heard.count(MARKER)
    with Bridge(line, "allow stp\nallow ethertype lldp, 0x88b5"):
        assert crosses(line, *frames) == [False, False, True, True, True, False]
    with Bridge(line, "allow from red\nallow icmp6"):
        assert crosses(line, *frames) == [False] * 6
        assert not ping(line.inside, line.outside4, 2, patience=0.5).times, "without ARP nobody finds anybody"


def test_neighbours_are_found_by_rule_alone(line: Line) -> None:
    with Bridge(line, "allow established\nallow from red tcp\nallow icmp6 type echo-request"):
        assert not ping(line.inside, line.outside6, 2, patience=0.5).times
    found = "allow icmp6 type { neighbour-solicitation, neighbour-advertisement }\n"
    with Bridge(line, f"{found}allow established\nallow icmp6 type echo-request"):
        assert reaches(line.inside, line.outside6)


def test_tags_are_passed_on_and_judged(line: Line) -> None:
    """The kernel takes a tag out of the frame that it gives to a packet socket: it is put back."""
    plain = ether() / udp(0)
    ten, twenty = (ether() / Dot1Q(vlan=vlan, prio=5) / udp(n) for n, vlan in ((1, 10), (2, 20)))
    double = ether() / Dot1Q(vlan=10) / Dot1Q(vlan=20) / udp(3)
    priority = ether() / Dot1Q(vlan=0, prio=3) / udp(4)
    tagged_stp = ether(dst=GROUP) / Dot1Q(vlan=10, type=0x88B5) / Raw(mark(5))
    frames = [plain, ten, twenty, double, priority, tagged_stp]
    with Bridge(line):
        assert crosses(line, *frames) == [True, False, False, False, True, False]
    with Bridge(line, "allow vlan 10 from red"):
        with listening(line.outside) as heard:
            put(line.inside, *frames)
        (only,) = [frame for frame in heard.frames if MARKER in frame]
        assert only == bytes(ten), "to the byte"
    with Bridge(line, "allow vlan 10 ethertype 0x8100"):
        assert crosses(line, *frames) == [False, False, False, True, False, False]


def test_who_is_rejected_is_told_in_his_own_frames(line: Line) -> None:
    syn = IP(src=line.outside4, dst=line.inside4) / TCP(sport=5000, dport=80, flags="S", seq=7)
    back = {"src": OUTSIDE, "dst": INSIDE}
    rules = "reject from black tcp\nreject vlan 10 from black tcp\nreject from black udp"
    with Bridge(line, rules), listening(line.outside) as heard:
        put(
            line.outside,
            ether(**back) / syn,
            ether(**back) / Dot1Q(vlan=10) / syn,
            ether(**back) / IP(src=line.outside4, dst=line.inside4) / UDP(dport=53) / Raw(b"x"),
            ether(src=OUTSIDE, dst="ff:ff:ff:ff:ff:ff") / IP(src=line.outside4, dst=line.inside4) / UDP(dport=9),
        )
        time.sleep(0.5)
    told = [Ether(frame) for frame in heard.frames if frame[6:12] == bytes.fromhex(INSIDE.replace(":", ""))]
    assert all(frame.dst == OUTSIDE for frame in told)
    resets = [frame for frame in told if TCP in frame and frame[TCP].flags & 4]
    assert sorted(Dot1Q in frame for frame in resets) == [False, True]
    assert all(frame[TCP].ack == 8 for frame in resets)
    (unreachable,) = [frame for frame in told if ICMP in frame]
    assert (unreachable[ICMP].type, unreachable[ICMP].code) == (3, 13)


def test_an_address_by_dhcp(line: Line, tmp_path: Path) -> None:
    line.inside.run("ip", "-4", "address", "flush", "dev", "eth0")
    server = line.outside.start(
        "dnsmasq", "--keep-in-foreground", "--port=0", "--interface=eth0", "--bind-interfaces", "--log-dhcp",
        "--dhcp-range=192.168.9.100,192.168.9.100,2m", f"--dhcp-leasefile={tmp_path}/leases", "--user=root",
        f"--pid-file={tmp_path}/pid", "--conf-file=/dev/null",
    )  # fmt: skip
    try:
        with Bridge(line):
            wait_for("dnsmasq to listen", lambda: ":67" in line.outside.run("ss", "-Hlun"))
            line.inside.run(
                "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "1", "-s", "/bin/true"
            )
            assert " 192.168.9.100 " in (tmp_path / "leases").read_text()
    finally:
        server.terminate()
        server.wait(5)


@pytest.mark.parametrize("domain", ["filter", "red", "black", "log"])
def test_a_connection_outlives_each_domain(line: Line, domain: str) -> None:
    with Bridge(line) as box, Transfer(line.inside, line.outside, line.outside4, rate=1e6) as transfer:
        wait_for("bytes to arrive", lambda: transfer.received > 100_000)
        before = box.kill(domain)
        wait_for(f"{domain} to be back", lambda: box.domains()[domain]["pid"] not in (None, before))
        so_far = transfer.received
        wait_for("more bytes to arrive", lambda: transfer.received > so_far + 500_000, seconds=20)
        assert transfer.intact
        assert box.domains()[domain]["restarts"] == 1


def test_nothing_passes_while_the_filter_is_down(line: Line) -> None:
    """It is stopped, so that nobody builds a new one at once, and frames come all the while from both sides."""
    with Bridge(line, "allow from red\nallow from black") as box:
        frames = [ether() / udp(n) for n in range(20)]
        assert crosses(line, *frames[:3]) == [True] * 3
        pid = int(box.domains()["filter"]["pid"])
        with listening(line.outside) as outside, listening(line.inside) as inside:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.1)  # what was on its way has arrived
            stopped = time.time()
            for frame in frames:
                put(line.inside, frame)
                put(line.outside, frame / Raw(b"inwards"))  # each end hears its own frames as well
                time.sleep(0.02)
            assert box.domains()["filter"]["pid"] == pid, "it was built anew already: this shows nothing"
            until = time.time()
        crossed = [when for when, frame in outside.timed if MARKER in frame and b"inwards" not in frame]
        crossed += [when for when, frame in inside.timed if b"inwards" in frame]
        assert not [when for when in crossed if stopped <= when <= until], "something passed"
        wait_for("another filter", lambda: box.domains()["filter"]["pid"] not in (None, pid), seconds=20)
        assert crosses(line, *frames[:3]) == [True] * 3
