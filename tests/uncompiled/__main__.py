"""Tests where nothing is compiled: the pure-Python twins do the work, and every packet goes the long way.

    make test-uncompiled                                    the system tests, hostile components among them
    make test-uncompiled ARGS="tests/system -k rekey"       or whatever goes to pytest

The tree that they run in is made by tree.py.
"""

from __future__ import annotations

import subprocess
import sys

from tests.uncompiled import tree


def main() -> int:
    print(f"copying this tree to {tree.INTO.relative_to(tree.ROOT)}, without what is compiled", flush=True)
    tree.make()
    command = [tree.PYTHON, "-m", "pytest", *(sys.argv[1:] or ["tests/system"])]
    return subprocess.run(command, cwd=tree.INTO, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
