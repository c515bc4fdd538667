"""What a guest boots: the description of this one domain, and behind it the image as it was checked.

Linux unpacks archives that stand one behind the other, compressed or not (Documentation/driver-api/early-userspace/
buffer-format.rst): the description is one file, mode 0400, in an archive of its own in the newc format of cpio. It
stands first: where an archive that is not compressed ends, Linux need not ask a decompressor.
All of it is in memfds: the bytes that were hashed are the bytes that xl reads, and no secret is ever on a file system.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

NAME: Final = "description.json"

_REGULAR: Final = 0o100400
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_MOST: Final = 256 << 20  # bytes of a kernel or an image


class ImageError(OSError):
    """What should boot is not what was built; the text says what to do."""


def member(name: str, data: bytes, mode: int = _REGULAR) -> bytes:
    """One file as newc has it: a header of hexadecimal numbers, the name, the data, each padded to 4 bytes."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def archive(name: str, data: bytes) -> bytes:
    """A whole archive with one file in it."""
    return member(name, data) + member("TRAILER!!!", b"", 0)


def checked(path: Path, sha256: str) -> bytes:
    """The bytes of ``path``, which must have that digest. Errors: ImageError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}: build it with `septum image build`") from None
    found = hashlib.sha256(data).hexdigest()
    if not hmac.compare_digest(found, sha256):
        raise ImageError(f"{path} is not what was built (SHA-256 {found}, not {sha256}): build it anew and ask why")
    return data


def sealed(name: str, *parts: bytes) -> int:
    """A memfd that holds ``parts`` and that nobody can change any more. Errors: OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(fd, rest) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd
