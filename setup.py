"""Builds what is compiled: the twins of components/*/loops.py, and the short way. The rest is in pyproject.toml.

They take Cython, a C compiler, and the headers of Python and OpenSSL. Without them the box runs its Python twins, and
every packet goes the long way; one line says so.
"""

import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SHARED = "appliance.vchan.shared"
QUIET = ("-g0", "-Wno-unused-function")  # Cython writes more than is used


def module(path: str, level: str, *libraries: str) -> Extension:
    """``path`` without its suffix, compiled with optimization ``level``; without symbols for a debugger."""
    flags = [level, *QUIET]
    name = path.replace("/", ".")
    made = Extension(name, [f"{path}.pyx"], extra_compile_args=flags, libraries=list(libraries), optional=True)
    made.shared_utility_qualified_name = SHARED
    return made


def shared() -> Extension:
    """What Cython brings for views of memory, once for all: it is most of what each module would be compiled from."""
    made = Extension(SHARED, [SHARED.replace(".", "/") + ".c"], extra_compile_args=["-O2", *QUIET], optional=True)
    made.shared_utility_qualified_name = SHARED
    return made


MODULES = (
    shared(),
    module("components/net/fast", "-O3"),
    module("components/crypto/fast", "-O3", "crypto"),
    module("components/filter/fast", "-O2"),
    module("appliance/vchan/short", "-O2"),
    module("appliance/guest/short", "-O2"),
    module("components/net/short", "-O2"),
    module("components/crypto/short", "-O2", "crypto"),
    module("components/filter/short", "-O2"),
)


def missing(made: Extension) -> list[str]:
    """What the build would need and this machine has not."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    found = {
        "Cython": find_spec("Cython"),
        f"C compiler ({compiler})": shutil.which(compiler),
        "Python headers (python3-dev)": (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
    }
    if "crypto" in made.libraries:
        found["OpenSSL headers (libssl-dev)"] = Path("/usr/include/openssl/evp.h").exists()
    return [name for name, there in found.items() if not there]


class BuildOrGoOn(build_ext):
    """Builds what can be built; where it cannot, says so and leaves the work to Python."""

    def run(self) -> None:
        for made in MODULES:
            if lacking := missing(made):
                source = made.sources[0]
                print(f"{source} is not compiled and Python does its work: no {', no '.join(lacking)}", file=sys.stderr)
        self.extensions = [made for made in self.extensions if not missing(made)]
        self.done = 0
        if self.extensions:
            print(f"Compiling {len(self.extensions)} modules: a minute or two")
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Says on a terminal how far it is."""
        super().build_extension(ext)
        self.done += 1
        if sys.stdout.isatty():
            print(f"\r  {self.done:3}/{len(self.extensions)} {ext.name:50.50}", end="", flush=True)
            if self.done == len(self.extensions):
                print(f"\r{'':60}\r", end="", flush=True)


# For its editable install pip would build them in silence; make builds them then, and shows it. One by one: Cython
# keeps what it has read in one place for all threads, and two that compile at once find each other's declarations there
setup(ext_modules=[] if "editable_wheel" in sys.argv else list(MODULES), cmdclass={"build_ext": BuildOrGoOn})
