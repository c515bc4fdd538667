"""Builds the compiled twins of components/*/loops.py. Everything else about the package is in pyproject.toml.

They take Cython, a C compiler, and the headers of Python and OpenSSL. Without them the box runs its Python twins, and
one line says so.
"""

import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

TWINS = (
    Extension("components.net.fast", ["components/net/fast.pyx"], extra_compile_args=["-O3"], optional=True),
    Extension(
        "components.crypto.fast",
        ["components/crypto/fast.pyx"],
        extra_compile_args=["-O3"],
        libraries=["crypto"],
        optional=True,
    ),
)


def missing(twin: Extension) -> list[str]:
    """What the build would need and this machine has not."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    found = {
        "Cython": find_spec("Cython"),
        f"C compiler ({compiler})": shutil.which(compiler),
        "Python headers (python3-dev)": (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
    }
    if "crypto" in twin.libraries:
        found["OpenSSL headers (libssl-dev)"] = Path("/usr/include/openssl/evp.h").exists()
    return [name for name, there in found.items() if not there]


class BuildOrGoOn(build_ext):
    """Builds what can be built; where it cannot, says so and leaves the Python twin to do the work."""

    def run(self) -> None:
        for twin in TWINS:
            if lacking := missing(twin):
                source = twin.sources[0]
                print(
                    f"{source} is not compiled and its twin in Python runs: no {', no '.join(lacking)}", file=sys.stderr
                )
        self.extensions = [twin for twin in self.extensions if not missing(twin)]
        super().run()


setup(ext_modules=list(TWINS), cmdclass={"build_ext": BuildOrGoOn})
