"""Every domain is killed in turn under running TCP: the connections live, and the world learns nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.system.lab import MARKER, Capture, Lab, Septum, Transfer, WireguardGo, pair, reaches, wait_for

pytestmark = pytest.mark.root

DOMAINS = ("rng", "log", "store", "keymgr", "encrypt", "decrypt", "filter", "red", "black")
RATE = 2e6  # bytes a second each way
LONGEST = 10.0  # seconds of silence that a user would forgive; TCP itself doubles its patience while we rebuild


@dataclass
class Scene:
    lab: Lab
    septum: Septum
    capture: Capture


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One box for all of them: what a domain does after the death of another is part of the test."""
    with Lab(plain_nic=True) as lab:
        own, stock = pair(lab.left, lab.right, psk=True)
        with Capture(lab) as capture, WireguardGo(lab.right, stock), Septum(lab.left, own) as septum:
            assert reaches(lab.left.host, lab.right.host4, 15)
            yield Scene(lab, septum, capture)


def is_rebuilt(row: dict[str, Any], dead: int) -> bool:
    return row["state"] == "running" and row["pid"] != dead


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_killed_domain_is_rebuilt_under_running_connections(
    scene: Scene, domain: str, report: list[tuple[str, str]]
) -> None:
    lab, septum = scene.lab, scene.septum
    others = {name: row["pid"] for name, row in septum.domains().items() if name != domain}
    there = Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=RATE)
    back = Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=RATE, reverse=True)
    with there, back:
        time.sleep(1)
        killed = time.monotonic()
        pid = septum.kill(domain)
        wait_for(f"{domain} to be rebuilt", lambda: is_rebuilt(septum.domains()[domain], pid), seconds=20, every=0.2)
        rebuilt = septum.domains()[domain]["rebuild_ms"]
        for transfer in (there, back):
            so_far = transfer.received
            wait_for("bytes to arrive again", lambda t=transfer, n=so_far: t.received > n + RATE, 30)  # type: ignore[misc]
    gaps = [transfer.longest_silence(since=killed) for transfer in (there, back)]
    report.append(
        (
            f"SIGKILL {domain}",
            f"rebuilt {rebuilt:5.0f} ms, silence out {gaps[0] * 1000:5.0f} ms, in {gaps[1] * 1000:5.0f} ms",
        )
    )
    assert there.intact
    assert back.intact
    assert max(gaps) < LONGEST
    after = {name: row["pid"] for name, row in septum.domains().items() if name != domain}
    assert after == others, "another domain went down with it"


def test_the_rebuilt_ones_are_sealed_like_the_first(scene: Scene) -> None:
    seals = scene.septum.seals()
    assert set(seals) == set(DOMAINS)
    amiss = [(name, row) for name, seal in seals.items() for row in seal["attributes"] if not row["ok"]]
    assert not amiss
    assert all(seal["sealed"] for seal in seals.values())


def test_the_world_saw_only_wireguard_and_no_nonce_twice(scene: Scene, report: list[tuple[str, str]]) -> None:
    scene.capture.stop()
    assert scene.capture.contains(MARKER) == 0
    assert not scene.capture.foreign()
    assert not scene.capture.repeated_nonces()
    assert set(scene.capture.tshark_names()) == {"wg"}
    datagrams, sessions = scene.capture.datagrams(), scene.capture.sessions()
    assert len(sessions) >= 4, "a reborn encrypt or decrypt must have got a new session, one index each way"
    report.append(
        ("on the WAN during all kills", f"{len(datagrams)} datagrams, {len(sessions)} sessions, no pair twice")
    )
