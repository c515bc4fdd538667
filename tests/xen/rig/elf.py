"""Does every program and library of a tree find the libraries it needs in that tree?"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .cpio import Tree

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NEEDED, DT_STRTAB = 1, 5


def missing(tree: Tree) -> dict[str, set[str]]:
    """The libraries that are needed and not there, each with who needs it."""
    names = {path.rsplit("/", 1)[-1] for path in tree}
    absent: dict[str, set[str]] = {}
    for path, entry in tree.items():
        for library in _needed(entry.data):
            if library not in names:
                absent.setdefault(library, set()).add(path)
    return absent


def _needed(data: bytes) -> Iterator[str]:
    """The DT_NEEDED entries of a 64-bit little-endian ELF file; of anything else, none (elf(5))."""
    if data[:6] != b"\x7fELF\x02\x01":
        return
    offset, size, count = (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))
    heads = [struct.unpack_from("<IIQQQQ", data, offset + size * i) for i in range(count)]
    loads = [(address, at, length) for kind, _, at, address, _, length in heads if kind == PT_LOAD]
    for kind, _, at, _, _, length in heads:
        if kind == PT_DYNAMIC:
            dynamic = list(struct.iter_unpack("<QQ", data[at : at + length]))
            strings = next((_offset(value, loads) for tag, value in dynamic if tag == DT_STRTAB), 0)
            for tag, value in dynamic:
                if tag == DT_NEEDED:
                    start = strings + value
                    yield data[start : data.index(b"\0", start)].decode()


def _offset(address: int, loads: list[tuple[int, int, int]]) -> int:
    for base, at, length in loads:
        if base <= address < base + length:
            return at + address - base
    raise ValueError(f"address {address:#x} lies in no segment")
