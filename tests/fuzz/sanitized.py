"""All that is compiled, with every access watched: built into build/sanitized, loaded in place of the usual ones.

AddressSanitizer and UndefinedBehaviorSanitizer come with Debian's gcc (libgcc-12-dev depends on them). Python is not
built with them: the runtime is preloaded, and Python's buffers come from malloc, so that it sees where each one ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
INTO = ROOT / "build/sanitized"
HERE = Path(__file__).parent
SHARED = "appliance.vchan.shared"  # what Cython itself brings
# In the order in which they need each other: what the compiler is told besides
MODULES = {
    SHARED: [],
    "appliance.vchan.short": [],
    "appliance.guest.short": ["-include", str(HERE / "clock.h")],
    "components.net.fast": [],
    "components.crypto.fast": ["-lcrypto"],
    "components.filter.fast": [],
    "components.net.short": [],
    "components.crypto.short": ["-lcrypto"],
    "components.filter.short": [],
}
# Python's own flags make signed overflow wrap; here it is a mistake
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-wrapv -fno-omit-frame-pointer -g -O1".split()


def path_of(name: str) -> Path:
    return INTO / f"{name}.so"


def build(tell: Callable[[str], object] = lambda what: None) -> None:
    """Errors: CalledProcessError, after what Cython or the compiler said."""
    INTO.mkdir(parents=True, exist_ok=True)
    # Each may use the declarations of others
    sources = [source for name in MODULES for source in _source(name).parent.glob("*.p[yx][xd]")]
    changed = max(path.stat().st_mtime for path in (*sources, *HERE.glob("*.h"), Path(__file__)))
    missing = [name for name in MODULES if not path_of(name).exists() or path_of(name).stat().st_mtime <= changed]
    if missing:
        tell(f"building {len(missing)} modules with sanitizers: a minute")
    sysconfig.get_config_vars()  # reads them once: threads that do so at the same time may find none
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_build, missing))


def _source(name: str) -> Path:
    return ROOT / f"{name.replace('.', '/')}.pyx"


def _build(name: str) -> None:
    compiler = sysconfig.get_config_var("CC").split()[0]
    include = sysconfig.get_paths()["include"]
    c, so = INTO / f"{name}.c", path_of(name)
    so.unlink(missing_ok=True)
    if name == SHARED:
        what = ["generate-shared", c]
    else:
        what = ["-3", "-I", ROOT, f"--shared={SHARED}", "--module-name", name, "-o", c, _source(name)]
    subprocess.run([sys.executable, "-m", "cython", *what], cwd=ROOT, check=True)
    command = [compiler, *FLAGS, "-shared", "-fPIC", f"-I{include}", c, "-o", so, *MODULES[name]]
    subprocess.run(command, check=True)


def environment() -> dict[str, str]:
    """What a Python that loads them has to be started with."""
    compiler = sysconfig.get_config_var("CC").split()[0]
    runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    return os.environ | {
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=3",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }


def load() -> None:
    """Puts them in the places of the usual ones. Errors: ImportError if they are not what they should be."""
    for name in MODULES:
        path = path_of(name)
        code = path.read_bytes()
        if name in sys.modules or not all(mark in code for mark in (b"__asan_report_load1", b"__ubsan_handle_")):
            raise ImportError(f"{path} is not sanitized, or {name} was imported before")
        spec = spec_from_file_location(name, path, loader=ExtensionFileLoader(name, str(path)))
        assert spec is not None and spec.loader is not None
        module: ModuleType = module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
