"""Where a benchmark ran, with what, and beside what."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.system.lab import LabError, cpu_seconds

BUSY: Final = 0.03  # of a CPU


def busy_processes(seconds: float = 1.0) -> list[tuple[str, float]]:
    """Processes of others that use more than a little of a CPU now: (name, share of one CPU), the busiest first."""

    def used() -> dict[int, float]:
        found = {}
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != os.getpid():
                try:
                    found[int(path.name)] = cpu_seconds(int(path.name))
                except (OSError, IndexError):
                    continue  # it ended meanwhile
        return found

    before = used()
    time.sleep(seconds)
    busy = []
    for pid, spent in used().items():
        share = (spent - before.get(pid, spent)) / seconds
        if share >= BUSY:
            try:
                busy.append((Path(f"/proc/{pid}/comm").read_text().strip(), round(share, 2)))
            except OSError:
                continue
    return sorted(busy, key=lambda one: -one[1])


def before() -> dict[str, Any]:
    """What is going on before anything of ours runs."""
    return {"load": [round(value, 2) for value in os.getloadavg()], "busy": busy_processes()}


def describe(versions: dict[str, Callable[[], str]]) -> dict[str, Any]:
    """The machine, and the version of every kind of tunnel."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), platform.machine())
    found = {}
    for kind, version in versions.items():
        try:
            found[kind] = version()
        except LabError as error:
            found[kind] = f"? ({error})"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu, "cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
        "versions": found,
    }  # fmt: skip
