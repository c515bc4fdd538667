"""What each domain, and the monitor, has imported when it is built: memory and start of the box follow from it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SITE = next(path for path in map(Path, sys.path) if (path / "cryptography").is_dir())
PATHS = [str(path) for path in (ROOT, ROOT / "proto", SITE)]

# Modules that are not ours, as counted with Python 3.11; another has a few more or less by itself.
# Before more is allowed: is it worth its memory, nine times, and its place in a domain?
BUDGET = {
    # Speaks gRPC, TLS and X.509 to strangers: what that takes is in no other domain
    "admin.admin": 480,
    "config.config": 105,
    "crypto.encrypt": 100,
    "crypto.decrypt": 100,
    "filter.filter": 86,
    "filter.bridge": 86,
    "filter.split": 86,
    "keymgr.keymgr": 167,
    "log.log": 77,
    "net.red": 80,
    "net.black": 113,
    "net.red_link": 83,
    "net.black_link": 83,
    "net.clear": 80,
    "rng.rng": 85,
    "store.store": 83,
}
MONITOR = 138
OTHER_PYTHON = 0 if sys.version_info[:2] == (3, 11) else 6

# What came in by the way before: each costs 0.3 to 4 MiB, and brings more with it
HEAVY = {
    "google",
    "_hashlib",
    "asyncio",
    "datetime",
    "difflib",
    "inspect",
    "logging",
    "pickle",
    "threading",
    "unittest",
}
EXCUSED = {
    "admin.admin": HEAVY - {"asyncio", "unittest"},
    # Its dataclasses; and what cryptography imports when the first key is made, which came uncounted before
    "keymgr.keymgr": {"inspect", "threading"},
}
NOT_IN_THE_MONITOR = {"asyncio", "click", "cryptography", "google", "logging", "pyroute2", "rich", "typer"}

ROLES = [
    pytest.param(path.parent.name, role, declared, id=f"{path.parent.name}.{role}")
    for path in sorted(ROOT.glob("components/*/component.toml"))
    for role, declared in tomllib.loads(path.read_text())["roles"].items()
]


def imported(code: str) -> set[str]:
    """The modules of a fresh interpreter, started as those of domains are, that has run ``code``."""
    script = f"import sys; sys.path.extend({PATHS!r})\n{code}\nprint(*sys.modules, sep='\\n')"
    command = [sys.executable, "-I", "-S", "-B", "-c", script]
    return set(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())


def foreign(modules: set[str]) -> set[str]:
    # appliance.vchan.shared calls itself "shared" as well; cython_runtime and _cython_* are in no file
    ours = ("appliance", "components", "septum", "__main__", "cython_runtime", "shared")
    return {name for name in modules if not name.startswith("_cython_") and name.split(".")[0] not in ours}


@pytest.mark.parametrize(("component", "role", "declared"), ROLES)
def test_a_domain_imports_no_more_than_it_did(component: str, role: str, declared: dict[str, Any]) -> None:
    name = f"{component}.{role}"
    found = imported(f"""
import json
from appliance.guest import domain
domain.close_gate({component!r}, {declared.get("imports", [])!r})
import {declared["main"]}
""")
    assert declared["main"] in found
    assert found & HEAVY <= EXCUSED.get(name, set())
    assert len(foreign(found)) <= BUDGET[name] + OTHER_PYTHON, sorted(foreign(found))


def test_the_monitor_imports_no_more_than_it_did() -> None:
    found = imported("import appliance.cli.septum, appliance.cli.building, appliance.assembly.resolve")
    found |= imported("import appliance.cli.building, appliance.monitor.main")
    assert "appliance.monitor.box" in found
    assert not found & NOT_IN_THE_MONITOR
    assert len(foreign(found)) <= MONITOR + OTHER_PYTHON, sorted(foreign(found))
