"""The laboratory itself, proven with stock tunnels: what it says of Septum can then be believed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.machine import busy_processes
from tests.system.lab import (
    MARKER,
    Capture,
    Direct,
    End,
    KernelWireguard,
    Lab,
    LabError,
    OpenVpn,
    Transfer,
    WireguardGo,
    cpu_seconds,
    first_echo,
    iperf_server,
    pair,
    ping,
    reaches,
    tcp_mbit,
    udp_loss,
    wait_for,
)  # fmt: skip
from tests.system.lab.ends import kernel
from tests.system.lab.namespace import tool

pytestmark = pytest.mark.root


@pytest.mark.parametrize("kind", [Direct, WireguardGo, OpenVpn])
def test_every_stock_end_carries_both_versions_of_ip(lab: Lab, kind: type[End]) -> None:
    left, right = pair(lab.left, lab.right)
    with kind(lab.left, left), kind(lab.right, right):
        assert reaches(lab.left.host, lab.right.host4)
        assert reaches(lab.left.host, lab.right.host6)


def test_another_wireguard_go_is_named_by_its_path(lab: Lab, tmp_path: Path) -> None:
    other = str(shutil.copy(tool("wireguard-go"), tmp_path / "other-build"))
    left, right = pair(lab.left, lab.right)
    with WireguardGo(lab.left, left, other) as near, WireguardGo(lab.right, right):
        assert reaches(lab.left.host, lab.right.host4)
        assert Path(f"/proc/{near.pids()[0]}/exe").readlink() == Path(other)
    assert WireguardGo.version(other) == WireguardGo.version()


def test_the_kernel_s_wireguard_carries_packets_or_says_what_is_missing(lab: Lab) -> None:
    left, right = pair(lab.left, lab.right)
    if why := kernel.missing():
        with pytest.raises(LabError, match=re.escape(why)), KernelWireguard(lab.left, left):
            pass
    else:
        with KernelWireguard(lab.left, left), KernelWireguard(lab.right, right):
            assert reaches(lab.left.host, lab.right.host6)


def test_the_first_echo_is_heard_and_missed(lab: Lab) -> None:
    left, right = pair(lab.left, lab.right)
    assert not first_echo(lab.left.host, lab.right.host4, 0.1)
    with Direct(lab.left, left), Direct(lab.right, right):
        assert first_echo(lab.left.host, lab.right.host4, 5)


def test_a_process_at_work_is_seen_to_use_the_cpu() -> None:
    worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        wait_for("it to have worked for a while", lambda: cpu_seconds(worker.pid) > 0.2)
        assert any(name.startswith("python") for name, _ in busy_processes(0.5))
    finally:
        worker.kill()
        worker.wait()


def test_without_a_tunnel_nothing_gets_through(lab: Lab) -> None:
    assert ping(lab.left.host, lab.right.host4, count=2, patience=0.3).loss == 1


def test_a_capture_tells_plaintext_from_wireguard(plain_lab: Lab) -> None:
    plain, _ = _captured_transfer(plain_lab, Direct)
    assert plain.contains(MARKER) > 50
    assert plain.foreign()[6] > 50
    sealed, transfer = _captured_transfer(plain_lab, WireguardGo)
    assert transfer.received >= 100_000
    assert transfer.intact
    assert sealed.contains(MARKER) == 0
    assert not sealed.foreign()
    assert set(sealed.tshark_names()) == {"wg"}
    assert len(sealed.sessions()) == 2
    assert not sealed.repeated_nonces()
    frames = sealed.path.read_bytes()
    sealed.path.write_bytes(frames + frames[24:])  # every packet twice, as a nonce used twice would look
    assert len(sealed.repeated_nonces()) == sum(sealed.sessions().values()) / 2


def _captured_transfer(lab: Lab, kind: type[End]) -> tuple[Capture, Transfer]:
    left, right = pair(lab.left, lab.right)
    with Capture(lab) as capture, kind(lab.left, left), kind(lab.right, right):
        transfer = Transfer(lab.left.host, lab.right.host, lab.right.host4, total=100_000)
        transfer.wait()
    return capture, transfer


def test_a_capture_refuses_superpackets(lab: Lab) -> None:
    with pytest.raises(Exception, match="plain_nic"), Capture(lab):
        pass


def test_measurements_are_plausible(lab: Lab) -> None:
    left, right = pair(lab.left, lab.right)
    with Direct(lab.left, left), Direct(lab.right, right), iperf_server(lab.right.host):
        assert tcp_mbit(lab.left.host, lab.right.host4, 1) > 500
        lost, sent = udp_loss(lab.left.host, lab.right.host4, 1, 2000)
        assert lost < 0.5
        assert 1500 < sent < 2500
        pings = ping(lab.left.host, lab.right.host4, count=50, interval=0.002)
        assert 0 < pings.median <= pings.p99 < 1_000_000


def test_a_killed_run_is_swept_away_by_the_next(lab: Lab) -> None:
    script = """if True:
        import time
        from tests.system.lab import Lab, WireguardGo, pair
        with Lab() as lab, WireguardGo(lab.left, pair(lab.left, lab.right)[0]):
            print(lab.wan.name, flush=True)
            time.sleep(60)
    """
    root = Path(__file__).resolve().parents[2]
    run = subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    name = run.stdout.readline().strip()
    run.kill()
    run.wait()
    assert Path("/run/netns", name).exists()
    with Lab():
        pass
    assert not Path("/run/netns", name).exists()
    assert lab.wan.path.exists(), "a living run's world was removed"
