"""The compiled loops under sanitizers, with a modest number of inputs; `make fuzz` has as many as one wants."""

from __future__ import annotations

import subprocess
import sys

from tests.fuzz import sanitized

INPUTS = 20_000
# One byte beyond one of Python's buffers
MISTAKE = "import array, ctypes; b = array.array('B', [0]) * 99; ctypes.memset(b.buffer_info()[0], 1, 100)"


def test_the_compiled_loops_are_clean_and_do_as_their_twins() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "1", "--inputs", str(INPUTS)]
    ran = subprocess.run(command, cwd=sanitized.ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{INPUTS:,} inputs in" in ran.stdout.splitlines()[-1]


def test_one_byte_too_many_ends_the_process() -> None:
    command = [sys.executable, "-c", MISTAKE]
    ran = subprocess.run(command, env=sanitized.environment(), capture_output=True, text=True, check=False)
    assert ran.returncode != 0 and "heap-buffer-overflow" in ran.stderr
