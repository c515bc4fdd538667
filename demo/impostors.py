"""What a hostile domain could do: an impostor in place of each, sealed by that domain's own plan, tries.

Every attempt is one system call of a process of its own, made by the program that the system tests use for the same.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appliance.monitor.sandbox.plan import SealPlan
from appliance.monitor.spawn import Child, spawn

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "tests" / "system" / "seal_child.py"
SITE_PACKAGES = next(path for path in sys.path if path.endswith("site-packages"))
PATH = [str(ROOT), str(ROOT / "proto"), SITE_PACKAGES]

# name in the program's table -> what it means
ATTEMPTS = {
    "openat": "open a file",
    "socket inet": "make a socket",
    "clone": "start a process",
    "execve": "run a program",
    "mmap executable": "make code",
    "kill": "signal another",
    "ptrace": "trace another",
    "process_vm_readv": "read its memory",
    "setns": "enter a namespace",
    "mount": "mount something",
    "setresuid": "become root",
    "bpf": "load BPF",
}
HARMLESS = "close of nothing"
SOCKET = 9  # the program holds one, as black does: what may be done with it is part of the plan
KILLED = -signal.SIGSYS


def tries(plan: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """(what was attempted, whether the kernel killed it for that), for each attempt under this domain's plan.

    Errors: RuntimeError if an impostor that does nothing wrong does not survive: then a death proves nothing.
    """
    sealed = SealPlan.from_json(plan)._replace(keep_fds=(0, 1, 2, SOCKET))
    running = [(name, *_start(name, sealed)) for name in (HARMLESS, *ATTEMPTS)]
    for name, child, reading in running:
        with open(reading, "rb") as pipe:
            said = pipe.read().decode(errors="replace").strip()
        status = child.reap()
        status = status if status <= 128 else 128 - status
        if name == HARMLESS:
            if status != 0:
                raise RuntimeError(f"a harmless impostor of {sealed.domain} ended with {status}: {said}")
        else:
            yield ATTEMPTS[name], status == KILLED


def _start(name: str, plan: SealPlan) -> tuple[Child, int]:
    orders = {"path": PATH, "attempt": name, "seal": {"plan": plan.to_json(), "without": []}, "as_user": False}
    memory, null, (reading, writing) = os.memfd_create("orders"), os.open(os.devnull, os.O_RDWR), os.pipe()
    os.write(memory, json.dumps(orders).encode())
    child = spawn({0: null, 1: null, 2: writing, 3: memory}, PROGRAM)
    for fd in (memory, null, writing):
        os.close(fd)
    return child, reading
