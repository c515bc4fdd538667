"""The filter as its users meet it: real clients and servers on both sides of one box, and tools that look for holes.

The protected side is left's LAN; right's LAN is the world behind the tunnel, the wrong side. docs/filter.md has the
table of other firewalls' behaviour tests with the names of those here beside them.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system.lab import Lab, Septum, Transfer, WireguardGo, pair, ping, reaches, wait_for
from tests.system.lab.namespace import LabError, stop
from tests.system.lab.servers import PAGE, dns, nginx, ssh, sshd
from tests.system.lab.traffic import connect, iperf_server, tcp_mbit

pytestmark = pytest.mark.root

RULES = """
lan 192.168.1.0/24, fd00:1::/64

allow established related

# What the world may reach
set servers = { 192.168.1.2, 192.168.1.77, fd00:1::2 }
allow "web" from tunnel tcp to $servers port 80, 443
allow "name" from tunnel udp to $servers port 53
allow "range" from tunnel tcp to $servers port 6668-6670
allow "shell" from tunnel tcp to $servers port 22 limit 50/second burst 50
reject "mail" from tunnel tcp to $servers port 25
reject "discard" from tunnel udp to $servers port 9
reject "timestamp" from tunnel icmp type timestamp-request
drop "not the router" from tunnel to 192.168.1.1 icmp type echo-request
allow "ping" from tunnel icmp type echo-request
allow "ping6" from tunnel icmp6 type echo-request

