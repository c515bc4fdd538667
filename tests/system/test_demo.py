"""`make demo` is the first thing a newcomer sees: it must hold, and say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(240)
def test_the_demo_holds() -> None:
    command = [str(ROOT / "tools" / "private"), sys.executable, "-m", "demo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wireguard-go" in done.stdout
    assert "All of it held" in done.stdout
    assert done.stdout.count("✗    ✗") > 12, "the table of attempts is missing"
    assert " ✗ " not in [line[:3] for line in done.stdout.splitlines()]
