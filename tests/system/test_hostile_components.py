"""A hostile component in place of each component in turn: every attempt is refused, and the other domains go on.

The table of attempts and domains is printed at the end of the run.
"""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.monitor.control import ControlError, request
from tests.system.hostile.intruder import ATTEMPTS, BEGAN, REFUSED, RESOURCES, SUCCEEDED

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[2]
DOMAINS = ("rng", "log", "store", "keymgr", "encrypt", "decrypt", "filter", "red", "black")
PATIENCE = 20.0
SETTLE = 0.6  # seconds after the attempt in which the others must show that they go on


def _conf(directory: Path) -> Path:
    keys = [base64.b64encode(os.urandom(32)).decode() for _ in range(2)]
    file = directory / "hostile.conf"
    file.touch(mode=0o600)
    file.write_text(
        f"[Interface]\nPrivateKey = {keys[0]}\nAddress = 10.99.0.1/24\nTable = off\n"
        f"[Peer]\nPublicKey = {keys[1]}\nAllowedIPs = 10.99.0.2/32\n"
    )
    return file


@pytest.fixture
def sibling() -> Iterator[int]:
    """A process whose pid everybody knows, and who is harmed by nobody."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process.pid
    process.kill()
    process.wait()


@contextlib.contextmanager
def box(where: str, attempt: str, sibling: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("SEPTUM_RUN_DIR", "SEPTUM_STATE_DIR"):
        monkeypatch.setenv(variable, str(directory / variable.lower()))
    command = ["unshare", "--net", sys.executable, "-m", "tests.system.hostile.box", where, attempt, str(sibling)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*command, str(_conf(directory))], cwd=REPOSITORY, stderr=log, stdout=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def domains() -> dict[str, dict[str, Any]]:
    with contextlib.suppress(ControlError):
        return {domain["name"]: domain for domain in request("hostile", "status")["domains"]}
    return {}


def outcome(domain: dict[str, Any]) -> int:
    return int(next(iter(domain["counters"].values()), 0))


def wait_until(condition: Any, what: str, directory: Path) -> Any:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if result := condition():
            return result
        time.sleep(0.02)
    pytest.fail(f"{what} did not happen within {PATIENCE:g} s; the box says:\n{(directory / 'log').read_text()}")


def ended_or_refused(where: str) -> str:
    """How the intruder ended, or that it was refused and lives; empty while nothing is known."""
    intruder = domains().get(where)
    if intruder is None:
        return ""
    if intruder["restarts"]:
        return str(intruder["last_death"]).splitlines()[0]
    if outcome(intruder) == SUCCEEDED:
        return "SUCCEEDED"
    return "refused with an error" if outcome(intruder) == REFUSED else ""


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_control(attempt: str) -> None:
    """Each attempt succeeds for a process that nothing holds back: so the table below can fail."""
    held = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        time.sleep(0.3)
        mapped = Path(f"/proc/{held.pid}/maps").read_text().split("-", 1)[0]
        program = [sys.executable, "-m", "tests.system.hostile.intruder", attempt, str(held.pid), mapped]
        done = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        held.kill()
        held.wait()


@pytest.mark.parametrize("where", DOMAINS)
def test_the_kernel_refuses(
    where: str,
    sibling: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    report: list[tuple[str, str]],
) -> None:
    """Every attempt of a hostile `where` to leave its domain is refused; the others keep their pids and go on."""
    results = []
    for number, attempt in enumerate(ATTEMPTS):
        directory = tmp_path / str(number)
        directory.mkdir()
        with box(where, attempt, sibling, directory, monkeypatch):
            before = wait_until(domains, "the box", directory)
            how = wait_until(lambda: ended_or_refused(where), f"{attempt} in {where}", directory)
            assert how == "was ended by SIGSYS", f"{attempt} in {where}: {how}"
            _others_go_on(where, before)
        results.append(how)
    report.append((f"hostile {where}", f"{len(results)} attempts at the kernel, each ended by SIGSYS"))


def _others_go_on(where: str, before: dict[str, dict[str, Any]]) -> None:
    time.sleep(SETTLE)
    after = domains()
    for name in before.keys() - {where}:
        assert after[name]["pid"] == before[name]["pid"], f"{name} did not survive: {after[name]['last_death']}"
        assert after[name]["state"] == "running"
        assert after[name]["heartbeat_age"] < 1.5, f"{name} stands still"


@pytest.mark.parametrize("attempt", RESOURCES)
@pytest.mark.parametrize("where", DOMAINS)
def test_the_others_bear_it(
    where: str,
    attempt: str,
    sibling: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    report: list[tuple[str, str]],
) -> None:
    """What no kernel refuses - taking memory and time, lying on the rings - ends the intruder and nobody else."""
    with box(where, attempt, sibling, tmp_path, monkeypatch):
        before = wait_until(domains, "the box", tmp_path)
        how = wait_until(lambda: ended_or_refused(where), f"{attempt} in {where}", tmp_path)
        assert "ended" in how and how != "SUCCEEDED", how
        assert outcome(domains()[where]) in (0, BEGAN)
        _others_go_on(where, before)
    log = (tmp_path / "log").read_text()
    reason = next((line for line in log.splitlines() if f"{where} is ended" in line), how)
    report.append((f"hostile {where}: {attempt}", reason.split("septum hostile: ")[-1][:80]))
