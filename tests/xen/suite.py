"""The channel's own tests inside Xen: pytest taken into dom0, which then runs this checkout's tests there."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Final

from tests.xen.rig import Rig
from tests.xen.rig.bytecode import compiled
from tests.xen.rig.cpio import Tree, archive, file

SITE: Final = "suite/site"
_NEEDED: Final = ("pytest", "pluggy", "iniconfig", "packaging", "hypothesis", "sortedcontainers", "pygments")
_ENDED: Final = "import sys; sys.path[:0] = ['/suite/site', '/septum', '/septum/proto']; import pytest; "


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


def run(rig: Rig, *arguments: str, timeout: float = 600) -> str:
    """The output of ``pytest ARGUMENTS`` in dom0, in /septum. Errors: RigError, with the output's end, if it fails."""
    options = ["-p", "no:cacheprovider", "-q", "--tb=short", "-rs", *arguments]
    program = f"{_ENDED}import os; os.chdir('/septum'); sys.exit(pytest.main({options!r}))"
    return rig.run(["/usr/bin/python3.11", "-B", "-c", program], timeout, check=True, show=True)[1]
