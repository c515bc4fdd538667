"""Xen with XSM/FLASK, from Debian's source package.

Debian builds its Xen without XSM, so we build it: the release of Debian's source package with Debian's defaults and the
switches below. Beside it are kept the sources of its FLASK policy, which a generated policy stands on.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from . import debian
from .places import XEN, making, step

CONFIG: Final = """\
CONFIG_XSM=y
CONFIG_XSM_FLASK=y
CONFIG_XSM_FLASK_AVC_STATS=y
# CONFIG_XSM_FLASK_POLICY is not set
# CONFIG_XSM_SILO is not set
CONFIG_XSM_FLASK_DEFAULT=y
"""

_SOURCES: Final = (
    "deb-src http://deb.debian.org/debian bookworm main\n"
    "deb-src http://deb.debian.org/debian-security bookworm-security main\n"
)


class Hypervisor(NamedTuple):
    """``xen`` is the image to boot, ``flask`` the sources of its policy."""

    xen: Path
    flask: Path


@cache
def with_xsm() -> Hypervisor:
    """Xen with XSM/FLASK. Errors: debian.PackageError, or CalledProcessError after the compiler's last words."""
    # Named after Debian's own build, which apt's lists have: when there is a newer one, it is time to look for sources
    tools = [subprocess.run([tool, "--version"], capture_output=True, check=True).stdout for tool in ("gcc", "ld")]
    made_of = (*debian.listed(["xen-hypervisor-4.17-amd64"]), *tools, Path(__file__).read_bytes())
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    target = XEN / f"xen-xsm-{key}"
    with making(target) as scratch:
        if scratch:
            with step("Xen's sources"):
                tarball = _fetch(scratch / "source")
                subprocess.run(["tar", "-xf", tarball, "-C", scratch / "source"], check=True)
            (tree,) = [
                path for path in (scratch / "source").iterdir() if path.is_dir() and path.name.startswith("xen-")
            ]
            with step("building Xen with XSM (two to four minutes on two cores)"):
                _make(tree / "xen")
            shutil.copy(tree / "xen/xen", scratch / "xen")
            shutil.copytree(tree / "tools/flask/policy", scratch / "flask")
            shutil.copytree(tree / "xen/xsm/flask/policy", scratch / "flask/hypervisor")
            shutil.rmtree(scratch / "source")
    return Hypervisor(target / "xen", target / "flask")


def _fetch(folder: Path) -> Path:
    """The release's tarball: of the newest version whose source the archive serves.

    The lists of sources are our own, so the machine's configuration of apt stays as it is. A version's source is
    missing now and then while a newer one is on its way: then the one before it is as good for this.
    """
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "sources.list").write_text(_SOURCES)
    ours = [f"Dir::Etc::sourcelist={folder}/sources.list", "Dir::Etc::sourceparts=/nonexistent"]
    ours += [f"Dir::State::lists={folder}/lists", "Dir::Cache::srcpkgcache=", "Dir::Cache::pkgcache="]
    options = [word for one in ours for word in ("-o", one)]
    debian.apt("apt-get", *options, "update")
    versions = re.findall(r"^Version: (\S+)", debian.apt("apt-cache", *options, "showsrc", "xen"), re.MULTILINE)
    said: list[str] = []
    for version in sorted(set(versions), reverse=True):
        try:
            debian.apt("apt-get", *options, "--download-only", "source", f"xen={version}", cwd=folder)
        except debian.PackageError as error:
            said.append(str(error))
        else:
            return next(folder.glob("xen_*.orig.tar.*"))
    raise debian.PackageError("\n".join(said) or "the archive has no source package xen")


def _make(folder: Path) -> None:
    (folder / ".config").write_text(CONFIG)
    log = folder / "build.log"
    for target in ("olddefconfig", "build"):
        with log.open("ab") as into:
            # Before the guests' kernels, which are needed later and give way to everything
            command = [
                "nice",
                "-n",
                "10",
                "make",
                f"-j{len(os.sched_getaffinity(0))}",
                "XEN_TARGET_ARCH=x86_64",
                target,
            ]
            done = subprocess.run(command, cwd=folder, stdout=into, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
            done.check_returncode()
