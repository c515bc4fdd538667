"""Peers come, go and change by signed commits while others talk: no connection notices, and who is gone is gone."""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nacl.public import PublicKey, SealedBox
from septum.v1.applying import Apply, ApplyingRequest, BeginSection, Chunk, Enlist, Prepare
from septum.v1.peers import AskKeys, PeersRequest

from appliance.signed.peers import PeerEntry, encode
from appliance.signed.statements import Role
from tests.system.carrier import AWAY, LARGEST, PORTS, codecs
from tests.system.lab import Lab, Septum, Transfer, WireguardGo, ping, preshared_key, reaches, star, wait_for
from tests.system.lab.conf import Conf
from tests.system.lab.ends.septum import secret_file
from tests.unit.signed.box import TRUST, Chain

pytestmark = pytest.mark.root

COMMITS = 50
RATE = 1e6  # bytes a second each way
CHUNK = 61_440


class Managed(Septum):
    """A box whose peers come with signed commits, with config's part, and the administrators', in the test's hands."""

    def start(self) -> None:
        conf = secret_file(self.directory / f"{self.name}.conf", self.conf.wg_quick())
        line = self.directory / "line"
        trust = json.dumps({"box": TRUST.box.hex(), "console": TRUST.console.hex()})
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(line))
            listener.listen()
            box = (str(conf), self.site.lan, self.site.wan, self.name, trust, str(line))
            self.begin(sys.executable, "-m", "tests.system.carrier_box", *box)
            self.line, _ = listener.accept()
        self.line.settimeout(20)
        self.chain = Chain()
        self.chain.add("olga", Role.OPERATOR)
        self.enlist()

    def stop(self) -> None:
        super().stop()
        if hasattr(self, "line"):
            self.line.close()

    def ask(self, port: str = "commits", **what: Any) -> Any:
        """keymgr's answer to one request; asked again as long as keymgr is not there."""
        requests, replies = codecs(port)
        message = (ApplyingRequest if port == "commits" else PeersRequest)(**what)
        asked = bytes([list(PORTS).index(port)]) + b"".join(requests.encode(message))
        for _ in range(40):
            self.line.send(asked)
            try:
                answer = self.line.recv(LARGEST)
            except TimeoutError:
                break
            if answer != AWAY:
                reply = replies.decode(answer)
                return getattr(reply, str(reply.WhichOneof("answer")))
            time.sleep(0.25)
        raise AssertionError(f"no answer:\n{self.log()}")

    def enlist(self) -> None:
        for signed in self.chain.statements:
            self.ask(enlist=Enlist(statement=signed.statement, signature=signed.signature))

    def hand_over(self, section: bytes) -> Any:
        """The last commit, which is of ``section``."""
        signed = self.chain.commits[-1]
        for _ in range(5):  # an answer that came too late has a chunk sent twice, which is one too often
            self.ask(begin=BeginSection(total=len(section)))
            for at in range(0, len(section), CHUNK):
                self.ask(chunk=Chunk(offset=at, data=section[at : at + CHUNK]))
            prepared = self.ask(prepare=Prepare(statement=signed.statement, signature=signed.signature))
            if not hasattr(prepared, "why"):
                break
        assert not hasattr(prepared, "why"), prepared
        return self.ask(apply=Apply(revision=len(self.chain.commits)))

    def commit(self, *peers: PeerEntry) -> Any:
        section = encode(peers)
        self.chain.commit("olga", section)
        return self.hand_over(section)

    def counters(self, domain: str) -> dict[str, int]:
        return dict(self.domains()[domain]["counters"])

    def keys(self) -> Any:
        return self.ask("peers", keys=AskKeys())

    def sealed(self, preshared: str) -> bytes:
        """``preshared``, base64, as it stands in a section."""
        return bytes(SealedBox(PublicKey(self.keys().sealing_key)).encrypt(base64.b64decode(preshared)))


