"""Files that hold keys: whole or not at all, for their owner alone, and on the disk before anybody relies on it."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path


def write(file: Path, content: str | bytes) -> None:
    """``file``, whole or not at all, readable by its owner alone. Errors: OSError."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(content.encode() if isinstance(content, str) else content)
            opened.flush()
            os.fsync(descriptor)
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(folder: Path) -> None:
    """The names in ``folder`` are on the disk. Errors: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put(building: Path, folder: Path) -> None:
    """``building``, beside it, becomes ``folder``; what there was is gone once that is on the disk. Errors: OSError."""
    sync(building)
    old = building.with_name(f"{building.name}.old")
    if folder.exists():
        folder.rename(old)
    building.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
