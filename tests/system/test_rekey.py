"""Connections that outlive their keys: a session is replaced after 120 s (REKEY_AFTER_TIME), under running traffic.

The transfers begin with the first test of all and are looked at after the last one, so that the two minutes pass while
others work (see pytest_collection_modifyitems in conftest.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
WORST = 5.0  # seconds of silence; what is expected is what scheduling costs


@pytest.fixture(scope="session")
def long_transfer() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.system.long_transfer"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        yield program
        program.terminate()


def test_a_long_transfer_begins(long_transfer: subprocess.Popen[str]) -> None:
    assert long_transfer.stdout and long_transfer.stderr
    assert long_transfer.stdout.readline() == "begun\n", long_transfer.stderr.read()


@pytest.mark.timeout(300)
def test_the_long_transfer_outlived_its_keys(
    long_transfer: subprocess.Popen[str], report: list[tuple[str, str]]
) -> None:
    out, err = long_transfer.communicate(timeout=280)
    assert long_transfer.returncode == 0, err
    for name, seen in json.loads(out.splitlines()[-1]).items():
        report.append((f"rekey, {name}: longest silence", f"{seen['silence'] * 1000:8.0f} ms"))
        assert seen["alive"] and seen["intact"], name
        assert seen["bytes after the new handshake"] > 0, name
        assert seen["silence"] < WORST, name
