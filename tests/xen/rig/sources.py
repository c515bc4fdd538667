"""This checkout and the libraries it runs with, laid over dom0 as a second initramfs: /septum and Debian's site
directory."""

from __future__ import annotations

import hashlib
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

from .bytecode import compiled
from .cpio import Tree, archive, file
from .places import ROOT, XEN, making, step

SITE: Final = "usr/local/lib/python3.11/dist-packages"
_FOLDERS: Final = ("appliance", "components", "proto/septum", "assemblies", "tests")
_NOT_IN_DOM0: Final = ("grpcio", "cython", "setuptools")
"""Runtime requirements that the monitor has no use for, by name; the largest of them."""


def checkout() -> Tree:
    """Every file that git knows or would add, and the compiled loops, below /septum."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_FOLDERS, "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name]
    paths += [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*.so")]
    return compiled(
        {
            f"septum/{path.relative_to(ROOT)}": file(path.read_bytes(), path.stat().st_mode & 0o777)
            for path in paths
            if path.is_file()
        }
    )


def libraries() -> bytes:
    """What requirements.lock pins, as installed in the environment that runs this. Errors: PackageNotFoundError."""
    own = b"".join((ROOT / name).read_bytes() for name in ("requirements.lock", "tests/xen/rig/sources.py"))
    target = XEN / f"libraries-{hashlib.sha256(own).hexdigest()[:16]}"
    with making(target) as scratch:
        if scratch:
            with step("Python's libraries for dom0"):
                (scratch / "libraries").write_bytes(archive(compiled(_libraries())))
    return (target / "libraries").read_bytes()


def _libraries() -> Tree:
    tree: Tree = {f"{SITE}/septum.pth": file(b"/septum\n/septum/proto\n")}
    for name in re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        if name in _NOT_IN_DOM0:
            continue
        for part in metadata.files(name) or ():
            path = Path(str(part.locate()))
            if ".." not in part.parts and path.suffix != ".pyc" and path.is_file():
                tree[f"{SITE}/{part}"] = file(path.read_bytes())
    return tree


def overlay() -> bytes:
    """Both, as an archive. The kernel unpacks it after dom0's own."""
    tree = checkout()
    tree["usr/bin/septum"] = file(
        b"#!/usr/bin/python3.11\nimport sys\nfrom appliance.cli.septum import main\nsys.exit(main())\n", 0o755
    )
    return libraries() + archive(tree)
