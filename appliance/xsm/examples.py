"""The policy that comes with Xen: everything but what its examples isolate is allowed. To start a machine with."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.xsm.compile import compiled, module


def upstream(tree: Path) -> bytes:
    """Every module that Xen's modules.conf has switched on. Errors: PolicyError."""
    enabled = re.findall(r"^\s*([a-zA-Z0-9_]+)\s*=\s*on", module(tree, "modules.conf"), re.MULTILINE)
    constraints = [path.read_text() for name in enabled if (path := tree / f"modules/{name}.cons").exists()]
    rest = [(tree / "policy" / name).read_text() for name in ("users", "initial_sids", "device_contexts")]
    tunables = (tree / "policy/global_tunables").read_text()
    modules = [module(tree, f"{name}.te") for name in enabled]
    return compiled(tree, [tunables, *modules, rest[0], *constraints, *rest[1:]])
