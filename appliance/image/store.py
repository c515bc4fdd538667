"""A folder of what was built, each under the hash of what it was built from.

Whatever has the same inputs is there already. What is half built has another name and is no entry.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def key(*inputs: str) -> str:
    """One hash for a sequence of texts; where one ends and the next begins counts."""
    whole = hashlib.sha256()
    for each in inputs:
        data = each.encode()
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def own(out: Path) -> None:
    """Makes the folder of a store, unless it is there. Errors: PermissionError if others can write to it."""
    out.mkdir(mode=0o755, parents=True, exist_ok=True)
    stat = os.stat(out)
    if stat.st_uid != os.geteuid() or stat.st_mode & 0o022:
        raise PermissionError(f"{out} can be written by others, who could put there what is booted: chown, chmod go-w")


def get(out: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The entry ``name`` of the store ``out``; if there is none, ``make`` fills a new folder that becomes it.

    Who builds the same at the same time waits for the first. Errors: whatever ``make`` raises; then there is no entry.
    """
    entry = out / name
    own(out)
    if entry.is_dir():
        return entry
    with locked(out, name):
        if not entry.is_dir():
            new = out / f".{name}.new"
            shutil.rmtree(new, ignore_errors=True)  # of one that was killed
            new.mkdir(mode=0o755)
            try:
                make(new)
                os.sync()  # its name says that all of it is there
                os.rename(new, entry)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    (out / f".{name}.lock").unlink(missing_ok=True)
    return entry


@contextmanager
def locked(out: Path, name: str) -> Iterator[None]:
    """Nobody else holds the lock ``name`` of the store ``out``, in this process or another: who asks for it waits."""
    own(out)
    with open(out / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def digest_of(data: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