@dataclass
class Scene:
    lab: Lab
    box: Managed
    stays: PeerEntry
    comes_and_goes: PeerEntry
    ends: list[WireguardGo]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab(sites=3) as lab:
        psk = preshared_key()
        own, others = star(lab.left, *lab.sites[1:])
        others[0] = others[0].with_peer(preshared_key=psk)
        ends = [lab.enter(WireguardGo(site, conf)) for site, conf in zip(lab.sites[1:], others, strict=True)]
        box = lab.enter(Managed(lab.left, own))
        entries = [entry(box, own, n, psk if n == 0 else "") for n in range(2)]
        yield Scene(lab, box, *entries, ends)


def entry(box: Managed, conf: Conf, n: int, psk: str) -> PeerEntry:
    peer = conf.peers[n]
    return PeerEntry(
        number=10 + n,
        name=f"site-{n}",
        public_key=base64.b64decode(peer.public_key),
        allowed_ips=tuple(peer.allowed_ips),
        endpoint=peer.endpoint or "",
        preshared_key=box.sealed(psk) if psk else b"",
    )


def stranger(n: int) -> PeerEntry:
    return PeerEntry(
        1000 + n, f"stranger-{n}", os.urandom(32), (f"10.200.{n >> 8}.{n & 255}/32",), "192.0.2.9:9", n % 2
    )


def test_nobody_is_a_peer_before_it_was_signed(scene: Scene) -> None:
    right = scene.lab.sites[1]
    assert not reaches(scene.lab.left.host, right.host4, 2)
    assert scene.box.commit(scene.stays).number == 1
    assert reaches(scene.lab.left.host, right.host4, 15), scene.box.log()


def test_transfers_run_through_fifty_commits(scene: Scene, report: list[tuple[str, str]]) -> None:
    """Each way one, with the one peer that stays; the other site and a stranger come, go and change with each."""
    left, right, _far = scene.lab.sites
    pids = {name: row["pid"] for name, row in scene.box.domains().items()}
    handshakes = scene.box.counters("keymgr")["handshakes"]
    took = []
    ends = (left.host, right.host, right.host4)
    with Transfer(*ends, rate=RATE) as there, Transfer(*ends, rate=RATE, reverse=True) as back:
        time.sleep(1)
        before = time.monotonic()
        for n in range(COMMITS):
            peers = [scene.stays, stranger(n)]
            if n % 5 < 3:
                peers.append(scene.comes_and_goes._replace(keepalive=n % 3))
            began = time.monotonic()
            done = scene.box.commit(*sorted(peers))
            took.append(time.monotonic() - began)
            assert done.number == len(scene.box.chain.commits) and done.kept >= 1
            time.sleep(0.1)
        after = time.monotonic()
        time.sleep(1)
    silence = max(transfer.longest_silence(before, after) for transfer in (there, back))
    took.sort()
    report.append((f"{COMMITS} commits", f"median {took[COMMITS // 2] * 1000:.0f} ms, silence {silence * 1000:.0f} ms"))
    assert there.intact and back.intact
    assert silence < 1.0
    assert {name: row["pid"] for name, row in scene.box.domains().items()} == pids
    assert scene.box.counters("keymgr")["handshakes"] - handshakes <= COMMITS, "the one that stays had none"
    assert "order-refused" not in scene.box.log()


def test_who_is_removed_is_cut_off_at_once_and_comes_back(scene: Scene) -> None:
    left, right, far = scene.lab.sites
    scene.box.commit(scene.stays, scene.comes_and_goes)
    assert reaches(left.host, far.host4, 15) and reaches(left.host, right.host4, 15)
    assert scene.box.commit(scene.stays).ended >= 1
    assert ping(left.host, far.host4, count=5, interval=0.05, patience=0.5).loss == 1
    before = scene.box.counters("decrypt")["unknown_session"]
    ping(far.host, left.host4, count=5, interval=0.05, patience=0.5)
    assert scene.box.counters("decrypt")["unknown_session"] >= before + 5
    assert ping(left.host, right.host4, count=5, interval=0.05).loss == 0
    assert scene.box.counters("keymgr")["peers"] == 1
    scene.box.commit(scene.stays, scene.comes_and_goes)
    assert reaches(left.host, far.host4, 15)


