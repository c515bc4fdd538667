"""Counts what a packet costs each domain on the fixed trace: instructions by callgrind, system calls by strace.

    make budgets        writes them to budgets.json, and shows what changed

Nothing here depends on time, load or the machine: callgrind counts what a plain x86-64 with AVX2 would execute.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from appliance.monitor.spawn import ENVIRONMENT

ROOT: Final = Path(__file__).parents[2]
BUDGETS: Final = Path(__file__).with_name("budgets.json")
TOLERANCE: Final = 0.03
NOISE: Final = 0.005  # a difference that is none: addresses are never quite the same
# Another interpreter than the one that the budgets were counted with executes other instructions for the same work
FOREIGN_TOLERANCE: Final = 0.3
DEBIAN: Final = Path("/usr/bin/python3.11")
# One interpreter for all who have it, whatever the virtual environment was made with
INTERPRETER: Final = str(DEBIAN if DEBIAN.exists() and sys.version_info[:2] == (3, 11) else sys.executable)
_CALL: Final = re.compile(r"(?:\d+ +)?(\w+)\(")


@dataclass(frozen=True)
class Work:
    """What a domain did for one kind of traffic; ``calls`` are system calls in all, by name."""

    packets: int
    instructions: int  # a packet
    calls: dict[str, int]


def _run(directory: Path, *tool: str) -> list[dict[str, Any]]:
    """The fixed trace under ``tool``; the pieces of work that work.py lists."""
    listed = directory / "list.json"
    path = (ROOT, ROOT / "proto", sysconfig.get_path("platlib"))
    done = subprocess.run(
        ["setarch", "--addr-no-randomize", *tool, INTERPRETER, "-S", "-B", "-m", "tests.budgets.work", str(listed)],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
        env={**ENVIRONMENT, "PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONPATH": ":".join(map(str, path))},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{tool[0]}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return list(json.loads(listed.read_text()))


def interpreter() -> str:
    """Which interpreter counts: its version and how it was built."""
    shown = subprocess.run([INTERPRETER, "-c", "import sys; print(sys.version)"], capture_output=True, check=True)
    return shown.stdout.decode().strip().replace("\n", "")


def _total(dump: Path) -> int:
    match = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    if match is None:
        raise RuntimeError(f"{dump} is no dump of callgrind's")
    return int(match[1])


def instructions() -> dict[str, int]:
    """Instructions a packet, by piece of work."""
    with tempfile.TemporaryDirectory(prefix="septum-budgets-") as name:
        out = Path(name, "out")
        marks = ("--zero-before=getppid", "--dump-before=getpgrp")
        pieces = _run(Path(name), "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *marks)
        return {
            one["name"]: round(sum(_total(out.with_suffix(f".{1 + turn}")) for turn in one["turns"]) / one["packets"])
            for one in pieces
        }


def calls() -> dict[str, tuple[int, dict[str, int]]]:
    """Packets, and the system calls for them, by piece of work."""
    with tempfile.TemporaryDirectory(prefix="septum-budgets-") as name:
        out = Path(name, "out")
        pieces = _run(Path(name), "strace", "-f", "-o", str(out))
        turns: list[Counter[str]] = []
        inside = False
        for line in out.read_text().splitlines():
            match = _CALL.match(line)
            if match is None:
                continue
            if match[1] == "getppid":
                inside = True
                turns.append(Counter())
            elif match[1] == "getpgrp":
                inside = False
            elif inside:
                turns[-1][match[1]] += 1
        return {
            one["name"]: (one["packets"], dict(sorted(sum((turns[turn] for turn in one["turns"]), Counter()).items())))
            for one in pieces
        }


def count() -> dict[str, Work]:
    """All of it: about half a minute."""
    executed = instructions()
    return {name: Work(packets, executed[name], made) for name, (packets, made) in calls().items()}


def budgets() -> tuple[str, dict[str, Work]]:
    """The interpreter that they were counted with, and the budgets by piece of work."""
    stored = json.loads(BUDGETS.read_text())
    return stored["interpreter"], {name: Work(**work) for name, work in stored["work"].items()}


def complaints(found: Work, budget: Work, tolerance: float) -> list[str]:
    """What ``found`` differs from ``budget`` in. What got cheaper counts as well: its budget would hide what comes."""
    said = []
    change = found.instructions / budget.instructions - 1
    if abs(change) > tolerance:
        said.append(f"{found.instructions} instructions a packet, {budget.instructions} budgeted: {change:+.1%}")
    if found.calls != budget.calls:
        said.append(f"system calls {found.calls}, budgeted {budget.calls}")
    return said


def main() -> None:
    before = budgets()[1] if BUDGETS.exists() else {}
    after = count()
    table = Table("for a packet", "instructions", "before", "", "system calls", "before", box=None)
    for name, work in after.items():
        old = before.get(name, work)
        change = work.instructions / old.instructions - 1
        per = [f"{sum(one.calls.values()) / one.packets:.3f}" for one in (work, old)]
        table.add_row(name, str(work.instructions), str(old.instructions), f"{change:+.1%}", *per)
    Console(highlight=False).print(table)
    kept = {
        name: before[name]
        for name, work in after.items()
        if name in before and not complaints(work, before[name], NOISE)
    }
    stored = {"interpreter": interpreter(), "work": {name: asdict(work) for name, work in (after | kept).items()}}
    BUDGETS.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
