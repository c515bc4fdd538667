"""A box with the intruder in it: ``python -m tests.system.hostile.box DOMAIN PIPE SIBLING CONF``.

PIPE is the descriptor from which the intruder reads its next attempt. It stays until it is told to stop. Run it in a
network namespace of its own. Deaths cost no waiting here, and a loop that stands still is ended after two seconds, so
that the suite takes minutes and not an hour.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

from appliance.assembly import model
from appliance.assembly.wgquick import from_wgquick
from appliance.monitor import box, process
from appliance.monitor.main import run
from appliance.monitor.process import ProcessBackend
from appliance.monitor.supervisor import LIMITS, Supervisor

HERE = Path(__file__).resolve().parent


def main() -> int:
    """The monitor's program, with one role's main module replaced after validation."""
    where, pipe, sibling, conf = sys.argv[1:]
    assembly = from_wgquick(Path(conf))
    domains = []
    for domain in assembly.domains:
        if domain.name == where:
            imports = (*domain.role.imports, "intruder", "ctypes", "_ctypes", "socket", "_socket")
            devices = (*domain.role.devices, "attempts")
            role = dataclasses.replace(domain.role, main="intruder", imports=imports, devices=devices)
            settings = {"sibling": int(sibling), "address": 0}
            domain = dataclasses.replace(domain, role=role, settings=settings)  # noqa: PLW2901
        domains.append(domain)
    hostile = dataclasses.replace(assembly, domains=tuple(domains), proof=model._PROOF)
    process._PATH = (*process._PATH, str(HERE))  # type: ignore[misc]

    def backend(assembly: Any, devices: dict[str, int], *rest: Any, **more: Any) -> ProcessBackend:
        return ProcessBackend(assembly, {**devices, "attempts": int(pipe)}, *rest, **more)

    box.ProcessBackend = backend  # type: ignore[misc, assignment]
    limits = LIMITS._replace(free_deaths=1000, heartbeat=2.0)
    box.Supervisor = functools.partial(Supervisor, limits=limits)  # type: ignore[misc, assignment]
    return run(hostile, name="hostile")


if __name__ == "__main__":
    sys.exit(main())
