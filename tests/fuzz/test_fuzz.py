"""All that is compiled under sanitizers, with a modest number of inputs; `make fuzz` has as many as one wants."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.fuzz import sanitized

INPUTS = 20_000
# One byte beyond one of Python's buffers
MISTAKE = "import array, ctypes; b = array.array('B', [0]) * 99; ctypes.memset(b.buffer_info()[0], 1, 100)"


def thrown(*words: str) -> str:
    """The last line of a run without a complaint."""
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "1", *words]
    ran = subprocess.run(command, cwd=sanitized.ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()[-1]


def test_what_is_compiled_is_clean_and_does_as_python_does() -> None:
    said = thrown("--inputs", str(INPUTS))
    assert f"{INPUTS:,} inputs in" in said
    shortly, messages = (int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:of|messages)", said))
    assert shortly > messages // 4, "the short way is not what was looked at"


def test_one_byte_too_many_ends_the_process() -> None:
    command = [sys.executable, "-c", MISTAKE]
    ran = subprocess.run(command, env=sanitized.environment(), capture_output=True, text=True, check=False)
    assert ran.returncode != 0 and "heap-buffer-overflow" in ran.stderr
