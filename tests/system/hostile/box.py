"""A box with the intruder in it: ``python -m tests.system.hostile.box DOMAIN ATTEMPT SIBLING CONF``.

It stays until it is told to stop. Run it in a network namespace of its own.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from appliance.assembly import model
from appliance.assembly.wgquick import from_wgquick
from appliance.monitor import process
from appliance.monitor.main import run

HERE = Path(__file__).resolve().parent


def main() -> int:
    """The monitor's program, with one role's main module replaced after validation."""
    where, attempt, sibling, conf = sys.argv[1:]
    assembly = from_wgquick(Path(conf))
    domains = []
    for domain in assembly.domains:
        if domain.name == where:
            imports = (*domain.role.imports, "intruder", "ctypes", "_ctypes", "socket", "_socket")
            role = dataclasses.replace(domain.role, main="intruder", imports=imports)
            settings = {"attempt": attempt, "sibling": int(sibling), "address": 0}
            domain = dataclasses.replace(domain, role=role, settings=settings)  # noqa: PLW2901
        domains.append(domain)
    hostile = dataclasses.replace(assembly, domains=tuple(domains), proof=model._PROOF)
    process._PATH = (*process._PATH, str(HERE))  # type: ignore[misc]
    return run(hostile, name="hostile")


if __name__ == "__main__":
    sys.exit(main())
