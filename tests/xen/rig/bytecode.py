"""Python sources of a tree, compiled beforehand: an emulated processor takes minutes for what takes seconds here."""

from __future__ import annotations

import importlib.util
import marshal
import sys
import warnings

from .cpio import Tree, file

_UNCHECKED = (0b01).to_bytes(4, "little")
"""PEP 552: the file stands for its source by hash, and is used without looking at that."""


def compiled(tree: Tree) -> Tree:
    """``tree`` with the bytecode of every .py in it that compiles. The interpreter that runs this must be dom0's
    version."""
    if sys.version_info[:2] != (3, 11):
        raise RuntimeError(
            f"dom0's Python is Debian's 3.11, this is {sys.version.split()[0]}: make PYTHON=/usr/bin/python3.11"
        )
    added: Tree = {}
    for path, entry in tree.items():
        if path.endswith(".py") and entry.data:
            folder, _, name = path.rpartition("/")
            try:
                with warnings.catch_warnings(action="ignore"):
                    code = compile(entry.data, f"/{path}", "exec", dont_inherit=True)
            except (SyntaxError, ValueError):
                continue  # a template, or for another version
            head = importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(entry.data)
            added[f"{folder}/__pycache__/{name[:-3]}.cpython-311.pyc"] = file(head + marshal.dumps(code))
    return {**tree, **added}
