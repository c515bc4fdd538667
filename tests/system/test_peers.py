"""Septum against the stock implementation: every way two peers can meet, move, restart and part."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.system.lab import (
    MARKER,
    Capture,
    Keys,
    Lab,
    Septum,
    Transfer,
    WireguardGo,
    pair,
    ping,
    preshared_key,
    reaches,
    wait_for,
)  # fmt: skip

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[2]
SHORT = {"appliance/vchan/short", "appliance/vchan/shared", "appliance/guest/short"}
COMPILED = {
    "red": SHORT | {"components/net/short", "components/net/fast"},
    "black": SHORT | {"components/net/short"},
    "encrypt": SHORT | {"components/crypto/short", "components/crypto/fast"},
    "decrypt": SHORT | {"components/crypto/short", "components/crypto/fast"},
    "filter": SHORT | {"components/filter/short", "components/filter/fast"},
}
HANDSHAKE_SECONDS = 15.0  # two retries of 5 s (REKEY_TIMEOUT) may be lost before anyone worries


def both_versions(lab: Lab) -> None:
    """IPv4 and IPv6 from the LAN behind Septum to the LAN behind the peer, and to the peer itself."""
    for address in (lab.right.host4, lab.right.host6, lab.right.tunnel4, lab.right.tunnel6):
        assert reaches(lab.left.host, address, HANDSHAKE_SECONDS), f"{address} does not answer"


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("psk", [False, True], ids=["", "psk"])
def test_septum_calls(lab: Lab, outer: int, psk: bool) -> None:
    own, stock = pair(lab.left, lab.right, outer=outer, psk=psk, calls="left")
    with WireguardGo(lab.right, stock) as peer, Septum(lab.left, own) as septum:
        both_versions(lab)
        assert peer.shaken()
        assert septum.shaken()


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("psk", [False, True], ids=["", "psk"])
def test_septum_is_called(lab: Lab, outer: int, psk: bool) -> None:
    own, stock = pair(lab.left, lab.right, outer=outer, psk=psk, calls="right")
    with Septum(lab.left, own) as septum, WireguardGo(lab.right, stock.with_peer(keepalive=1)) as peer:
        peer.wait_for_handshake()
        assert septum.shaken()
        both_versions(lab)


def test_a_twin_is_where_it_belongs_and_nowhere_else(lab: Lab) -> None:
    """What is compiled in this tree is in the domains that packets go through, and no domain has any other of it."""
    own, _ = pair(lab.left, lab.right)
    found = [path for folder in ("appliance", "components") for path in (REPOSITORY / folder).glob("*/*.so")]
    there = {str(path.relative_to(REPOSITORY)).split(".")[0] for path in found}
    assert not there or there == set().union(*COMPILED.values()), "half of it is compiled: make .venv/.compiled"
    with Septum(lab.left, own) as septum:
        for name, row in septum.domains().items():
            maps = Path(f"/proc/{row['pid']}/maps").read_text()
            mapped = set(re.findall(r"/((?:appliance|components)/\w+/\w+)\.\S*so$", maps, re.MULTILINE))
            assert mapped == COMPILED.get(name, set()) & there, name


def test_septum_as_wg_quick_would_do_it(lab: Lab) -> None:
    """Without --lan and --wan: an interface on the gateway, which routes into it what the peer may have."""
    own, stock = pair(lab.left, lab.right, calls="left")
    with WireguardGo(lab.right, stock), Septum(lab.left, own, inline=False):
        both_versions(lab)
        assert reaches(lab.left.gateway, lab.right.tunnel4, HANDSHAKE_SECONDS)


def test_down_gives_everything_back(lab: Lab) -> None:
    def faces() -> list[str]:
        shown = lab.left.gateway.run("ip", "-o", "address", "show", "scope", "global").splitlines()
        return sorted(" ".join(line.split()[1:4]) for line in shown)

    before = faces()
    own, _ = pair(lab.left, lab.right)
    with Septum(lab.left, own) as septum:
        assert not faces(), "an interface of the box is still within the host's reach"
        pids = septum.pids()
        septum.down()
    assert faces() == before
    wait_for("every process of the box to end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_what_the_tunnel_opens_is_denied(lab: Lab) -> None:
    own, stock = pair(lab.left, lab.right)
    with Septum(lab.left, own), WireguardGo(lab.right, stock):
        both_versions(lab)
        assert ping(lab.right.host, lab.left.host4, count=3, patience=1).loss == 1


def test_a_wrong_key_is_refused(lab: Lab) -> None:
    own, stock = pair(lab.left, lab.right)
    stranger = replace(stock, keys=Keys.generate()).with_peer(keepalive=1)
    with Septum(lab.left, own) as septum:
        with WireguardGo(lab.right, stranger) as peer:
            assert not reaches(lab.left.host, lab.right.host4, 6)
            assert not peer.shaken()
            assert not septum.shaken()
        with WireguardGo(lab.right, stock):  # and the refusals have not hurt the rightful one
            assert reaches(lab.left.host, lab.right.host4, HANDSHAKE_SECONDS)


def test_a_wrong_preshared_key_is_refused(lab: Lab) -> None:
    own, stock = pair(lab.left, lab.right, psk=True)
    with (
        Septum(lab.left, own) as septum,
        WireguardGo(lab.right, stock.with_peer(preshared_key=preshared_key())) as peer,
    ):
        assert not reaches(lab.left.host, lab.right.host4, 6)
        assert not septum.shaken()
        assert not peer.shaken()


def test_the_peer_roams(lab: Lab) -> None:
    """Another port, then another address too: Septum follows what is authentic, and a connection lives on."""
    own, stock = pair(lab.left, lab.right, calls="left")
    with WireguardGo(lab.right, stock.with_peer(keepalive=1)) as peer, Septum(lab.left, own) as septum:
        assert reaches(lab.left.host, lab.right.host4, HANDSHAKE_SECONDS)
        with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=1e6) as transfer:
            peer.roam(4444)
            wait_for("Septum to follow to another port", lambda: _endpoint(septum, stock.keys) == "203.0.113.2:4444")
            _arrives(transfer)
            lab.right.gateway.run("ip", "address", "add", "203.0.113.77/32", "dev", lab.right.wan)
            lab.right.gateway.run("ip", "address", "delete", "203.0.113.2/24", "dev", lab.right.wan)
            lab.right.gateway.run("ip", "route", "add", "203.0.113.0/24", "dev", lab.right.wan, "src", "203.0.113.77")
            peer.roam(5555)  # the new port also makes wireguard-go forget the source address that is gone
            wait_for(
                "Septum to follow to another address", lambda: _endpoint(septum, stock.keys) == "203.0.113.77:5555"
            )
            _arrives(transfer)
        assert transfer.intact


def _endpoint(septum: Septum, keys: Keys) -> str:
    return str(septum.peers()[keys.public]["endpoint"])


def _arrives(transfer: Transfer, seconds: float = 20) -> None:
    """Waits until a second's worth of further bytes has arrived."""
    before = transfer.received
    wait_for("bytes to arrive again", lambda: transfer.received > before + 1_000_000, seconds)


