"""A tree of files as the archive an initramfs is made of: cpio's "newc" format (linux,
Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One name in a tree: its mode with the type bits, what it holds (a link: where it leads), a device's numbers."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


Tree = dict[str, Entry]
"""Paths without a leading slash."""


def file(data: bytes, mode: int = 0o644) -> Entry:
    return Entry(stat.S_IFREG | mode, data)


def link(target: str) -> Entry:
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def folder(mode: int = 0o755) -> Entry:
    return Entry(stat.S_IFDIR | mode)


def character(major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(stat.S_IFCHR | mode, device=(major, minor))


def archive(tree: Mapping[str, Entry]) -> bytes:
    """The archive of ``tree``, the folders that lead to its entries included."""
    whole: Tree = {}
    for path, entry in tree.items():
        parts = path.split("/")
        for end in range(1, len(parts)):
            whole.setdefault("/".join(parts[:end]), folder())
        whole[path] = entry
    return b"".join(_records(whole))


def _records(tree: Mapping[str, Entry]) -> Iterator[bytes]:
    for number, path in enumerate(sorted(tree), 1):
        yield from _record(number, path, tree[path])
    yield from _record(0, "TRAILER!!!", Entry(0))


def _record(number: int, path: str, entry: Entry) -> Iterator[bytes]:
    name = path.encode() + b"\0"
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + name
    yield head + bytes(-len(head) % 4)
    yield entry.data + bytes(-len(entry.data) % 4)
