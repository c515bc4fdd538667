"""A setting that is replaced while the box runs: sealed memory that nobody can change any more, passed on unread.

It stands behind the JSON of a boot description, marked by what no JSON holds (appliance/guest/boot.py reads both).
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

MOST: Final = 8 << 20
"""Bytes of one, at most."""

_UNCHANGING: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def size_of(untrusted_fd: int, most: int) -> int:
    """The bytes of a memfd that nobody can change any more. Errors: ValueError, which goes on a sentence."""
    try:
        seals = fcntl.fcntl(untrusted_fd, fcntl.F_GET_SEALS)
    except OSError:
        raise ValueError("is not a memfd that can be sealed") from None
    if _UNCHANGING & ~seals:
        raise ValueError("could still change: seal it against writing, growing and shrinking")
    size = os.fstat(untrusted_fd).st_size
    if not 1 <= size <= most:
        raise ValueError(f"has {size} bytes, not 1 to {most}")
    return size


def mark(setting: str) -> bytes:
    """What stands between a description and the JSON of the ``setting`` that it has instead."""
    return b"\0" + setting.encode() + b"\0"
