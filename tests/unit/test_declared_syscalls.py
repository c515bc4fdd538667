"""A role declares the system calls that its modules make, and no other: the unused ones serve an intruder alone."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

from appliance.monitor.sandbox.allowlist import DECLARABLE, LIMITED

ROOT = Path(__file__).parents[2]
# Where Python's name is not the call's
OS = {"pread": "pread64", "pwrite": "pwrite64", "urandom": "getrandom"}
SOCKET = {"recv": "recvfrom", "recv_into": "recvfrom", "recvfrom_into": "recvfrom", "recvmsg_into": "recvmsg"}
SOCKETS = {*SOCKET, "recvfrom", "recvmsg", "sendto", "sendmsg", "shutdown"}
ROLES = [
    pytest.param(path.parent.name, declared, id=f"{path.parent.name}.{name}")
    for path in sorted(ROOT.glob("components/*/component.toml"))
    for name, declared in tomllib.loads(path.read_text())["roles"].items()
]


def calls(module: str, component: str, seen: set[str]) -> set[str]:
    """The declarable system calls that ``module``, and what it imports of its component, name."""
    path = (ROOT / module.replace(".", "/")).with_suffix(".py")
    if module in seen or not path.exists():
        return set()
    seen.add(module)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "os":
                found.add(OS.get(node.attr, node.attr))
            elif node.attr in SOCKETS:
                found.add(SOCKET.get(node.attr, node.attr))
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"components.{component}."):
            for name in (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)):
                found |= calls(name, component, seen)
    return found & DECLARABLE


@pytest.mark.parametrize(("component", "declared"), ROLES)
def test_what_is_declared_is_what_is_called(component: str, declared: dict[str, Any]) -> None:
    assert calls(declared["main"], component, set()) == set(declared.get("syscalls", [])) - set(LIMITED)
