"""A box whose filter is bent: ``python -m tests.system.hostile.bent_box CONF``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from appliance.assembly import model
from appliance.assembly.wgquick import from_wgquick
from appliance.monitor import process
from appliance.monitor.main import run

NAME = "bent"


def main() -> int:
    """The monitor's program, with one main module replaced after validation."""
    assembly = from_wgquick(Path(sys.argv[1]))
    domains = []
    for domain in assembly.domains:
        if domain.name == "filter":
            role = dataclasses.replace(domain.role, main="bent", imports=(*domain.role.imports, "bent"))
            domains.append(dataclasses.replace(domain, role=role))
        else:
            domains.append(domain)
    process.PATH = (*process.PATH, str(Path(__file__).parent))
    return run(dataclasses.replace(assembly, domains=tuple(domains), proof=model._PROOF), name=NAME)


if __name__ == "__main__":
    sys.exit(main())
