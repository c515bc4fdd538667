"""A gateway with a split tunnel: the peer's networks are reached through it, and only so; the rest of the world in
clear, from the one address that the gateway has.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from tests.system.lab import (
    MARKER,
    Capture,
    Lab,
    Transfer,
    WireguardGo,
    iperf_server,
    pair,
    ping,
    reaches,
    tcp_mbit,
    wait_for,
)
from tests.system.lab.capture import read_pcap
from tests.system.lab.ends import Septum
from tests.system.lab.ends.septum import REPOSITORY
from tests.system.lab.namespace import LabError, Namespace

pytestmark = pytest.mark.root

WORLD4, WORLD6 = "203.0.113.200", "2001:db8:113::200"
OWN4 = "203.0.113.1"
RULES = f"nat from red to black -> {OWN4}\nallow established related\nallow from red\n"
SERVICE = (
    f"forward from black tcp to {OWN4} port 8080 -> 192.168.1.2:5201\nallow from black tcp to 192.168.1.2 port 5201\n"
)


@pytest.fixture
def world() -> Iterator[Lab]:
    """Two sites, and a host of the world on the WAN between them."""
    with Lab(plain_nic=True) as lab:
        for address in (f"{WORLD4}/24", f"{WORLD6}/64"):
            lab.wan.run("ip", "address", "add", address, "dev", "br0", *(["nodad"] if ":" in address else []))
        yield lab


def split(world: Lab, rules: str = RULES) -> tuple[Septum, WireguardGo]:
    left, right = pair(world.left, world.right)
    return Septum(world.left, left, assembly="vpn-split", rules=rules), WireguardGo(world.right, right)


def addresses(capture: Capture) -> set[tuple[str, str, int]]:
    """Source, destination and protocol of every IPv4 packet on the WAN."""
    packets = (frame[14:] for _, frame in read_pcap(capture.path.read_bytes()) if frame[12:14] == b"\x08\x00")
    return {(socket.inet_ntoa(one[12:16]), socket.inet_ntoa(one[16:20]), one[9]) for one in packets}


def test_each_prefix_goes_its_own_way(world: Lab) -> None:
    box, peer = split(world)
    with Capture(world) as capture:
        with box, peer:
            assert reaches(world.left.host, world.right.host4)
            assert reaches(world.left.host, world.right.host6)
            assert ping(world.left.host, WORLD4, 3).loss == 0
            with Transfer(world.left.host, world.right.host, world.right.host4, total=200_000) as through_the_tunnel:
                wait_for("it to arrive", lambda: through_the_tunnel.received >= 200_000)
            capture.stop()
            status = box.status()
            assert status["bypasses"][0]["port"] == "filter.black_out"
            assert status["domains"][-1]["counters"]["packets_out"] >= 3
        seen = addresses(capture)
        assert (OWN4, WORLD4, 1) in seen and (WORLD4, OWN4, 1) in seen, "in clear, from the gateway's own address"
        assert {address for packet in seen for address in packet[:2] if not address.startswith("203.0.113.")} == set()
        assert capture.contains(MARKER) == 0, "nothing of the tunnel's in clear"
        assert (OWN4, world.right.wan4, 17) in seen
    capture.remove()


def test_what_is_a_peer_s_never_leaves_in_clear(world: Lab) -> None:
    """The tunnel has no other end: its packets wait, and go nowhere else; nor does one come in by a wrong door."""
    box, _ = split(world, RULES + "allow from black\n")
    with Capture(world) as capture:
        with box:
            assert reaches(world.left.host, WORLD4)
            assert not ping(world.left.host, world.right.host4, 5, patience=1).times
            before = box.domains()["filter"]["counters"]["denied"]
            with world.wan.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as liar:
                claimed = IP(src=world.right.host4, dst=OWN4) / UDP(sport=1, dport=2) / Raw(MARKER)
                liar.sendto(bytes(claimed), (OWN4, 0))
            denied = lambda: box.domains()["filter"]["counters"]["denied"]  # noqa: E731
            wait_for("the liar to be denied", lambda: denied() > before)
            wait_for("that to be told", lambda: "1 spoofed" in box.log(), seconds=15)
            capture.stop()
        seen = addresses(capture)
        assert not {packet for packet in seen if packet[1] == world.right.host4}
        assert (OWN4, world.right.wan4, 17) in seen, "it called for the other end"
    capture.remove()


def opens(client: Namespace, address: str, port: int) -> bool:
    with client.socket() as one:
        one.settimeout(1)
        return one.connect_ex((address, port)) == 0


def test_the_outside_sees_the_tunnel_s_port_and_what_is_forwarded(world: Lab) -> None:
    box, peer = split(world, RULES + SERVICE)
    with box, peer, iperf_server(world.left.host):
        assert reaches(world.left.host, WORLD4)
        assert not ping(world.wan, OWN4, 2, patience=0.5).times, "a filter that is silent"
        assert not any(opens(world.wan, OWN4, port) for port in (22, 80, 5201))
        assert opens(world.wan, OWN4, 8080)
        assert not opens(world.wan, "192.168.1.2", 5201)
        with iperf_server(world.wan):
            assert tcp_mbit(world.left.host, WORLD4, 1) > 1
            assert tcp_mbit(world.left.host, WORLD4, 1, reverse=True) > 1
        assert reaches(world.left.host, world.right.host4), "the tunnel has the same address"


@pytest.mark.parametrize("domain", ["filter", "red", "clear"])
def test_a_connection_in_clear_outlives_each_domain(world: Lab, domain: str) -> None:
    box, _ = split(world)
    with box:
        assert reaches(world.left.host, WORLD4)
        with Transfer(world.left.host, world.wan, WORLD4, rate=1e6) as transfer:
            wait_for("bytes to arrive", lambda: transfer.received > 100_000)
            before = box.kill(domain)
            wait_for(f"{domain} to be back", lambda: box.domains()[domain]["pid"] not in (None, before), seconds=30)
            so_far = transfer.received
            wait_for("more bytes to arrive", lambda: transfer.received > so_far + 300_000, seconds=30)
            assert transfer.intact


def test_without_the_declaration_or_the_interface_it_is_refused(world: Lab, tmp_path: Path) -> None:
    box, _ = split(world)
    folder = REPOSITORY / "assemblies"
    text = (folder / "vpn-split.toml").read_text()
    declared = next(line for line in text.splitlines() if line.startswith('"filter.black_out" = "split tunnel'))
    bare = tmp_path / "bare.toml"
    bare.write_text(text.replace(declared, "").replace('"vpn-split.rules"', f'"{folder}/vpn-split.rules"'))
    file = tmp_path / "wg0.conf"
    file.write_text(box.conf.wg_quick())
    file.chmod(0o600)
    faces = ("--lan", world.left.lan, "--wan", world.left.wan)
    with pytest.raises(LabError, match=r"plaintext could leave: .* clear\.departing .*\[red-to-black\]"):
        box.septum("up", str(file), "--assembly", str(bare), *faces)
    with pytest.raises(LabError, match=r"say which \(septum up … --wan INTERFACE\) \[faces\]"):
        box.septum("up", str(file), "--assembly", "vpn-split", *faces[:2])
    shown = box.septum("check", str(folder / "vpn-split.toml"))
    assert "declared bypass: plaintext leaves by filter.black_out" in shown
