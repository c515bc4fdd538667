"""This distribution as it is where no compiler was at install: a copy of the tree in build/uncompiled, without what is
compiled, and with an environment whose libraries are those of the one that runs.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
INTO: Final = ROOT / "build/uncompiled"
PYTHON: Final = INTO / ".venv/bin/python"
COPIED: Final = (
    "appliance", "assemblies", "bench", "components", "demo", "docs", "packaging", "proto", "tests", "tools",
    "Makefile", "README.md", "pyproject.toml", "setup.py",
)  # fmt: skip
PROGRAMS: Final = ("septum", "septumctl")


def make() -> None:
    """Afresh: what was there before may be of another version."""
    shutil.rmtree(INTO, ignore_errors=True)
    INTO.mkdir(parents=True)
    left_out = shutil.ignore_patterns("*.so", "fast.c", "short.c", "shared.c", "*_cache")
    for name in COPIED:
        if (ROOT / name).is_dir():  # with the times of all files, so that their bytecode stays good
            shutil.copytree(ROOT / name, INTO / name, symlinks=True, ignore=left_out)
        else:
            shutil.copy2(ROOT / name, INTO / name)
    environment = INTO / ".venv"
    venv.create(environment, symlinks=True)
    where = {"base": str(environment), "platbase": str(environment)}
    # Lines of a .pth are folders; that of this tree, which lies among its libraries, is not read for that
    folders = (INTO, INTO / "proto", sysconfig.get_path("purelib"))
    Path(sysconfig.get_path("purelib", "venv", where), "uncompiled.pth").write_text("\n".join(map(str, folders)) + "\n")
    for name in PROGRAMS:
        _, rest = (Path(sys.executable).parent / name).read_text().split("\n", 1)
        program = PYTHON.with_name(name)
        program.write_text(f"#!{PYTHON}\n{rest}")
        program.chmod(0o755)