def test_prefixes_go_from_one_to_another_under_a_running_transfer(scene: Scene) -> None:
    left, right, far = scene.lab.sites
    with Transfer(left.host, right.host, right.host4, rate=RATE) as transfer:
        both = scene.stays.allowed_ips + scene.comes_and_goes.allowed_ips
        scene.box.commit(scene.stays._replace(allowed_ips=both), scene.comes_and_goes._replace(allowed_ips=()))
        assert ping(left.host, far.host4, count=3, interval=0.05, patience=0.5).loss == 1
        scene.box.commit(scene.stays, scene.comes_and_goes)
        assert reaches(left.host, far.host4, 10)
    assert transfer.intact and transfer.longest_silence() < 2.0


def test_a_reborn_keymgr_is_handed_what_is_in_force_and_connections_live(scene: Scene) -> None:
    left, right, far = scene.lab.sites
    section = encode((scene.stays,))
    with Transfer(left.host, right.host, right.host4, rate=RATE) as transfer:
        scene.box.commit(scene.stays)
        pid = scene.box.kill("keymgr")
        wait_for("keymgr", lambda: scene.box.domains()["keymgr"]["pid"] != pid, seconds=20, every=0.2)
        scene.box.enlist()
        scene.box.hand_over(section)
        wait_for("a new session", lambda: scene.box.counters("keymgr")["sessions"], seconds=30, every=0.2)
    assert transfer.intact and transfer.longest_silence() < 10.0
    assert ping(left.host, far.host4, count=3, interval=0.05, patience=0.5).loss == 1


def test_the_box_goes_over_to_another_key_and_who_knows_it_calls_again(scene: Scene) -> None:
    left, right, _ = scene.lab.sites
    box, end = scene.box, scene.ends[0]

    def calls() -> bool:
        """Whether the other end comes through when it calls: its own packets, the filter refuses."""
        before = box.counters("keymgr")["handshakes"]
        reaches(right.host, left.host4, 3)
        return box.counters("keymgr")["handshakes"] > before and reaches(left.host, right.host4, 5)

    box.commit(scene.stays)
    assert reaches(left.host, right.host4, 15)
    wait_for("a spare key", lambda: box.keys().next_public_key, every=0.2)
    spare = box.keys().next_public_key
    signed = box.chain.take(box.chain.rekey(spare))
    box.ask(enlist=Enlist(statement=signed.statement, signature=signed.signature))
    assert box.keys().public_key == spare
    assert ping(left.host, right.host4, count=5, interval=0.05).loss == 0, "the session lives on"
    end.reconfigure(end.conf)  # the other end forgets its session, and calls by the key that it knows
    assert not calls()
    assert box.counters("black")["bad_mac1"] >= 1, "it does not get past the doorman"
    end.reconfigure(end.conf.with_peer(public_key=base64.b64encode(spare).decode()))
    assert calls(), box.log()
    pid = box.kill("keymgr")
    wait_for("keymgr", lambda: box.domains()["keymgr"]["pid"] != pid, seconds=20, every=0.2)
    box.enlist()
    box.hand_over(encode((scene.stays,)))
    assert box.keys().public_key == spare and box.keys().next_public_key not in (b"", spare)
    end.reconfigure(end.conf)
    assert calls(), "a reborn keymgr has it from the store"


def test_a_box_takes_ten_thousand_peers_while_it_works(scene: Scene, report: list[tuple[str, str]]) -> None:
    left, right, _far = scene.lab.sites
    section = encode(sorted([scene.stays, *(stranger(n) for n in range(10_000))]))
    with Transfer(left.host, right.host, right.host4, rate=RATE) as transfer:
        time.sleep(0.5)
        began = time.monotonic()
        scene.box.chain.commit("olga", section)
        scene.box.hand_over(section)
        took = time.monotonic() - began
        wait_for(
            "all to be known",
            lambda: scene.box.counters("keymgr")["peers"] == 10_001,
            seconds=20,
            every=0.2,
        )
        time.sleep(1)
    silence = transfer.longest_silence(began)
    report.append(("a commit of 10,000 peers", f"{took * 1000:.0f} ms, silence {silence * 1000:.0f} ms"))
    assert transfer.intact and silence < 3.0
    assert Path(f"/proc/{scene.box.domains()['keymgr']['pid']}").exists()
    assert not [row for row in scene.box.domains().values() if row["restarts"] and row["name"] != "keymgr"]
