"""Which image each domain boots: what `septum image build` made, by its index, to be checked at every boot.

Images are built where compilers are and copied here. The index names the files and their digests; it is as much a part
of the box as the assembly, and only root may have written it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from appliance.assembly.model import ValidatedAssembly
from appliance.monitor.xen.ramdisk import ImageError

INDEX: Final = "images.json"
VARIABLE: Final = "SEPTUM_IMAGE_DIR"
FOLDER: Final = Path("/var/lib/septum/images")

_BUILD: Final = "septum image build"
_MOST: Final = 1 << 20  # bytes of an index
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_COMMAND_LINE: Final = re.compile(r"[A-Za-z0-9_.,=/: -]{0,1024}")


class Boot(NamedTuple):
    """An image as the monitor needs it. ``extra`` is the kernel's command line, digests are SHA-256 in hexadecimal."""

    kernel: Path
    kernel_sha256: str
    ramdisk: Path
    ramdisk_sha256: str
    extra: str
    memory_mib: int


def folder() -> Path:
    """Where the images of this machine are."""
    return Path(os.environ.get(VARIABLE) or FOLDER)


def boots_of(assembly: ValidatedAssembly, where: Path | None = None) -> dict[str, Boot]:
    """The image of each domain, by name. Errors: ImageError."""
    where = where or folder()
    index = _read(where / INDEX)
    found = {}
    for domain in assembly.domains:
        key = f"{domain.role.component}/{domain.role.name}"
        if key not in index:
            raise ImageError(f"{where / INDEX} has no image for {key}: {_BUILD} {assembly.source}")
        try:
            found[domain.name] = _boot(where, index[key])
        except (KeyError, TypeError, ValueError) as error:
            raise ImageError(f"{where / INDEX}: {key}: {error}: {_BUILD} {assembly.source}") from None
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            for what, stat in ((file, os.fstat(opened.fileno())), (file.parent, os.stat(file.parent))):
                if stat.st_uid != os.geteuid() or stat.st_mode & 0o022:
                    raise ImageError(f"{what} can be written by others: chown root, chmod go-w")
            index = json.loads(opened.read(_MOST))
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(f"{file}: {error.strerror}: {_BUILD}, and copy the folder there (or set {VARIABLE})") from None
    except ValueError:
        raise ImageError(f"{file} is not JSON: {_BUILD}") from None
    if not isinstance(index, dict):
        raise ImageError(f"{file} is no index of images: {_BUILD}")
    return index


def _boot(where: Path, entry: dict[str, Any]) -> Boot:
    boot = Boot(
        where / entry["kernel"],
        entry["kernel_sha256"],
        where / entry["ramdisk"],
        entry["ramdisk_sha256"],
        entry["kernel_args"],
        entry["memory_mib"],
    )
    if not all(_DIGEST.fullmatch(digest) for digest in (boot.kernel_sha256, boot.ramdisk_sha256)):
        raise ValueError("a digest is no SHA-256")
    if not _COMMAND_LINE.fullmatch(boot.extra):
        raise ValueError("kernel_args hold what no command line does")
    if not isinstance(boot.memory_mib, int) or not 16 <= boot.memory_mib <= 1 << 16:
        raise ValueError("memory_mib must be 16 to 65536")
    return boot
