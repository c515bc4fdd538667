"""Builds the compiled twin of components/net/loops.py. Everything else about the package is in pyproject.toml.

It takes Cython, a C compiler and Python's headers. Without them the box runs its Python twin, and one line says so.
"""

import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = "components/net/fast.pyx"


def missing() -> list[str]:
    """What the build would need and this machine has not."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    found = {
        "Cython": find_spec("Cython"),
        f"C compiler ({compiler})": shutil.which(compiler),
        "Python headers (python3-dev)": (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
    }
    return [name for name, there in found.items() if not there]


class BuildOrGoOn(build_ext):
    """Builds what can be built; where it cannot, says so and leaves the Python twin to do the work."""

    def run(self) -> None:
        lacking = missing()
        if lacking:
            print(f"{SOURCE} is not compiled and its twin in Python runs: no {', no '.join(lacking)}", file=sys.stderr)
            self.extensions = []
        super().run()


setup(
    ext_modules=[Extension("components.net.fast", [SOURCE], extra_compile_args=["-O3"], optional=True)],
    cmdclass={"build_ext": BuildOrGoOn},
)
