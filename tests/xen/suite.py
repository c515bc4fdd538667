"""The channel's own tests inside Xen: pytest taken into dom0, which runs this checkout's tests there, over grants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
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
import collections, json, os, sys
sys.path[:0] = ["/suite/site", "/septum", "/septum/proto"]
os.chdir("/septum")
import pytest
from tests.channel import transports

class Count:
    passed = collections.Counter()

    def pytest_runtest_logreport(self, report):
        self.passed[report.nodeid.partition("::")[0]] += report.when == "call" and report.passed

code = pytest.main(sys.argv[1:], plugins=[Count()])
print(json.dumps({"transport": transports.NAME, "passed": Count.passed}))
sys.exit(code)
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


def run(rig: Rig, paths: Sequence[str], timeout: float = 1200) -> dict[str, int]:
    """How many tests of each of the files ``paths`` passed in dom0, in /septum, over grants: all that there are.

    By one pytest, for its start is what takes longest there. Errors: RigError, with the output's end, if one fails or
    is left out: it is nowhere else seen.
    """
    options = ["-p", "no:cacheprovider", "-q", "--tb=short", "--durations=5"]
    command = ["/usr/bin/python3.11", "-B", "-c", _RUN, *options, *paths]
    said = rig.run(command, timeout, check=True, env=TRANSPORT, show=True)[1]
    found = json.loads(said.splitlines()[-1])
    wanted = {"transport": "grants", "passed": _counts(paths)}
    if found != wanted:
        raise RigError(f"these should have passed: {wanted}\nand did: {found}\n{said[-4000:]}")
    return wanted["passed"]


def _counts(paths: Sequence[str]) -> dict[str, int]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *paths]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}  # as -v
    listed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    return dict(Counter(line.partition("::")[0] for line in listed.splitlines() if "::" in line))
