"""Two pairs of crypto domains, two stock peers: each pair has one of them, and neither notices the other."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.system.lab import Lab, Namespace, Septum, Transfer, WireguardGo, reaches, star, wait_for

pytestmark = pytest.mark.root

RATE = 2e6  # bytes a second each way
DATAGRAMS = 3000
PORT = 7777
SO_RCVBUFFORCE = 33  # socket(7); the module does not name it


@dataclass
class Scene:
    lab: Lab
    septum: Septum
    keys: list[str]  # public keys of the peers, in the order of the file

    @property
    def hosts(self) -> list[tuple[Namespace, str]]:
        """The hosts behind the peers, each with its address."""
        return [(site.host, site.host4) for site in self.lab.sites[1:]]

    def counters(self, domain: str) -> dict[str, int]:
        domains = {one["name"]: one for one in self.septum.status()["domains"]}
        return dict(domains[domain]["counters"])


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab(sites=3) as lab:
        own, others = star(lab.left, *lab.sites[1:])
        for site, conf in zip(lab.sites[1:], others, strict=True):
            lab.enter(WireguardGo(site, conf))
        septum = lab.enter(Septum(lab.left, own, assembly="vpn-2"))
        yield Scene(lab, septum, [peer.public_key for peer in own.peers])


def test_both_peers_are_reached_each_through_its_own_pair(scene: Scene) -> None:
    for number, site in enumerate(scene.lab.sites[1:], 1):
        before = [scene.counters(f"{side}{3 - number}")["packets"] for side in ("encrypt", "decrypt")]
        for address in (site.host4, site.host6, site.tunnel4, site.tunnel6):
            assert reaches(scene.lab.left.host, address, 15), f"{address} does not answer"
        wait_for("packets to be counted", lambda n=number: scene.counters(f"decrypt{n}")["packets"] >= 4)  # type: ignore[misc]
        after = [scene.counters(f"{side}{3 - number}")["packets"] for side in ("encrypt", "decrypt")]
        assert all(b <= a + 2 for a, b in zip(before, after, strict=True)), "the other pair had more than keepalives"
    assert scene.counters("encrypt2")["no_peer"] == 0  # what is nobody's goes to the first
    assert scene.counters("decrypt1")["unknown_session"] == scene.counters("decrypt2")["unknown_session"] == 0
    assert set(scene.septum.handshakes()) == set(scene.keys)
    assert all(scene.septum.handshakes().values())


def test_tcp_both_ways_with_both_peers_at_once(scene: Scene, report: list[tuple[str, str]]) -> None:
    transfers = [
        Transfer(scene.lab.left.host, host, address, reverse=reverse)
        for host, address in scene.hosts
        for reverse in (False, True)
    ]
    time.sleep(5)
    for transfer in transfers:
        transfer.finish()
        assert transfer.intact
        assert transfer.received > 1_000_000
    total = sum(transfer.mbit for transfer in transfers)
    report.append(("TCP both ways with two peers over two pairs, in all", f"{total:8.0f} Mbit/s"))


def test_the_order_within_a_peer_is_kept(scene: Scene) -> None:
    """Datagrams to both peers by turns, and then from both: those of one peer arrive in the order they were sent in."""
    near = scene.lab.left.host
    with near.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        far = []
        for host, address in scene.hosts:
            server = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
            server.bind((address, PORT))
            server.settimeout(1)
            far.append(server)
        client.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        client.settimeout(1)
        for number in range(DATAGRAMS):
            for _, address in scene.hosts:
                client.sendto(number.to_bytes(4, "big") + bytes(100 * (number % 3)), (address, PORT))
            if number % 20 == 0:
                time.sleep(0.002)
        source = ("", 0)
        for server in far:
            numbers, source = _drain(server)
            assert numbers == sorted(set(numbers))
            assert len(numbers) > DATAGRAMS // 2
        for number in range(DATAGRAMS):
            for server in far:
                server.sendto(number.to_bytes(4, "big") + bytes(100 * (number % 3)), source)
            if number % 20 == 0:
                time.sleep(0.002)
        got: dict[str, list[int]] = {address: [] for _, address in scene.hosts}
        try:
            while True:
                data, (address, _) = client.recvfrom(2048)
                got[address].append(int.from_bytes(data[:4], "big"))
        except TimeoutError:
            pass
        for numbers in got.values():
            assert numbers == sorted(set(numbers))
            assert len(numbers) > DATAGRAMS // 2
        for server in far:
            server.close()


def _drain(server: socket.socket) -> tuple[list[int], tuple[str, int]]:
    """The numbers of the datagrams that have arrived, and where the last came from."""
    numbers: list[int] = []
    source = ("", 0)
    try:
        while True:
            data, source = server.recvfrom(2048)
            numbers.append(int.from_bytes(data[:4], "big"))
    except TimeoutError:
        return numbers, source


@pytest.mark.parametrize("domain", ["encrypt2", "decrypt2", "encrypt1", "decrypt1"])
def test_the_death_of_one_renews_the_sessions_of_its_peers_alone(
    scene: Scene, domain: str, report: list[tuple[str, str]]
) -> None:
    mine = int(domain[-1]) - 1
    septum = scene.septum
    others = {name: row["pid"] for name, row in septum.domains().items() if name != domain}
    transfers = [
        [Transfer(scene.lab.left.host, host, address, rate=RATE, reverse=reverse) for reverse in (False, True)]
        for host, address in scene.hosts
    ]
    shaken = septum.handshakes()
    wait_for("a second to pass since the handshakes", lambda: time.time() > max(shaken.values()) + 2)
    foreign = {side: scene.counters(f"{side}{2 - mine}")["packets"] for side in ("encrypt", "decrypt")}
    killed = time.monotonic()
    dead = septum.kill(domain)
    wait_for(
        f"{domain} to be rebuilt",
        lambda: septum.domains()[domain]["state"] == "running" and septum.domains()[domain]["pid"] != dead,
        seconds=20,
        every=0.2,
    )
    for transfer in (transfer for both in transfers for transfer in both):
        so_far = transfer.received
        wait_for("bytes to arrive again", lambda t=transfer, n=so_far: t.received > n + RATE, 30)  # type: ignore[misc]
    after = septum.handshakes()
    assert after[scene.keys[mine]] > shaken[scene.keys[mine]], "its peer got no new session"
    assert after[scene.keys[1 - mine]] == shaken[scene.keys[1 - mine]], "the other's peer was troubled"
    for side, packets in foreign.items():
        assert scene.counters(f"{side}{2 - mine}")["packets"] > packets, "the other pair stood still"
    silence = [max(transfer.longest_silence(since=killed) for transfer in both) * 1000 for both in transfers]
    for transfer in (transfer for both in transfers for transfer in both):
        transfer.finish()
        assert transfer.intact
    assert {name: row["pid"] for name, row in septum.domains().items() if name != domain} == others
    figure = f"silence {silence[mine]:5.0f} ms with its peer, {silence[1 - mine]:5.0f} ms with the other's"
    report.append((f"SIGKILL {domain} of two pairs", figure))


def test_every_domain_of_two_pairs_is_sealed(scene: Scene) -> None:
    seals = scene.septum.seals()
    assert {"encrypt1", "encrypt2", "decrypt1", "decrypt2"} <= set(seals)
    assert len(seals) == 11
    assert all(seal["sealed"] for seal in seals.values())
