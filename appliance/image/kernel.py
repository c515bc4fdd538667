"""The two kernels, from Debian's source package with the patches and the small configurations in ``kernel/``.

``plain`` is for domains that have channels and nothing else, ``net`` for those that face a network. Where both are
built it is in one tree, ``plain`` first: of what ``net`` needs most is there then. Each is built once for what goes
into it: source package, patches, configuration, compiler. The same goes in, the same bytes come out: time, user, host
and path of the build are said to be others than they are.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

from appliance.image import store

Flavour = Literal["plain", "net"]
FLAVOURS: Final[tuple[Flavour, ...]] = ("plain", "net")
PACKAGE: Final = "linux-source-6.1"

_CONFIGS: Final = Path(__file__).with_name("kernel")
_FRAGMENTS: Final[dict[Flavour, tuple[str, ...]]] = {"plain": ("plain",), "net": ("plain", "net")}
_LINES: Final[dict[Flavour, int]] = {"plain": 900, "net": 1500}
"""About as many lines as a build prints, with those for the other one before it: only for the display of progress."""

PATCHES: Final = tuple(sorted(_CONFIGS.glob("*.patch")))
"""What Debian's source is changed by; each says why."""

# Of the source, what no configuration here can want; Kconfig files stay, for they are read in any case
_LEAVE_OUT: Final = (
    *(f"*/{folder}/*.[chS]" for folder in ("drivers/gpu/drm/*", "drivers/media/*", "sound", "tools/testing")),
    *(f"*/drivers/net/{folder}/*.[ch]" for folder in ("ethernet/*", "wireless/*")),
    "*/arch/[a-wyz]*/*.[chS]",
    "*/arch/*/boot/dts/*",
    "*/Documentation/*",
)

# Time and place of the build, and the locale that sorts its lists (Documentation/kbuild/reproducible-builds.rst)
_ENVIRONMENT: Final = {
    "KBUILD_BUILD_TIMESTAMP": "@0",
    "KBUILD_BUILD_USER": "septum",
    "KBUILD_BUILD_HOST": "septum",
    "KBUILD_BUILD_VERSION": "1",
    "LC_ALL": "C",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}

# Switched off though the source has it: allnoconfig knows no defaults, and a new version may bring another one
_MITIGATION: Final = re.compile(r"^# CONFIG_((?:MITIGATION_|CPU_SRSO|CPU_\w+_ENTRY)\w*) is not set$", re.MULTILINE)

Progress = Callable[[str, float], None]
"""Is told what is being done, and which share of it is done: 0 to 1."""


class KernelError(Exception):
    """A kernel cannot be built; the text says what to do."""


class Source(NamedTuple):
    """The source package that apt would fetch now."""

    file: str
    version: str
    sha256: str


class Kernel(NamedTuple):
    """A kernel that was built: its file, of what, and the hash of its whole configuration.

    The file is the ELF program as it is loaded, so that Xen's tools have nothing to unpack each time a domain is built;
    ``compressed`` is its size in bytes on a medium that compresses.
    """

    file: Path
    compressed: int
    flavour: Flavour
    version: str
    source_sha256: str
    config_sha256: str


def source() -> Source:
    """Errors: KernelError."""
    said = _run("apt-get", "download", "--print-uris", PACKAGE)
    found = re.search(r"^'[^']*' (\S+_(\S+)_all\.deb) \d+ SHA256:([0-9a-f]{64})$", said, re.MULTILINE)
    if found is None:
        raise KernelError(f"apt knows no package {PACKAGE}: apt-get update, on Debian 12")
    return Source(found[1], found[2].replace("%3a", ":"), found[3])


def configuration(flavour: Flavour) -> str:
    """What is switched on; all else is off."""
    texts = [(_CONFIGS / f"{name}.config").read_text() for name in _FRAGMENTS[flavour]]
    return "".join(texts) + f'CONFIG_LOCALVERSION="-septum-{flavour}"\n'


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = {**_ENVIRONMENT, "HOME": "/nonexistent"}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise KernelError(f"{command[0]} is missing: docs/images.md names what builds images") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise KernelError(f"{' '.join(command[:3])}: {' / '.join(said[-3:]) or f'exit code {done.returncode}'}")
    return done.stdout


def key(of: Source, flavour: Flavour) -> str:
    """What the kernel of ``flavour`` follows from, as one hash."""
    tools = _run("gcc", "--version").splitlines()[0] + _run("ld", "--version").splitlines()[0]
    recipe = store.digest(Path(__file__))
    patches = [patch.read_text() for patch in PATCHES]
    return store.key("kernel", of.sha256, *patches, configuration(flavour), tools, recipe)


def build(of: Source, wanted: Collection[Flavour], out: Path, progress: Progress) -> Iterator[Kernel]:
    """Each kernel that is ``wanted``, once it is there: from the store ``out``, or built now of a known source.

    Who builds into the same store at the same time waits. Errors: KernelError, OSError.
    """
    with store.locked(out, "kernels"):
        tree = _Tree(of, out, progress, max((_LINES[flavour] for flavour in wanted), default=1))
        try:
            for flavour in sorted(wanted, key=FLAVOURS.index):
                folder = store.get(out, key(of, flavour), partial(tree.make, flavour))
                yield _kernel(folder, flavour, of)
        finally:
            tree.remove()


