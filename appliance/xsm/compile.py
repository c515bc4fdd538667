"""Policy sources -> the policy that Xen loads, by m4 and checkpolicy, on the sources that come with the hypervisor.

A compiled policy belongs to one build of Xen: its classes and permissions are numbered as in that tree. ``tree`` is
tools/flask/policy of that Xen's sources, or a copy of it with their xen/xsm/flask/policy in the folder ``hypervisor``
below it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

VERSION: Final = 30
"""The newest policy format that Xen 4.17 reads (tools/flask/policy/Makefile.common, POLICY_VER_LIST_HV)."""

_TOOLS: Final = {"m4": "m4", "checkpolicy": "checkpolicy"}


class PolicyError(Exception):
    """There is no policy: a tool is missing, or refused the sources. The message says what it said, or what to
    install."""


def compiled(tree: Path, sections: Sequence[str]) -> bytes:
    """The policy made of ``sections``, each the text of a module, users or contexts, in the order checkpolicy wants.

    Errors: PolicyError; among others if an ``allow`` breaks a ``neverallow``.
    """
    source = _expanded(tree, sections)
    with tempfile.TemporaryDirectory(prefix="septum-xsm-") as folder:
        conf, into = Path(folder) / "policy.conf", Path(folder) / "policy"
        conf.write_text(source)
        _tool("checkpolicy", "-t", "Xen", "-c", str(VERSION), str(conf), "-o", str(into))
        return into.read_bytes()


def module(tree: Path, name: str) -> str:
    """The text of one of the modules that come with Xen."""
    return (tree / f"modules/{name}").read_text()


def _expanded(tree: Path, sections: Sequence[str]) -> str:
    """What m4 makes of Xen's declarations, macros and ``sections``."""
    kept = tree / "hypervisor"
    hypervisor = kept if kept.is_dir() else tree.parents[2] / "xen/xsm/flask/policy"
    declared = [hypervisor / name for name in ("security_classes", "initial_sids", "access_vectors")]
    declared.insert(1, tree / "policy/security_classes")
    declared.append(tree / "policy/access_vectors")
    macros = [*sorted((tree / "policy/support").glob("*.spt")), tree / "policy/mls", tree / "modules/xen.if"]
    text = "\n".join([*(path.read_text() for path in (*declared, *macros)), *sections])
    return _tool(
        "m4", "-D", "self_contained_policy", "-D", "mls_num_sens=16", "-D", "mls_num_cats=256", "-", stdin=text
    )


def _tool(name: str, *arguments: str, stdin: str | None = None) -> str:
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise PolicyError(f"{name} is missing: apt-get install --no-install-recommends {_TOOLS[name]}")
    done = subprocess.run([path, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise PolicyError(f"{name} refused the policy:\n{done.stderr[-4000:]}{done.stdout[-2000:]}")
    return done.stdout
