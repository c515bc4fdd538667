"""What an image is, written beside it: the hashes that the monitor checks before each boot, and what is inside."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from appliance.image import store

KERNEL: Final = "kernel"
RAMDISK: Final = "initramfs.cpio.zst"
SBOM: Final = "sbom.json"
MANIFEST: Final = "manifest.json"
INDEX: Final = "images.json"

_VERSION: Final = 1


class ImageError(Exception):
    """An image that is not what its manifest says; it must not be booted. The text says what to do."""


class Image(NamedTuple):
    """One role's image. ``bytes`` are those of kernel and ramdisk; the domain gets ``memory_mib``.

    ``kernel_args`` is all that must stand on the kernel's command line.
    """

    kernel: Path
    ramdisk: Path
    manifest: Path
    kernel_sha256: str
    ramdisk_sha256: str
    memory_mib: int
    kernel_args: str

    def check(self) -> None:
        """Reads both files and compares. Errors: ImageError."""
        for file, expected in ((self.kernel, self.kernel_sha256), (self.ramdisk, self.ramdisk_sha256)):
            try:
                found = store.digest(file)
            except OSError as error:
                raise ImageError(f"{file}: {error.strerror}: septum image build makes it anew") from None
            if found != expected:
                raise ImageError(
                    f"{file} has the hash {found}, and its manifest says {expected}: remove {file.parent} and "
                    "run septum image build; if nobody has touched it, the disk decays"
                )

    def contents(self) -> dict[str, Any]:
        """The whole manifest."""
        return read(self.manifest)


def write(folder: Path, contents: Mapping[str, Any]) -> None:
    """Writes the manifest of the image in ``folder``, the same bytes for the same contents."""
    text = json.dumps({"version": _VERSION, **contents}, indent=1, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text)


def read(file: Path) -> dict[str, Any]:
    """Errors: ImageError."""
    try:
        contents = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ImageError(f"{file}: {error}: septum image build makes it anew") from None
    if not isinstance(contents, dict) or contents.get("version") != _VERSION:
        raise ImageError(f"{file} is a manifest of another version: septum image build makes it anew")
    return contents


def image(folder: Path) -> Image:
    """The image in ``folder``, unchecked. Errors: ImageError."""
    contents = read(folder / MANIFEST)
    try:
        return Image(
            folder / KERNEL,
            folder / RAMDISK,
            folder / MANIFEST,
            contents["kernel"]["sha256"],
            contents["ramdisk"]["sha256"],
            contents["memory_mib"],
            contents["kernel_args"],
        )
    except (KeyError, TypeError) as error:
        raise ImageError(f"{folder / MANIFEST} lacks {error}: septum image build makes it anew") from None


def index(out: Path, images: Mapping[str, Image]) -> None:
    """Adds to ``images.json`` in ``out``, by component and role: what a monitor needs that builds nothing itself.

    The folder can be copied as it is; paths are relative to it, and what the file says is what a boot is checked by.
    Errors: ImageError if a file is not what its manifest says.
    """
    with open(out / f".{INDEX}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who builds other images meanwhile adds theirs before or after
        _add(out, images)


def entry(out: Path, of: Image) -> dict[str, Any]:
    """What the index of ``out`` has of one image."""
    return {
        "kernel": str(of.kernel.relative_to(out)),
        "kernel_sha256": of.kernel_sha256,
        "ramdisk": str(of.ramdisk.relative_to(out)),
        "ramdisk_sha256": of.ramdisk_sha256,
        "kernel_args": of.kernel_args,
        "memory_mib": of.memory_mib,
    }


def _add(out: Path, images: Mapping[str, Image]) -> None:
    file = out / INDEX
    known = json.loads(file.read_bytes()) if file.exists() else {}
    for name, each in images.items():
        each.check()
        known[name] = entry(out, each)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    new.replace(file)