@pytest.mark.parametrize("which", ["the peer", "septum"])
def test_a_restart_loses_no_connection(lab: Lab, which: str, report: list[tuple[str, str]]) -> None:
    own, stock = pair(lab.left, lab.right)
    with WireguardGo(lab.right, stock.with_peer(keepalive=1)) as peer, Septum(lab.left, own) as septum:
        assert reaches(lab.left.host, lab.right.host4, HANDSHAKE_SECONDS)
        with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=1e6) as transfer:
            _arrives(transfer)
            when = time.monotonic()
            (peer if which == "the peer" else septum).restart()
            _arrives(transfer, 60)
        assert transfer.intact
        report.append((f"restart of {which}: silence", f"{transfer.longest_silence(when) * 1000:8.0f} ms"))


def test_a_forgetful_peer_that_cannot_call_is_called_again(lab: Lab) -> None:
    """The peer restarts and does not know where Septum is: Septum notices that nothing comes back, and calls (15 s)."""
    own, stock = pair(lab.left, lab.right, calls="left")
    with WireguardGo(lab.right, stock) as peer, Septum(lab.left, own):
        assert reaches(lab.left.host, lab.right.host4, HANDSHAKE_SECONDS)
        peer.restart()
        assert reaches(lab.left.host, lab.right.host4, 25)


@pytest.mark.parametrize("reverse", [False, True], ids=["to the peer", "from the peer"])
def test_twenty_seconds_of_tcp(lab: Lab, reverse: bool, report: list[tuple[str, str]]) -> None:
    own, stock = pair(lab.left, lab.right)
    with WireguardGo(lab.right, stock), Septum(lab.left, own):
        assert reaches(lab.left.host, lab.right.host4, HANDSHAKE_SECONDS)
        began = time.monotonic()
        with Transfer(lab.left.host, lab.right.host, lab.right.host4, reverse=reverse) as transfer:
            time.sleep(20)
        assert transfer.intact
        assert transfer.mbit > 20
        assert transfer.longest_silence(began) < 2
        way = "from" if reverse else "to"
        report.append((f"20 s of TCP {way} wireguard-go", f"{transfer.mbit:8.0f} Mbit/s"))


