"""In a domain, what component.toml does not declare cannot be imported. Each case runs in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, sys
from appliance.guest.imports import close_gate
close_gate("keymgr", {declared!r})
importlib.import_module({module!r})
"""


def attempt(module: str, declared: list[str]) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(declared=declared, module=module)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    "module", ["cryptography.hazmat.primitives.hashes", "socket", "subprocess", "nacl.secret", "ssl"]
)
def test_undeclared_is_refused_and_declared_is_not(module: str) -> None:
    refused = attempt(module, [])
    top = module.split(".", maxsplit=1)[0]
    assert refused.returncode == 1
    assert f"add {top!r} to `imports` in components/keymgr/component.toml" in refused.stderr
    more = {"nacl": ["cffi", "_cffi_backend"], "socket": ["_socket"], "ssl": ["_ssl", "socket", "_socket"]}
    more |= {"subprocess": ["_posixsubprocess"], "cryptography": ["_cffi_backend"]}
    assert attempt(module, [top, *more.get(top, [])]).returncode == 0


@pytest.mark.parametrize("module", ["components.crypto", "appliance.monitor", "appliance.cli.keys"])
def test_other_components_and_the_monitor_are_out_of_reach_whatever_is_declared(module: str) -> None:
    refused = attempt(module, ["components", "appliance"])
    assert refused.returncode == 1
    assert "must not import" in refused.stderr or "imports only appliance.guest" in refused.stderr


def test_own_component_and_the_schemas_are_in_reach() -> None:
    assert attempt("components.keymgr", []).returncode == 0
    assert attempt("septum.v1.sending", []).returncode == 0


def test_the_runtime_of_protobuf_is_out_of_reach() -> None:
    refused = attempt("septum.v1.sending_pb2", [])
    assert refused.returncode == 1
    assert "google.protobuf is not declared" in refused.stderr or "google is not declared" in refused.stderr
