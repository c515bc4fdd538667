"""The compiled loops under sanitizers, with a modest number of inputs; `make fuzz` has as many as one wants."""

from __future__ import annotations

import subprocess
import sys

from tests.fuzz import sanitized

INPUTS = 20_000


def python(*arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=sanitized.ROOT, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload, no-any-return]


def test_the_compiled_loops_are_clean_and_like_their_twins() -> None:
    ran = python("-m", "tests.fuzz", "--seed", "1", "--inputs", str(INPUTS))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{INPUTS:,} inputs in" in ran.stdout.splitlines()[-1]