def _kernel(folder: Path, flavour: Flavour, of: Source) -> Kernel:
    config = (folder / "config").read_bytes()
    if store.digest(folder / "kernel") != (folder / "sha256").read_text():
        raise KernelError(f"{folder / 'kernel'} is not what was built: remove {folder}, and build anew")
    compressed = (folder / "kernel.zst").stat().st_size
    return Kernel(folder / "kernel", compressed, flavour, of.version, of.sha256, hashlib.sha256(config).hexdigest())


def _fetch(of: Source, out: Path) -> Path:
    """The package, checked against the hash that apt's signed lists have."""
    folder = store.get(out, store.key("package", of.sha256), lambda new: _download(of, new))
    _see(folder / "package.deb", of)  # however long it has lain there
    return folder / "package.deb"


def _download(of: Source, new: Path) -> None:
    _run("apt-get", "download", "-o", "APT::Sandbox::User=root", PACKAGE, cwd=new)
    (new / of.file).rename(new / "package.deb")
    _see(new / "package.deb", of)


def _see(package: Path, of: Source) -> None:
    found = store.digest(package)
    if found != of.sha256:
        raise KernelError(f"{package} has the hash {found}, and apt's list says {of.sha256}: remove it, apt-get update")


def _unpack(package: Path, into: Path) -> None:
    into.mkdir(parents=True)
    leave_out = [f"--exclude={pattern}" for pattern in _LEAVE_OUT]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as whole:
        inner = ["tar", "-xO", "--wildcards", "./usr/src/linux-source-*.tar.xz"]
        with subprocess.Popen(inner, stdin=whole.stdout, stdout=subprocess.PIPE) as packed:
            unpack = ["tar", "-xJ", "--strip-components=1", "--no-same-owner", *leave_out]
            done = subprocess.run(unpack, stdin=packed.stdout, cwd=into, check=False)
    if done.returncode or packed.returncode or whole.returncode:
        raise KernelError(f"{package} cannot be unpacked: is there no room left in {into}?")
    # Kconfig reads it, and the rest of the documentation was left out
    (into / "Documentation").mkdir(exist_ok=True)
    (into / "Documentation/Kconfig").touch()


def _patch(work: Path, of: Source) -> None:
    """Errors: KernelError unless every patch fits as it is, line by line, and is not in the source already."""
    for patch in PATCHES:
        try:
            _run("patch", "-p1", "--fuzz=0", "--forward", "--batch", f"--input={patch}", cwd=work)
        except KernelError as error:
            message = f"{patch.name} does not fit {PACKAGE} {of.version}: does it need it still? {error}"
            raise KernelError(message) from None


class _Tree:
    """The source unpacked, for as long as it is built in: ``lines`` lines or so, of which ``progress`` is told."""

    def __init__(self, of: Source, out: Path, progress: Progress, lines: int) -> None:
        self._of = of
        self._out = out
        self._work = out / ".kernels.tree"
        self._progress = progress
        self._lines = lines
        self._done = 0
        self.remove()  # of one that was killed

    def make(self, flavour: Flavour, into: Path) -> None:
        """Builds the kernel of ``flavour``, with what is there of another one before."""
        if not self._work.exists():
            self._prepare()
        for line in _build(flavour, self._work, into):
            self._done += 1
            self._progress(f"{flavour}: {line}", 0.1 + 0.9 * min(self._done / self._lines, 1))

    def _prepare(self) -> None:
        self._progress("fetching the source", 0)
        package = _fetch(self._of, self._out)
        self._progress("unpacking the source", 0.02)
        _unpack(package, self._work)
        _patch(self._work, self._of)

    def remove(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)


def _build(flavour: Flavour, work: Path, into: Path) -> Iterator[str]:
    """Makes the kernel of ``flavour`` in the tree ``work``, which may hold the objects of another; what it is at."""
    wanted = into / "wanted"
    wanted.write_text(configuration(flavour))
    _run("make", "-s", f"KCONFIG_ALLCONFIG={wanted.absolute()}", "allnoconfig", cwd=work)
    config = (work / ".config").read_text()
    refused = _refused(wanted.read_text(), config)
    if refused:
        raise KernelError(f"the kernel's configuration did not take {', '.join(refused)}: what do they depend on?")
    if bare := _MITIGATION.findall(config):
        raise KernelError(f"this source can mitigate {', '.join(bare)}, which kernel/plain.config does not switch on")
    yield from _compile(work)
    _run("strip", "-s", "-o", str(into / "kernel"), str(work / "vmlinux"))
    _run("zstd", "-19", "-q", "--single-thread", str(into / "kernel"), "-o", str(into / "kernel.zst"))
    (into / "config").write_text(config)
    (into / "sha256").write_text(store.digest(into / "kernel"))
    wanted.unlink()


def _refused(wanted: str, config: str) -> list[str]:
    """The settings of ``wanted`` that ``config`` does not have: an unmet dependency switches one off without a word."""
    has = set(config.splitlines())
    return [line for line in wanted.splitlines() if line.startswith("CONFIG_") and line not in has]


def _compile(work: Path) -> Iterator[str]:
    """Runs the build, at the lowest priority; what it is at, line by line."""
    command = ["nice", "-n", "19", "make", f"-j{os.cpu_count() or 1}", "vmlinux"]
    environment = {**_ENVIRONMENT, "HOME": "/nonexistent"}
    last: list[str] = []
    with subprocess.Popen(
        command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as made:
        assert made.stdout is not None
        for line in made.stdout:
            last = [*last[-20:], line.strip()]
            yield line.strip()
    if made.returncode:
        raise KernelError("the kernel does not compile: " + " / ".join(last))
