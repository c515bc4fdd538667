"""What an image is, written beside it: the hashes that the monitor checks before each boot, and what is inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from appliance.image import cpio, store

KERNEL: Final = "kernel"
RAMDISK: Final = "initramfs.cpio.zst"
SBOM: Final = "sbom.json"
MANIFEST: Final = "manifest.json"

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


def ramdisk(of: Image, description: bytes) -> bytes:
    """What one domain boots: the image's ramdisk, as checked here, and its description behind it. Errors: ImageError.

    The bytes that were checked are the bytes that are returned: a file that changes meanwhile changes nothing.
    """
    data = of.ramdisk.read_bytes()
    if store.digest_of(data) != of.ramdisk_sha256:
        of.check()
        raise ImageError(f"{of.ramdisk} changed while it was read")
    return cpio.padded(data) + cpio.archive([cpio.file("description.json", description, 0o400)])
