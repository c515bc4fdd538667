"""The modules of a role, measured: what a fresh interpreter holds once it has imported what the domain will import.

The interpreter is started as in a domain, the import gate is closed where the domain closes it, and nothing is guessed
from the text of the sources. What a domain imports later than that is not in its image, and fails there for good.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from appliance.assembly.model import Role

ROOT: Final = Path(__file__).parents[2]
INTERPRETER: Final = Path(sys.executable).resolve()
ENTRY: Final = "appliance.guest.boot_xen"
"""The module whose ``main()`` is the first program of an image."""

# No import but those of the domain: what is used here would be counted as its own
_PROBE: Final = """
import sys
sys.path.extend({paths!r})
import {runtime}
from appliance.guest.imports import close_gate
close_gate({component!r}, {declared!r})
import {main}
from importlib.machinery import PathFinder
def found_again(name):
    # A module may put something else into its place, which then knows not where it came from
    parent = name.rpartition(".")[0]
    path = getattr(sys.modules.get(parent), "__path__", None)
    return None if parent and path is None else PathFinder.find_spec(name, path)
found = []
for name, module in list(sys.modules.items()):
    if name == "__main__":
        continue
    spec = getattr(module, "__spec__", None) or found_again(name)
    # A package without a file of its own (google) is a folder, which its modules bring with them
    if spec is not None and spec.origin is None and spec.submodule_search_locations is not None:
        continue
    if spec is not None:
        package = spec.submodule_search_locations is not None
        loader = getattr(spec.loader, "__name__", None) or type(spec.loader).__name__
        found.append((spec.name, loader, spec.origin, package))
print(found)
"""

_KINDS: Final[dict[str, Literal["source", "extension", "within"]]] = {
    "SourceFileLoader": "source",
    "ExtensionFileLoader": "extension",
    "BuiltinImporter": "within",
    "FrozenImporter": "within",
}


class ClosureError(Exception):
    """A role's modules cannot be measured, or are of a kind that an image cannot hold; the text says which."""


class Module(NamedTuple):
    """One imported module: from a ``source`` file, an ``extension`` library, or ``within`` the interpreter itself."""

    name: str
    kind: Literal["source", "extension", "within"]
    origin: Path | None
    package: bool

    @property
    def place(self) -> str:
        """Its path below a folder of sys.path, without a suffix."""
        return self.name.replace(".", "/") + ("/__init__" if self.package else "")


def paths() -> list[str]:
    """The folders that a domain's code comes from: ours, the generated schemas, the libraries of this environment."""
    site = next((path for path in sys.path if (Path(path) / "cryptography").is_dir()), None)
    if site is None:
        raise ClosureError("no cryptography in this environment: make .venv/.runtime")
    return [str(ROOT), str(ROOT / "proto"), site]


def measure(role: Role, runtime: Sequence[str] = (ENTRY,)) -> tuple[Module, ...]:
    """Every module of ``role``'s image, by name: those of ``runtime``, and what the role brings.

    Errors: ClosureError, with the last words of the interpreter.
    """
    main = role.main
    script = _PROBE.format(
        paths=paths(), runtime=", ".join(runtime), component=role.component, declared=list(role.imports), main=main
    )
    command = [str(INTERPRETER), "-I", "-S", "-B", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ClosureError(f"{main} cannot be imported as its domain would: {said[-1] if said else done.returncode}")
    found = {}
    for name, loader, origin, package in ast.literal_eval(done.stdout):
        kind = _KINDS.get(loader)
        if kind is None:
            raise ClosureError(f"{main} imports {name} by a {loader}: an image holds source, extensions and built-ins")
        found[name] = Module(name, kind, None if kind == "within" else Path(origin), package)
    return tuple(found[name] for name in sorted(found))
