"""The channel's own tests inside Xen: pytest taken into dom0, which runs this checkout's tests there, over grants."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from tests.xen.rig import Rig, RigError
from tests.xen.rig.bytecode import compiled
from tests.xen.rig.cpio import Tree, archive, file
from tests.xen.rig.places import ROOT

SITE: Final = "suite/site"
_NEEDED: Final = ("pytest", "pluggy", "iniconfig", "packaging", "hypothesis", "sortedcontainers", "pygments")
TRANSPORT: Final = {"SEPTUM_TRANSPORT": "grants"}
_RUN: Final = """
import os, sys
sys.path[:0] = ["/suite/site", "/septum", "/septum/proto"]
os.chdir("/septum")
import pytest
from tests.channel import transports
print("transport:", transports.NAME, flush=True)
sys.exit(pytest.main({options!r}))
"""


def _libraries() -> Tree:
    """pytest and what it needs, as installed in the environment that runs this. Errors: PackageNotFoundError."""
    tree: Tree = {}
    for name in _NEEDED:
        for part in metadata.files(name) or ():
            path = Path(str(part.locate()))
            if ".." not in part.parts and path.suffix != ".pyc" and path.is_file():
                tree[f"{SITE}/{part}"] = file(path.read_bytes())
    return tree


def put(rig: Rig) -> None:
    """Lays pytest beside the checkout that dom0 has."""
    rig.put("/suite.cpio", archive(compiled(_libraries())))
    rig.run("cd / && cpio -idum < /suite.cpio && rm /suite.cpio", 120, check=True)


def run(rig: Rig, path: str, timeout: float = 600) -> int:
    """How many tests of the file ``path`` passed in dom0, in /septum, over grants: all that there are.

    Errors: RigError, with the output's end, if one fails or is left out: it is nowhere else seen.
    """
    options = ["-p", "no:cacheprovider", "-q", "--tb=short", "--durations=5", path]
    command = ["/usr/bin/python3.11", "-B", "-c", _RUN.format(options=options)]
    said = rig.run(command, timeout, check=True, env=TRANSPORT, show=True)[1]
    passed = sum(map(int, re.findall(r"^(\d+) passed", said, re.MULTILINE)))
    wanted = _count(path)
    if "transport: grants" not in said or passed != wanted:
        raise RigError(f"{passed} of {wanted} tests passed over grants:\n{said[-4000:]}")
    return passed


def _count(path: str) -> int:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", path]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sum("::" in line for line in listed.splitlines())
