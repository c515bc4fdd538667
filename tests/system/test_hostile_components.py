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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.monitor.control import ControlError, request
from tests.system.hostile.intruder import ATTEMPTS, NAMES, REFUSED, SUCCEEDED

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[2]
DOMAINS = ("rng", "log", "store", "keymgr", "encrypt", "decrypt", "filter", "red", "black")
MANAGED = ("config", "admin")  # of a box that is administered from elsewhere
PATIENCE = 20.0
RESOURCE_ENDS = {
    "exhaust memory": {"ended with status 1"},  # MemoryError is its last word
    "keep the cpu": {"was ended by SIGKILL"},  # by the watchdog
    "scribble its rings": {"was ended by SIGKILL"},  # accused by a neighbour
    "send what it has no right to": {"was ended by SIGKILL"},
}


def _conf(directory: Path, where: str) -> Path:
    keys = [base64.b64encode(os.urandom(32)).decode() for _ in range(2)]
    file = directory / "hostile.conf"
    file.touch(mode=0o600)
    file.write_text(
        f"[Interface]\nPrivateKey = {keys[0]}\nAddress = 10.99.0.1/24\nTable = off\n"
        + ("" if where in MANAGED else f"[Peer]\nPublicKey = {keys[1]}\nAllowedIPs = 10.99.0.2/32\n")
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
def box(where: str, sibling: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A box whose `where` is the intruder; yields the pipe that says what it tries next."""
    for variable in ("SEPTUM_RUN_DIR", "SEPTUM_STATE_DIR"):
        monkeypatch.setenv(variable, str(directory / variable.lower()))
    reader, writer = os.pipe2(os.O_NONBLOCK)
    command = ["unshare", "--net", sys.executable, "-m", "tests.system.hostile.box", where, str(reader), str(sibling)]
    if where in MANAGED:
        monkeypatch.setenv("SEPTUM_CONFIG", str(directory / "contexts"))
        subprocess.run([sys.executable, "-m", "appliance.cli.septum", "init", "hostile"], cwd=REPOSITORY, check=True)
    base = "vpn-managed" if where in MANAGED else "vpn"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(_conf(directory, where)), base], cwd=REPOSITORY, stderr=log, stdout=log, pass_fds=[reader]
        )
    try:
        yield writer
    finally:
        process.terminate()
        process.wait(20)
        os.close(reader)
        os.close(writer)


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


def is_up() -> dict[str, dict[str, Any]]:
    """All domains, once all of them run."""
    seen = domains()
    return seen if seen and all(domain["state"] == "running" for domain in seen.values()) else {}


def ended_or_refused(where: str, restarts: int) -> str:
    """How the intruder ended, or that it was refused and lives; empty while nothing is known."""
    intruder = domains().get(where)
    if intruder is None:
        return ""
    if intruder["restarts"] > restarts:
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


@pytest.mark.parametrize("where", (*DOMAINS, *MANAGED))
def test_a_hostile_component(
    where: str, sibling: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: list[tuple[str, str]]
) -> None:
    """Whatever a hostile `where` tries is refused or ends it, and nobody else: the others keep their pids and go on."""
    ends = []
    with box(where, sibling, tmp_path, monkeypatch) as pipe:
        for number, attempt in enumerate(NAMES):
            before = wait_until(is_up, f"all running before {attempt} in {where}", tmp_path)
            os.write(pipe, number.to_bytes(8, "little"))
            restarts = before[where]["restarts"]
            how = wait_until(lambda n=restarts: ended_or_refused(where, n), f"{attempt} in {where}", tmp_path)
            if attempt in ATTEMPTS:
                assert how == "was ended by SIGSYS", f"{attempt} in {where}: {how}"
            else:
                assert how in RESOURCE_ENDS[attempt], f"{attempt} in {where}: {how}"
            after = wait_until(is_up, f"all running after {attempt} in {where}", tmp_path)
            for name in before.keys() - {where}:
                survived = after[name]["pid"] == before[name]["pid"]
                assert survived, f"{attempt} in {where}: {name} did not survive:\n{(tmp_path / 'log').read_text()}"
                assert after[name]["heartbeat_age"] < 1.5, f"{attempt} in {where}: {name} stands still"
            ends.append(how)
        end = domains()
        assert {end[name]["restarts"] for name in end.keys() - {where}} == {0}
        assert end[where]["restarts"] == len(NAMES), (tmp_path / "log").read_text()
    counted = Counter(ends)
    report.append((f"hostile {where}", ", ".join(f"{count} attempts: {how}" for how, count in counted.items())))
