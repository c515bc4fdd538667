"""The files of a role's image: the interpreter, the libraries it needs, and the role's modules. There is no more."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from appliance.image import bytecode, cpio, elf, vouch
from appliance.image.closure import INTERPRETER, ROOT, Module, paths

VERSION: Final = metadata.version("septum")
_STDLIB: Final = "usr/lib/python3.11"
_PYTHON: Final = f"usr/bin/{INTERPRETER.name}"

# -I: neither environment nor folder of the script; -S: no site-packages; -B: no bytecode is written
_INIT: Final = "#!/{python} -ISB\nfrom {entry} import main\nmain()\n"


class Part(NamedTuple):
    """One file of an image: where it lies there, its bytes, and who vouches for what it was made of."""

    path: str
    data: bytes
    mode: int
    package: vouch.Package
    source_sha256: str | None = None


class Sources(NamedTuple):
    """What a role's image is made of here: native files by their place in the image, and modules."""

    native: dict[str, Path]
    modules: tuple[Module, ...]

    def files(self) -> list[Path]:
        """Every file that is read, each once, sorted."""
        origins = [module.origin for module in self.modules if module.origin is not None]
        return sorted({*self.native.values(), *origins})


def sources(modules: tuple[Module, ...]) -> Sources:
    """The native files that ``modules`` and the interpreter need. Errors: ElfError, OSError."""
    extensions = {
        f"{_STDLIB}/{module.place}{_suffix(module)}": module.origin
        for module in modules
        if module.kind == "extension" and module.origin is not None
    }
    roots = {_PYTHON: INTERPRETER, **extensions}
    needed = {place.lstrip("/"): path for place, path in elf.closure(roots.values()).items()}
    return Sources({**roots, **needed}, modules)


def _suffix(module: Module) -> str:
    assert module.origin is not None
    return module.origin.name[module.origin.name.index(".") :]


def vouched(files: Iterable[Path]) -> dict[Path, vouch.Package]:
    """The package of each file. Errors: VouchError."""
    site = Path(paths()[-1])
    ours: list[Path] = []
    bought: list[Path] = []
    given: list[Path] = []
    for path in files:
        (bought if path.is_relative_to(site) else ours if path.is_relative_to(ROOT) else given).append(path)
    septum = vouch.Package("septum", "septum", VERSION)
    return {**dict.fromkeys(ours, septum), **vouch.wheels(bought, site), **vouch.debian(given)}


def _stripped(path: Path) -> bytes:
    """A library without the names that only a debugger needs. Debian's come that way."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "library")
        subprocess.run(["strip", "--strip-unneeded", "-o", str(made), str(path)], check=True, timeout=60)
        return made.read_bytes()


def _traced(path: Path) -> str:
    """What a traceback calls a source: the same wherever it was compiled."""
    for folder in (Path(paths()[-1]), ROOT / "proto", ROOT, INTERPRETER.parents[1] / "lib/python3.11"):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return path.name


def parts(made_of: Sources, packages: dict[Path, vouch.Package], digests: dict[Path, str], entry: str) -> list[Part]:
    """The files of the image, sorted by path. Errors: CalledProcessError, OSError."""
    texts = [(module, module.origin) for module in made_of.modules if module.kind == "source" and module.origin]
    code = bytecode.compile_all(str(INTERPRETER), {str(path): _traced(path) for _, path in texts})
    found = [
        Part(f"{_STDLIB}/{module.place}.pyc", code[str(path)], 0o444, packages[path], digests[path])
        for module, path in texts
    ]
    for place, path in made_of.native.items():
        data = path.read_bytes() if packages[path].kind == "deb" else _stripped(path)
        found.append(Part(place, data, 0o555, packages[path], digests[path]))
    septum = vouch.Package("septum", "septum", VERSION)
    found.append(Part("init", _INIT.format(python=_PYTHON, entry=entry).encode(), 0o555, septum))
    # By this file the interpreter knows where it is; the module itself is frozen within it
    found.append(Part(f"{_STDLIB}/os.py", b"", 0o444, packages[INTERPRETER]))
    return sorted(found)


def archive(found: Iterable[Part]) -> bytes:
    """The initramfs, uncompressed."""
    entries = [cpio.file(part.path, part.data, part.mode) for part in found]
    # The kernel opens the console before anything is mounted; the interpreter wants a null for what it does not get
    entries += [cpio.character_device("dev/console", 5, 1), cpio.character_device("dev/null", 1, 3, 0o666)]
    entries += [cpio.directory(name) for name in ("proc", "sys", f"{_STDLIB}/lib-dynload")]
    return cpio.archive(entries)