@pytest.mark.parametrize(
    ("plain_nic", "outer", "psk"), [(False, 4, True), (True, 6, False)], ids=["offloads-v4-psk", "no offloads-v6"]
)
def test_two_septums(plain_nic: bool, outer: int, psk: bool, report: list[tuple[str, str]]) -> None:
    with Lab(plain_nic=plain_nic) as lab:
        left, right = pair(lab.left, lab.right, outer=outer, psk=psk)
        with Septum(lab.right, right, admit=True), Septum(lab.left, left):
            both_versions(lab)
            for reverse in (False, True):
                began = time.monotonic()
                with Transfer(lab.left.host, lab.right.host, lab.right.host6, reverse=reverse) as transfer:
                    time.sleep(20)
                assert transfer.intact
                assert transfer.longest_silence(began) < 2
                way = f"{'back' if reverse else 'out'}, {'no offloads' if plain_nic else 'offloads'}"
                report.append((f"20 s of TCP, Septum to Septum ({way})", f"{transfer.mbit:8.0f} Mbit/s"))


@pytest.mark.parametrize("which", ["the caller", "the called"])
def test_a_restart_of_either_septum_loses_no_connection(lab: Lab, which: str, report: list[tuple[str, str]]) -> None:
    left, right = (conf.with_peer(keepalive=1) for conf in pair(lab.left, lab.right))
    with Septum(lab.right, right, admit=True) as called, Septum(lab.left, left) as caller:
        assert reaches(lab.left.host, lab.right.host4, HANDSHAKE_SECONDS)
        with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=1e6) as transfer:
            _arrives(transfer)
            when = time.monotonic()
            (caller if which == "the caller" else called).restart()
            _arrives(transfer, 60)
        assert transfer.intact
        report.append((f"restart of {which} Septum: silence", f"{transfer.longest_silence(when) * 1000:8.0f} ms"))


def test_a_septum_roams_to_a_septum(lab: Lab) -> None:
    """A traveller's Septum, not in line, gets another address: the other follows, and a connection lives on."""
    left, right = pair(lab.left, lab.right, calls="right")
    traveller = Septum(lab.right, right.with_peer(keepalive=1), inline=False)
    with Septum(lab.left, left, admit=True) as septum, traveller:
        assert reaches(lab.right.gateway, lab.left.host4, HANDSHAKE_SECONDS)
        with Transfer(lab.right.gateway, lab.left.host, lab.left.host4, rate=1e6) as transfer:
            _arrives(transfer)
            lab.right.gateway.run("ip", "address", "add", "203.0.113.77/32", "dev", lab.right.wan)
            lab.right.gateway.run("ip", "address", "delete", "203.0.113.2/24", "dev", lab.right.wan)
            lab.right.gateway.run("ip", "route", "add", "203.0.113.0/24", "dev", lab.right.wan, "src", "203.0.113.77")
            wait_for(
                "Septum to follow to another address",
                lambda: _endpoint(septum, right.keys).startswith("203.0.113.77:"),
            )
            _arrives(transfer)
        assert transfer.intact


@pytest.mark.parametrize("outer", [4, 6])
def test_the_world_sees_wireguard_and_nothing_else(plain_lab: Lab, outer: int) -> None:
    lab = plain_lab
    own, stock = pair(lab.left, lab.right, outer=outer, psk=True)
    with Capture(lab, length=2048) as capture, WireguardGo(lab.right, stock), Septum(lab.left, own):
        assert reaches(lab.left.host, lab.right.host4, HANDSHAKE_SECONDS)
        transfers = [
            Transfer(lab.left.host, lab.right.host, address, rate=1e6, reverse=reverse)
            for address, reverse in ((lab.right.host4, False), (lab.right.host6, True))
        ]
        time.sleep(3)
        for transfer in transfers:
            transfer.finish()
            assert transfer.intact
        capture.stop()
    assert set(capture.tshark_names()) == {"wg"}
    assert capture.contains(MARKER) == 0
    assert not capture.foreign()
    assert not capture.repeated_nonces()
    assert sum(capture.sessions().values()) > 4000
