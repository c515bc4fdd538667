"""A box with the intruder in it: ``python -m tests.system.hostile.box DOMAIN PIPE SIBLING CONF ASSEMBLY``.

PIPE is the descriptor from which the intruder reads its next attempt. It stays until it is told to stop. Run it in a
network namespace of its own. Deaths cost no waiting here, and a loop that stands still is ended after two seconds, so
that the suite takes minutes and not an hour.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from appliance.assembly import model
from appliance.assembly.load import ASSEMBLIES
from appliance.assembly.wgquick import from_wgquick
from appliance.management.trust import trust
from appliance.monitor import main as monitor
from appliance.monitor import process
from appliance.monitor.places import state_base
from appliance.monitor.process import ProcessBackend
from appliance.monitor.supervisor import LIMITS

NAME = "hostile"
HERE = Path(__file__).resolve().parent


def main() -> int:
    """The monitor's program, with one role's main module replaced after validation."""
    where, pipe, sibling, conf, base = sys.argv[1:]
    assembly = from_wgquick(Path(conf), base=ASSEMBLIES / f"{base}.toml")
    if assembly.trusting:
        found = trust(state_base() / NAME)
        assert found is not None, "septum init comes first"
        assembly = assembly.with_trust(found)
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
    process.PATH = (*process.PATH, str(HERE))  # type: ignore[misc]

    class Bent(ProcessBackend):
        """With one device more, and patience for deaths."""

        pace = ProcessBackend.pace._replace(limits=LIMITS._replace(free_deaths=1000, heartbeat=2.0))  # type: ignore[misc]

        def __init__(self, assembly: Any, devices: Any, *rest: Any) -> None:
            super().__init__(assembly, {**devices, "attempts": int(pipe)}, *rest)

    monitor.ProcessBackend = Bent  # type: ignore[misc]
    return monitor.run(hostile, name=NAME)


if __name__ == "__main__":
    sys.exit(main())
