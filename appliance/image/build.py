"""From an assembly to images: what `septum image build` does. Roles are built beside each other, each only once.

An image is found by its inputs: the files that go into it, the code that makes it, kernel and budget. What has the same
inputs is there already; the closure is measured anew each time, for only that tells which files are inputs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Final, TypeVar

from appliance.assembly.model import Role, ValidatedAssembly
from appliance.image import budgets, kernel, manifest, sbom, store, tree, vouch
from appliance.image.closure import ENTRY, ClosureError, measure, paths
from appliance.image.elf import ElfError
from appliance.image.manifest import Image

Made = TypeVar("Made")
Progress = Callable[[str, str, float], None]
"""Is told of each piece of work its name, what it is at, and which share of it is done: 0 to 1."""

_NETWORK_ROLES: Final = frozenset({"red", "black", "admin"})
_FOR_NETWORK: Final = ("appliance.guest.xennet",)  # imported only where there is an interface
_COMPRESS: Final = ("zstd", "-19", "-q", "-c", "--no-progress", "--single-thread")
# What a guest prints is the component's; of its kernel only what ends it (a panic is of level 0). Pages that a peer has
# held on to come back within a second of its letting go, not ten a second as Linux has it (docs/xen.md)
_KERNEL_ARGS: Final = "console=hvc0 loglevel=1 xen_gntalloc.limit=16384 grant_table.free_per_iteration=0"


class BuildError(Exception):
    """An image cannot be built; the text says why and what to do."""


def flavour(role: Role) -> kernel.Flavour:
    """Which kernel ``role`` boots."""
    return "net" if role.name in _NETWORK_ROLES else "plain"


def _silent(name: str, doing: str, share: float) -> None:
    pass


def build(assembly: ValidatedAssembly, out: Path, progress: Progress = _silent, entry: str = ENTRY) -> dict[str, Image]:
    """The image of each domain of ``assembly``, in the store ``out``. Errors: BuildError."""
    roles = {domain.role.name: domain.role for domain in assembly.domains}
    built = build_roles(roles.values(), out, progress, entry)
    return {domain.name: built[domain.role.name] for domain in assembly.domains}


def build_roles(roles: Iterable[Role], out: Path, progress: Progress = _silent, entry: str = ENTRY) -> dict[str, Image]:
    """The image of each of ``roles``, in the store ``out``. Errors: BuildError."""
    with underway(roles, out, progress, entry) as images:
        return {name: image.result() for name, image in images.items()}


@contextmanager
def underway(
    roles: Iterable[Role], out: Path, progress: Progress = _silent, entry: str = ENTRY
) -> Iterator[dict[str, Future[Image]]]:
    """The image of each of ``roles`` to come, in the store ``out``: there before those that wait for another kernel.

    The store's index has them at the end, all or none. Errors: BuildError, at the end and by whoever waits for one.
    """
    wanted = {role.name: role for role in roles}
    with _begun(wanted, out.absolute(), progress, entry) as images:
        yield images
        built = {f"{wanted[name].component}/{name}": image.result() for name, image in images.items()}
    _or_said(manifest.index, out.absolute(), built)


def _or_said(do: Callable[..., Made], *arguments: object) -> Made:
    """What ``do`` returns. Errors: BuildError for all that keeps an image from being built."""
    try:
        return do(*arguments)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        raise BuildError(f"{error.cmd[0]}: {' / '.join(said[-3:]) or error.returncode}") from error
    except (
        ClosureError,
        ElfError,
        vouch.VouchError,
        kernel.KernelError,
        budgets.BudgetError,
        manifest.ImageError,
        OSError,
    ) as error:
        raise BuildError(str(error)) from error


@contextmanager
def _begun(roles: dict[str, Role], out: Path, progress: Progress, entry: str) -> Iterator[dict[str, Future[Image]]]:
    source = _or_said(kernel.source)
    kernels: dict[kernel.Flavour, Future[kernel.Kernel]] = {flavour(role): Future() for role in roles.values()}
    # All images wait for their kernel at the end; what takes a processor takes one of as many as there are
    busy = BoundedSemaphore(os.cpu_count() or 1)
    with ThreadPoolExecutor(len(roles) or 1) as pool, ThreadPoolExecutor(1) as bench:
        bench.submit(_kernels, kernels, source, out, progress)
        yield {
            name: pool.submit(_or_said, _image, role, kernels[flavour(role)], source, out, progress, entry, busy)
            for name, role in roles.items()
        }


def _kernels(
    wanted: dict[kernel.Flavour, Future[kernel.Kernel]], source: kernel.Source, out: Path, progress: Progress
) -> None:
    try:
        for each in kernel.build(source, wanted, out, lambda doing, share: progress("kernels", doing, share)):
            wanted[each.flavour].set_result(each)
        progress("kernels", "there", 1)
    except BaseException as error:
        for coming in wanted.values():
            if not coming.done():
                coming.set_exception(error)


def _schemas(role: Role) -> set[str]:
    return {f"septum.v1.{port.schema}" for port in role.ports.values()}


def _image(
    role: Role,
    booted: Future[kernel.Kernel],
    source: kernel.Source,
    out: Path,
    progress: Progress,
    entry: str,
    busy: BoundedSemaphore,
) -> Image:
    progress(role.name, "measuring what it imports", 0)
    # The schema of a port is imported by its name once the ports are known, before the component has been
    also = (*(_FOR_NETWORK if flavour(role) == "net" else ()), *sorted(_schemas(role)))
    with busy:
        made_of = tree.sources(measure(role, (entry, *also)))
        digests = {path: store.digest(path) for path in made_of.files()}
    budget = budgets.of(role.name)
    name = store.key(
        role.name,
        entry,
        _recipe(),
        kernel.key(source, flavour(role)),
        *(str(value) for value in budget),
        *(f"{place} {digests[path]}" for place, path in sorted(made_of.native.items())),
        *(f"{module.name} {module.origin and digests[module.origin]}" for module in made_of.modules),
    )

    def make(new: Path) -> None:
        with busy:
            progress(role.name, "asking who brought its files", 0.1)
            packages = tree.vouched(digests)
            progress(role.name, "compiling its modules", 0.3)
            parts = tree.parts(made_of, packages, digests, entry)
            progress(role.name, "compressing", 0.6)
            archive = tree.archive(parts)
            ramdisk = subprocess.run(_COMPRESS, input=archive, capture_output=True, check=True).stdout
        progress(role.name, "waiting for its kernel", 0.9)
        of = booted.result()
        _write(new, role, of, parts, ramdisk, len(archive), budget)
        _within(budget, role, of.compressed + len(ramdisk), parts)

    folder = store.get(out, name, make)
    progress(role.name, "there", 1)
    return manifest.image(folder)


def _write(
    new: Path,
    role: Role,
    of: kernel.Kernel,
    parts: list[tree.Part],
    ramdisk: bytes,
    unpacked: int,
    budget: budgets.Budget,
) -> None:
    # A second name for the same file: whoever may write to one image's kernel may write to all of them anyway
    (new / manifest.KERNEL).hardlink_to(of.file)
    (new / manifest.RAMDISK).write_bytes(ramdisk)
    bill = sbom.bom(role.name, tree.VERSION, of, parts, Path(paths()[-1]))
    (new / manifest.SBOM).write_bytes(bill)
    contents: dict[str, Any] = {
        "role": role.name,
        "component": role.component,
        "main": role.main,
        "kernel": {
            "flavour": of.flavour,
            "version": of.version,
            "bytes": of.file.stat().st_size,
            "compressed_bytes": of.compressed,
            "sha256": store.digest(of.file),
            "config_sha256": of.config_sha256,
        },
        "ramdisk": {"bytes": len(ramdisk), "sha256": store.digest_of(ramdisk), "unpacked_bytes": unpacked},
        "sbom_sha256": store.digest_of(bill),
        "budget": {"name": budget.name, "bytes": budget.bytes},
        "memory_mib": budget.memory_mib,
        "kernel_args": _KERNEL_ARGS,
        "files": [
            {
                "path": part.path,
                "bytes": len(part.data),
                "sha256": store.digest_of(part.data),
                "from": part.package.name,
            }
            for part in parts
        ],
    }
    manifest.write(new, contents)


def _within(budget: budgets.Budget, role: Role, has: int, parts: list[tree.Part]) -> None:
    if has > budget.bytes:
        largest = sorted(parts, key=lambda part: -len(part.data))[:5]
        raise budgets.BudgetError(
            f"{role.name}: {has:,} bytes, and [{budget.name}] of budgets.toml allows {budget.bytes:,}; the largest, "
            "uncompressed: " + ", ".join(f"{part.path} {len(part.data):,}" for part in largest)
        )


@cache
def _recipe() -> str:
    """The hash of the code that makes images: when it changes, they may."""
    here = Path(__file__).parent
    tools = [_version(tool) for tool in (_COMPRESS[0], "strip")]
    return store.key(*(store.digest(file) for file in sorted(here.glob("*.py"))), *tools)


def _version(tool: str) -> str:
    said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0]
