"""Debian's `wg` on a managed box, through the adapter: a stock peer that it sets is reached, and shown."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.lab import Lab, Managed, WireguardGo, pair, reaches, wait_for
from tests.system.lab.ends.managed import CTL
from tests.system.lab.ends.septum import secret_file

pytestmark = pytest.mark.root

FOLDER = Path("/var/run/wireguard")


def wg(*words: str, code: int = 0) -> str:
    done = subprocess.run(["wg", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done
    return done.stderr if code else done.stdout


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def test_wg_on_a_managed_box(lab: Lab, tmp_path: Path) -> None:
    own, other = pair(lab.left, lab.right)
    box = lab.enter(Managed(lab.left, own))
    lab.enter(WireguardGo(lab.right, other))
    name = f"sept{os.getpid()}"[:15]
    box.enroll("wg", "operator")
    rules = secret_file(box.directory / "open.rules", "allow established related\nallow from red\n")
    box.ctl("rules", "set", str(rules))
    box.ctl("config", "commit", "-m", "out is open")

    log = (tmp_path / "adapter").open("w+")
    adapter = subprocess.Popen(box.command(CTL, "uapi", name, who="wg"), stdout=log, stderr=log)
    try:
        wait_for("the socket", (FOLDER / f"{name}.sock").exists, seconds=60, every=0.2)
        assert f"listening port: {own.listen_port}" in wg("show", name)
        (peer,) = own.peers
        words = ["allowed-ips", ",".join(peer.allowed_ips), "endpoint", str(peer.endpoint)]
        if peer.preshared_key:
            words += ["preshared-key", str(secret_file(tmp_path / "psk", peer.preshared_key))]
        assert not reaches(lab.left.host, lab.right.host4, 1)
        wg("set", name, "peer", peer.public_key, *words)
        assert reaches(lab.left.host, lab.right.host4, 20), box.log()

        def row() -> list[str]:
            (found,) = wg("show", name, "dump").splitlines()[1:]
            return found.split("\t")

        public, shown, endpoint, allowed, *_ = row()
        assert (public, shown, endpoint) == (peer.public_key, "(none)", str(peer.endpoint))
        assert sorted(allowed.split(",")) == sorted(peer.allowed_ips)
        # When it shook hands, what it received and sent: as far as keymgr has been told by now
        wait_for("what is counted", lambda: all(map(int, row()[4:7])), seconds=30, every=0.5)
        assert wg("show", name, "private-key").strip() == "(none)"

        empty = secret_file(tmp_path / "empty.conf", "[Interface]\n")
        wg("syncconf", name, str(empty))
        assert not reaches(lab.left.host, lab.right.host4, 2)
        assert [one["by"] for one in box.ctl("config", "history")] == ["wg", "wg", "console"]

        # Whoever is revoked sets nothing more, wherever the adapter runs
        box.ctl("admins", "revoke", "wg", "--yes")
        assert "not permitted" in wg("set", name, "peer", peer.public_key, "allowed-ips", "10.0.0.1/32", code=1)
    finally:
        adapter.send_signal(signal.SIGTERM)
        adapter.wait(30)
        log.seek(0)
        print(log.read())
    assert not (FOLDER / f"{name}.sock").exists()
