"""Debian's `wg`, unchanged, against the adapter; behind it a box that checks every signature."""

from __future__ import annotations

import base64
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import blake2s
from pathlib import Path

import pytest
from nacl.public import PrivateKey, SealedBox
from septum.admin.v1 import admin_pb2 as pb

from appliance.ctl.uapi_server import FOLDER
from appliance.signed.peers import PeerEntry
from tests.unit.ctl.fakebox import FakeBox

INTERFACE = f"sept{os.getpid()}"[:15]
SOCKET = FOLDER / f"{INTERFACE}.sock"
SEALING = PrivateKey(b"s" * 32)


def key(n: int) -> bytes:
    return blake2s(b"%d" % n).digest()


def b64(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[FakeBox]:
    box = FakeBox(tmp_path)
    box.keys.sealing_key = b64(bytes(SEALING.public_key))
    yield box
    box.close()


@pytest.fixture
def adapter(box: FakeBox, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    base = tmp_path / "contexts"
    base.mkdir()
    box.console(base)
    program = subprocess.Popen(
        [sys.executable, "-m", "appliance.ctl.main", "--context", box.name, "uapi", INTERFACE],
        env={**os.environ, "SEPTUM_CONFIG": str(base)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not SOCKET.exists():
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < until, "no socket after 60 s"
        time.sleep(0.05)
    yield program
    program.send_signal(signal.SIGTERM)
    _, said = program.communicate(timeout=30)
    print(said)  # what it refused, for whoever reads why a test failed
    assert program.returncode == 0, said
    assert not SOCKET.exists()


def wg(*words: str, given: str | None = None, fails: bool = False) -> str:
    done = subprocess.run(["wg", *words], input=given, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == fails, done
    return done.stderr if fails else done.stdout


def test_wg_shows_and_sets(box: FakeBox, adapter: subprocess.Popen[str], tmp_path: Path) -> None:
    assert INTERFACE in wg("show", "interfaces").split()
    assert stat.S_IMODE(SOCKET.stat().st_mode) & 0o077 == 0
    assert "listening port: 51820" in wg("show", INTERFACE)

    # a peer, with everything that wg can say of one
    preshared = tmp_path / "psk"
    preshared.write_text(b64(key(7)))
    words = ("allowed-ips", "10.0.0.2/32,fd00::2/128", "endpoint", "192.0.2.9:7", "persistent-keepalive", "25")
    wg("set", INTERFACE, "peer", b64(key(1)), "preshared-key", str(preshared), *words)
    (peer,) = box.peers()
    sealed = peer.preshared_key
    assert SealedBox(SEALING).decrypt(sealed) == key(7)
    prefixes = ("10.0.0.2/32", "fd00::2/128")
    assert peer == PeerEntry(1, f"wg-{key(1).hex()[:8]}", key(1), prefixes, "192.0.2.9:7", 25, sealed)
    assert box.commits[-1].commit.comment == "wg"

    box.states[key(1)] = pb.Peer(endpoint="203.0.113.5:99", handshake=int(time.time()) - 5, received=1000, sent=2000)
    (row,) = wg("show", INTERFACE, "dump").splitlines()[1:]
    public, psk, endpoint, allowed, _, received, sent, keepalive = row.split("\t")
    assert (public, psk, endpoint, allowed) == (b64(key(1)), "(none)", "203.0.113.5:99", "10.0.0.2/32,fd00::2/128")
    assert (received, sent, keepalive) == ("1000", "2000", "25")

    # no secret is told, no key of the box changed
    assert wg("show", INTERFACE, "private-key").strip() == "(none)"
    assert b64(key(7)) not in wg("showconf", INTERFACE)
    wrong = tmp_path / "wrong"
    wrong.write_text(b64(key(8)))
    assert "not permitted" in wg("set", INTERFACE, "private-key", str(wrong), fails=True)
    right = tmp_path / "right"
    right.write_text(b64(bytes(box.private_key)))
    wg("set", INTERFACE, "private-key", str(right), "listen-port", "51820")
    assert "not permitted" in wg("set", INTERFACE, "listen-port", "51821", fails=True)
    assert len(box.commits) == 1, "none of these was a change"


def test_wg_syncconf_makes_one_commit(box: FakeBox, adapter: subprocess.Popen[str], tmp_path: Path) -> None:
    wg("set", INTERFACE, "peer", b64(key(1)), "allowed-ips", "10.0.0.1/32")
    wg("set", INTERFACE, "peer", b64(key(2)), "allowed-ips", "10.0.0.2/32")
    file = tmp_path / "wg0.conf"
    file.write_text(
        f"[Interface]\nPrivateKey = {b64(bytes(box.private_key))}\nListenPort = 51820\n"
        f"[Peer]\nPublicKey = {b64(key(2))}\nAllowedIPs = 10.0.0.2/32\n"
        f"[Peer]\nPublicKey = {b64(key(3))}\nAllowedIPs = 10.0.0.3/32, 10.3.0.0/16\nEndpoint = [2001:db8::3]:3\n"
    )
    wg("syncconf", INTERFACE, str(file))
    assert [(one.public_key, one.allowed_ips, one.endpoint) for one in box.peers()] == [
        (key(2), ("10.0.0.2/32",), ""),
        (key(3), ("10.0.0.3/32", "10.3.0.0/16"), "[2001:db8::3]:3"),
    ]
    assert len(box.commits) == 3
    wg("syncconf", INTERFACE, str(file))
    assert len(box.commits) == 3, "the same again is no commit"
    wg("set", INTERFACE, "peer", b64(key(2)), "remove")
    assert [one.public_key for one in box.peers()] == [key(3)]


def test_a_second_adapter_leaves_the_first_alone(box: FakeBox, adapter: subprocess.Popen[str], tmp_path: Path) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "appliance.ctl.main", "--context", box.name, "uapi", INTERFACE],
        env={**os.environ, "SEPTUM_CONFIG": str(tmp_path / "contexts")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 1 and "already" in again.stderr
    assert "listening port" in wg("show", INTERFACE)
