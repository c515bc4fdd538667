"""A box with ten thousand peers: it starts, carries traffic of the one that is there, and nothing dies of them."""

from __future__ import annotations

import base64
import os
from dataclasses import replace

import pytest

from tests.system.lab import Lab, PeerConf, Septum, WireguardGo, pair, ping, reaches

pytestmark = pytest.mark.root

MANY = 10_000


def test_ten_thousand_peers(lab: Lab) -> None:
    left, right = pair(lab.left, lab.right)
    # Any 32 bytes are a public key
    others = [
        PeerConf(base64.b64encode(os.urandom(32)).decode(), [f"10.100.{n >> 8}.{n & 255}/32", f"fd64::{n + 1:x}/128"])
        for n in range(MANY)
    ]
    with WireguardGo(lab.right, right), Septum(lab.left, replace(left, peers=[*left.peers, *others])) as box:
        assert reaches(lab.left.host, lab.right.host4)
        assert ping(lab.left.host, lab.right.host4, count=20, interval=0.02).loss == 0
        status = box.status()
        assert len(status["peers"]) == MANY + 1
        assert status["peers"][0]["latest_handshake"]
        assert {domain["name"]: domain["restarts"] for domain in status["domains"] if domain["restarts"]} == {}
        # A packet to the last of them is one that waits for a session, not one that nobody gets
        before = box.domains()["encrypt"]["counters"]
        ping(lab.left.host, f"10.100.{MANY - 1 >> 8}.{MANY - 1 & 255}", count=1, patience=0.2)
        assert box.domains()["encrypt"]["counters"]["queued"] == before["queued"] + 1
