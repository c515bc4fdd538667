"""The whole managed gateway, by the commands that people type: peers come and go, and connections do not notice."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.system.lab import Lab, Managed, Transfer, WireguardGo, reaches, star, wait_for
from tests.system.lab.conf import PeerConf
from tests.system.lab.ends.septum import secret_file
from tests.system.lab.namespace import run

pytestmark = pytest.mark.root

COMMITS = 50
RATE = 5e5  # bytes a second each way


@dataclass
class Scene:
    lab: Lab
    box: Managed
    ends: list[WireguardGo]
    peers: list[PeerConf]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab(sites=3) as lab:
        own, others = star(lab.left, *lab.sites[1:])
        ends = [lab.enter(WireguardGo(site, conf)) for site, conf in zip(lab.sites[1:], others, strict=True)]
        yield Scene(lab, lab.enter(Managed(lab.left, own)), ends, own.peers)


def add(box: Managed, name: str, peer: PeerConf, *words: str) -> Any:
    allowed = [word for prefix in peer.allowed_ips for word in ("--allowed-ips", prefix)]
    endpoint = ("--endpoint", peer.endpoint) if peer.endpoint else ()
    return box.ctl("peers", "add", name, "--public-key", peer.public_key, *allowed, *endpoint, *words, "--commit")


def test_a_peer_that_was_added_is_reached(scene: Scene) -> None:
    left, right, _ = scene.lab.sites
    rules = secret_file(scene.box.directory / "new.rules", "allow established related\nallow from red\n")
    scene.box.ctl("rules", "set", str(rules))
    scene.box.ctl("config", "commit", "--message", "out is open")
    assert not reaches(left.host, right.host4, 2)
    add(scene.box, "right", scene.peers[0])
    assert reaches(left.host, right.host4, 20), scene.box.log()


def test_the_running_filter_explains_by_the_flow_that_there_is(scene: Scene) -> None:
    left, right, _ = scene.lab.sites
    answer = f"from peer right udp {right.host4}:53 > {left.host4}:4000"

    def explained(*more: str) -> dict[str, Any]:
        (told,) = json.loads(scene.box._ctl("rules", "explain", answer, *more).stdout)
        return dict(told)

    assert (explained()["verdict"], explained()["state"]) == ("drop", "no flow, it is new")
    ask = f"import socket as s; u = s.socket(2, 2); u.bind(('', 4000)); u.sendto(b'?', ('{right.host4}', 53))"
    left.host.run(sys.executable, "-c", ask)
    told = explained()
    assert (told["verdict"], told["line"], told["rule"]) == ("allow", 1, "allow established related")
    assert "opened from the red side, not answered" in told["state"] and "it is established" in told["state"]
    assert explained("--fresh")["verdict"] == "drop", "by the rules alone nothing has asked for it"


def test_transfers_run_through_fifty_commits(scene: Scene, report: list[tuple[str, str]]) -> None:
    left, right, _ = scene.lab.sites
    handshakes = scene.box.counters("keymgr")["handshakes"]
    pids = {name: row["pid"] for name, row in scene.box.domains().items()}
    revision = scene.box.counters("config")["revision"]
    ends = (left.host, right.host, right.host4)
    with Transfer(*ends, rate=RATE) as there, Transfer(*ends, rate=RATE, reverse=True) as back:
        time.sleep(1)
        before = time.monotonic()
        guest = scene.peers[1]
        words = (
            sys.executable,
            "-m",
            "tests.system.committer",
            str(COMMITS // 2),
            guest.public_key,
            *guest.allowed_ips,
        )
        took = json.loads(run(*scene.box.command(*words), timeout=200))
        after = time.monotonic()
    silence = max(transfer.longest_silence(before, after) for transfer in (there, back))
    took.sort()
    what = f"median {took[len(took) // 2] * 1000:.0f} ms, silence {silence * 1000:.0f} ms"
    report.append((f"{COMMITS} commits through admin and config", what))
    assert there.intact and back.intact and silence < 2.0
    assert scene.box.counters("config")["revision"] == revision + COMMITS
    assert {name: row["pid"] for name, row in scene.box.domains().items()} == pids
    assert scene.box.counters("keymgr")["handshakes"] - handshakes <= 2, "the one that stays has no need of one"


def test_a_peer_is_removed_and_gone(scene: Scene) -> None:
    left, _, far = scene.lab.sites
    add(scene.box, "far", scene.peers[1])
    assert reaches(left.host, far.host4, 20)
    scene.box.ctl("peers", "remove", "far", "--commit")
    assert not reaches(left.host, far.host4, 2)


def test_the_box_goes_over_to_its_spare_key(scene: Scene) -> None:
    left, right, _ = scene.lab.sites
    scene.box.ctl("keys", "rotate", "--yes")
    key = scene.box.ctl("keys", "show")["public_key"]
    assert key != scene.box.conf.keys.public
    end = scene.ends[0]
    end.reconfigure(end.conf.with_peer(public_key=key))
    handshakes = scene.box.counters("keymgr")["handshakes"]
    reaches(right.host, left.host4, 3)  # it calls; what it says then, the filter refuses
    wait_for("its call", lambda: scene.box.counters("keymgr")["handshakes"] > handshakes, seconds=20, every=0.2)
    assert reaches(left.host, right.host4, 10)