# What the protected side may not
drop "no telnet" from red tcp to any port 23
reject "no finger" from red tcp to any port 79
allow from red
"""


class World(NamedTuple):
    """The laboratory with a box in it that goes by RULES."""

    lab: Lab
    box: Septum
    folder: Path

    @property
    def inner4(self) -> str:
        return self.lab.left.host4

    @property
    def outer4(self) -> str:
        return self.lab.right.host4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Lab() as lab:
        own, stock = pair(lab.left, lab.right, calls="left")
        with WireguardGo(lab.right, stock), Septum(lab.left, own, rules=RULES) as box:
            for address in (lab.right.host4, lab.right.host6):
                assert reaches(lab.left.host, address, 15)
            yield World(lab, box, tmp_path_factory.mktemp("servers"))


def _folder(world: World, name: str) -> Path:
    folder = world.folder / name
    folder.mkdir()
    return folder


def _fails(world: World, *command: str) -> str:
    """What a command says that must fail, run on the wrong side. It is given ten seconds."""
    with pytest.raises(LabError) as caught:
        world.lab.right.host.run(*command, timeout=10)
    return str(caught.value)


# both ways, as it should be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_curl_fetches_from_nginx_both_ways(world: World, version: int) -> None:
    lab = world.lab
    for number, (client, server) in enumerate(((lab.left, lab.right), (lab.right, lab.left))):
        address = server.host4 if version == 4 else f"[{server.host6}]"
        with nginx(server.host, _folder(world, f"nginx{version}{number}")):
            assert client.host.run("curl", "-sS", "--max-time", "20", f"http://{address}/page") == PAGE


def test_dig_asks_a_name_server_both_ways(world: World) -> None:
    """Over UDP, in an answer of two kilobytes (fragments), and from the protected side over TCP too."""
    lab = world.lab
    for number, (client, server) in enumerate(((lab.left, lab.right), (lab.right, lab.left))):
        with dns(server.host, _folder(world, f"dns{number}"), "box.test", "192.0.2.1"):
            ask = ("dig", "+time=2", "+tries=3", f"@{server.host4}", "+short", "box.test")
            assert client.host.run(*ask).strip() == "192.0.2.1"
            assert len(client.host.run(*ask, "TXT", "+bufsize=4096", "+notcp", "+ignore")) > 2000
    with dns(lab.right.host, _folder(world, "dns-tcp"), "box.test", "192.0.2.1"):
        assert lab.left.host.run("dig", "+tcp", f"@{lab.right.host4}", "+short", "box.test").strip() == "192.0.2.1"


def test_ssh_both_ways(world: World) -> None:
    lab = world.lab
    for number, (client, server) in enumerate(((lab.left, lab.right), (lab.right, lab.left))):
        with sshd(server.host, _folder(world, f"ssh{number}")) as key:
            assert ssh(client.host, key, server.host4, "head -c 100000 /dev/zero | wc -c").strip() == "100000"


def test_iperf3_outward_and_back(world: World, report: list[tuple[str, str]]) -> None:
    lab = world.lab
    with iperf_server(lab.right.host):
        out = tcp_mbit(lab.left.host, world.outer4, 3)
        back = tcp_mbit(lab.left.host, world.outer4, 3, reverse=True)
    report.append(("iperf3 through the rules, out and back", f"{out:.0f} and {back:.0f} Mbit/s"))
    assert min(out, back) > 1


@pytest.mark.parametrize("size", [56, 1392, 1393, 8000, 30000], ids=str)
def test_ping_of_every_size_both_ways(world: World, size: int) -> None:
    """What does not fit the tunnel goes in fragments; with IPv6 once both ends have heard that it does not fit."""
    lab = world.lab
    ways = (
        (lab.left.host, world.outer4),
        (lab.right.host, world.inner4),
        (lab.left.host, lab.right.host6),
        (lab.right.host, lab.left.host6),
    )
    for source, address in ways:
        command = ("ping", "-n", "-c", "4", "-i", "0.2", "-W", "5", "-M", "dont", "-s", str(size), address)
        shown = source.run(*command, check=False, timeout=20)
        assert f"{size + 8} bytes from {address}" in shown, shown


def test_path_mtu_is_found(world: World) -> None:
    """A packet that may not be cut is answered by an ICMP error, which comes through to who must hear it."""
    shown = world.lab.left.host.run("ping", "-n", "-c", "2", "-M", "do", "-s", "1472", world.outer4, check=False)
    assert "+2 errors" in shown, shown
    assert "mtu 1420" in world.lab.left.host.run("ip", "route", "get", world.outer4)


@pytest.mark.parametrize("flags", [(), ("-I",), ("-T", "-p", "80")], ids=["udp", "icmp", "tcp"])
def test_traceroute_from_the_protected_side(world: World, flags: tuple[str, ...]) -> None:
    """Errors about what the protected side sent come back to it."""
    shown = world.lab.left.host.run("traceroute", "-n", "-q", "2", "-w", "2", *flags, world.outer4, timeout=60)
    assert world.outer4 in shown.split("\n", 1)[1], shown


def test_time_to_live_exceeded_is_heard(world: World) -> None:
    def heard() -> bool:  # the kernel that says so says it once a second to each
        shown = world.lab.left.host.run("ping", "-n", "-c", "1", "-W", "2", "-t", "1", world.outer4, check=False)
        return "Time to live exceeded" in shown

    wait_for("the hop to say so", heard, 20)


def test_an_unreachable_host_is_said_to_be(world: World) -> None:
    """192.168.2.99 is routed and nobody; its router says so."""
    shown = world.lab.left.host.run("ping", "-n", "-c", "1", "-W", "8", "192.168.2.99", check=False, timeout=20)
    assert "Destination Host Unreachable" in shown, shown


def test_an_unreachable_network_is_said_to_be(world: World) -> None:
    """Nothing leads to 10.200.0.0/16 from the protected side: its router says so."""
    shown = world.lab.left.host.run("ping", "-n", "-c", "1", "-W", "3", "10.200.0.1", check=False, timeout=20)
    assert "Destination Net Unreachable" in shown, shown


def test_pings_are_denied_to_one_and_allowed_to_the_other(world: World) -> None:
    source = world.lab.right.host
    assert ping(source, world.inner4, count=3).times
    assert not ping(source, world.lab.left.lan4, count=3, patience=1).times


def test_ranges_of_ports(world: World) -> None:
    for port, opens in ((6667, False), (6668, True), (6669, True), (6670, True), (6671, False)):
        assert _opens(world, port) is opens, f"port {port}"


def _opens(world: World, port: int) -> bool:
    """Whether the wrong side can connect to a port that somebody listens on."""
    lab = world.lab
    with lab.left.host.socket() as listener, lab.right.host.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((world.inner4, port))
        listener.listen(1)
        client.settimeout(1.5)
        try:
            client.connect((world.inner4, port))
        except TimeoutError:
            return False
        return True


# refused --------------------------------------------------------------------------------------------------------------


def test_drop_is_silent_and_reject_is_heard(world: World) -> None:
    lab = world.lab
    with lab.left.host.socket() as client:
        client.settimeout(1.5)
        with pytest.raises(TimeoutError):
            client.connect((world.outer4, 23))
    with lab.left.host.socket() as client:
        client.settimeout(5)
        with pytest.raises(ConnectionRefusedError):
            client.connect((world.outer4, 79))
    with lab.right.host.socket() as client:
        client.settimeout(5)
        with pytest.raises(ConnectionRefusedError):
            client.connect((world.inner4, 25))


def test_a_rejected_datagram_is_answered(world: World) -> None:
    with world.lab.right.host.socket(kind=socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((world.inner4, 9))
        client.send(b"x")
        with pytest.raises(OSError, match=r"refused|unreachable|prohibited|No route"):
            client.recv(100)


@pytest.mark.parametrize("scan", ["-sS", "-sT", "-sF", "-sX", "-sN", "-sA", "-sW", "-sM"])
def test_nmap_from_the_wrong_side_finds_what_is_allowed_and_nothing_else(world: World, scan: str) -> None:
    lab = world.lab
    with (
        nginx(lab.left.host, _folder(world, f"scan{scan}"), 80),
        lab.left.host.socket() as a,
        lab.left.host.socket() as b,
    ):
        for listener, port in ((a, 8080), (b, 3306)):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((world.inner4, port))
            listener.listen(1)
        shown = lab.right.host.run(
            "nmap", "-Pn", "-n", scan, "--max-retries", "1", "--host-timeout", "60s", "-p", "25,80,443,8080,3306,1-20",
            "-oG", "-", world.inner4, timeout=90,
        )  # fmt: skip
    ports = shown.split("Ports: ", 1)[-1].split("\t")[0].split(", ")
    states = {int(port): state for port, state, *_ in (one.strip().split("/") for one in ports if "/" in one)}
    found = {port for port, state in states.items() if state == "open"}
    assert found == ({80} if scan in ("-sS", "-sT") else set()), shown
    assert "unfiltered" not in shown, shown


def test_nmap_sees_no_udp_port_but_those_allowed(world: World) -> None:
    shown = world.lab.right.host.run(
        "nmap", "-Pn", "-n", "-sU", "--max-retries", "1", "-p", "69,123,161", "-oG", "-", world.inner4, timeout=90
    )
    assert "/open/" not in shown and "/closed/" not in shown, shown


def test_spoofed_sources_do_not_leave(world: World) -> None:
    """The protected side speaks for its own prefix and for nobody else (RFC 2827)."""
    lab = world.lab
    before = world.box.domains()["filter"]["counters"]["denied"]
    lab.left.host.run(
        "hping3", "-q", "-c", "5", "-i", "u10000", "-2", "-a", "10.99.0.1", "-p", "9", world.outer4, check=False
    )
    wait_for("the filter to count them", lambda: world.box.domains()["filter"]["counters"]["denied"] >= before + 5)


@pytest.mark.parametrize("address", ["255.255.255.255", "192.168.1.255"])
def test_broadcasts_stay_outside(world: World, address: str) -> None:
    lab = world.lab
    with (
        lab.left.host.socket(kind=socket.SOCK_DGRAM) as inside,
        lab.right.host.socket(kind=socket.SOCK_DGRAM) as client,
    ):
        inside.bind(("", 53))
        inside.settimeout(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"anybody?", (address, 53))
        with pytest.raises(TimeoutError):
            inside.recv(100)
        # ... and the socket would have heard it
        client.sendto(b"you there", (world.inner4, 53))
        assert inside.recv(100) == b"you there"


def test_an_answer_that_nobody_asked_for_is_dropped(world: World) -> None:
    lab = world.lab
    with lab.left.host.socket(kind=socket.SOCK_DGRAM) as inside, lab.right.host.socket(kind=socket.SOCK_DGRAM) as other:
        inside.bind((world.inner4, 40001))
        other.bind((world.outer4, 40002))
        inside.settimeout(1)
        other.sendto(b"unasked", (world.inner4, 40001))
        with pytest.raises(TimeoutError):
            inside.recv(100)
        inside.sendto(b"asked", (world.outer4, 40002))
        other.settimeout(2)
        assert other.recv(100) == b"asked"
        other.sendto(b"answer", (world.inner4, 40001))
        assert inside.recv(100) == b"answer"


# floods ---------------------------------------------------------------------------------------------------------------


def test_a_full_table_costs_the_flooder_and_nobody_else(world: World, report: list[tuple[str, str]]) -> None:
    """SYNs from the wrong side to an allowed port of a host that never answers, each a flow of its own, more than its
    share of the table holds.
    Established connections live on both ways, and the protected side opens new ones.
    """
    lab = world.lab
    with (
        Transfer(lab.left.host, lab.right.host, world.outer4, rate=200_000) as out,
        Transfer(lab.left.host, lab.right.host, world.outer4, rate=200_000, reverse=True) as back,
    ):
        began = time.monotonic()
        flooders = [
            lab.right.host.start(
                "hping3",
                "-q",
                "-S",
                "-c",
                "60000",
                "-i",
                "u400",
                "-a",
                f"192.168.2.{2 + number}",
                "-s",
                "1024",
                "-p",
                "80",
                "192.168.1.77",
                stderr=subprocess.DEVNULL,
            )
            for number in range(3)
        ]
        try:
            wait_for(
                "the flooder's share to be full",
                lambda: world.box.domains()["filter"]["counters"]["flows_full"],
                90,
                0.5,
            )
            for _ in range(5):
                near, far = connect(lab.left.host, lab.right.host, world.outer4)
                near.close()
                far.close()
            assert out.running() and back.running()
        finally:
            for flooder in flooders:
                stop(flooder)
        ended = time.monotonic()
        wait_for("bytes after the flood", lambda: out.arrivals[-1] > ended and back.arrivals[-1] > ended)
        silence = max(out.longest_silence(began, ended), back.longest_silence(began, ended))
    assert out.intact and back.intact
    report.append(("longest silence of a connection while its filter was flooded", f"{silence * 1e3:.0f} ms"))


@pytest.mark.parametrize("flags", ["-F", "-FXY", "-A", "-SA", "-R", "-SF", ""], ids=str)
def test_floods_of_segments_that_belong_to_nothing_open_nothing(world: World, flags: str) -> None:
    """Thousands of them; the connection beside them lives on."""
    lab = world.lab
    command = ["hping3", "-q", "-c", "2000", "-i", "u200", *([flags] if flags else []), "-p", "++1", world.inner4]
    with Transfer(lab.left.host, lab.right.host, world.outer4, rate=100_000) as transfer:
        flows = world.box.domains()["filter"]["counters"]["flows"]
        lab.right.host.run(*command, check=False, timeout=30)
        wait_for("bytes after the flood", transfer.running)
        # Two thousand would have opened as many; a few are the transfer's, and what was not on the page yet before
        assert world.box.domains()["filter"]["counters"]["flows"] <= flows + 20
    assert transfer.intact


def test_a_flood_of_pings_does_not_starve(world: World) -> None:
    lab = world.lab
    flooder = lab.right.host.start("ping", "-n", "-q", "-f", "-c", "20000", world.inner4)
    try:
        assert ping(lab.left.host, world.outer4, count=10, interval=0.1).loss < 0.3
    finally:
        stop(flooder)


def test_the_log_is_no_way_to_flood(world: World) -> None:
    """However much is denied, the box writes a few lines about it."""
    before = len(world.box.log().splitlines())
    world.lab.right.host.run(
        "hping3", "-q", "-S", "-c", "5000", "-i", "u100", "-p", "++1", world.inner4, check=False, timeout=30
    )
    assert len(world.box.log().splitlines()) - before < 20
