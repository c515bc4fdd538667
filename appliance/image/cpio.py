"""The archive that the kernel unpacks into its first file system: cpio's "newc" format.

The same entries give the same bytes: sorted by path, owner root, time 0, inodes counted from 1. Format:
Documentation/driver-api/early-userspace/buffer-format.rst of the kernel. An archive begins and ends on a multiple of
four bytes, so that one can follow another, or a compressed one once that is ``padded``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final, NamedTuple

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"
_MOST_BYTES: Final = 0xFFFF_FFFF


class Entry(NamedTuple):
    """One file: ``path`` without a leading slash, ``mode`` with its type as in stat(2), major and minor of a device."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, data: bytes, mode: int = 0o444) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | mode, data)


def directory(path: str, mode: int = 0o555) -> Entry:
    return Entry(path, stat.S_IFDIR | mode)


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(path, stat.S_IFCHR | mode, device=(major, minor))


def padded(data: bytes) -> bytes:
    """``data`` and zeros up to a multiple of four bytes."""
    return data + bytes(-len(data) % 4)


def _record(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    fields = (
        number,
        entry.mode,
        0,  # uid
        0,  # gid
        1,  # links: with more, the kernel would look for the other names of this inode
        0,  # mtime
        len(entry.data),
        0,  # major and minor of the device that it lies on
        0,
        *entry.device,
        len(name),
        0,  # checksum: none in newc
    )
    return padded(_MAGIC + b"".join(b"%08x" % field for field in fields) + name) + padded(entry.data)


def _with_parents(entries: Iterable[Entry]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries:
        parts = entry.path.split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\0" in entry.path:
            raise ValueError(f"{entry.path!r} is no path of an archive: relative, without empty parts, . or ..")
        if entry.path in found:
            raise ValueError(f"{entry.path} is in the archive twice")
        if len(entry.data) > _MOST_BYTES:
            raise ValueError(f"{entry.path}: a file of cpio has less than 4 GiB")
        found[entry.path] = entry
    for path in list(found):
        while path := os.path.dirname(path):
            if not stat.S_ISDIR(found.setdefault(path, directory(path)).mode):
                raise ValueError(f"{path} is not a directory, and something lies in it")
    return found


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of ``entries``, parents first; directories that nobody named are added. Errors: ValueError."""
    found = _with_parents(entries)
    # "/" sorts before every letter, but not before "-" or ".": by parts, a parent comes right before what is in it
    ordered = [found[path] for path in sorted(found, key=lambda path: path.split("/"))]
    records = [_record(number, entry) for number, entry in enumerate(ordered, 1)]
    return b"".join(records) + _record(0, Entry(_TRAILER, 0))
