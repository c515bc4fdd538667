"""Guests for tests: Python as PID 1, and a program of the test's own.

Not what Septum boots: Debian's kernel with every Xen device there is, /dev/xen/privcmd too, by which a program makes
any hypercall it likes. That is what an attacker has who owns the kernel of a domain.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import elf, kmods
from .bytecode import compiled
from .cpio import Tree, archive, character, file, folder
from .debian import unpack
from .dom0 import packages
from .places import XEN, making, step

MODULES: Final = ("xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc")
_PACKAGES: Final = (
    "libpython3.11-minimal python3.11-minimal libpython3.11-stdlib libc6 libffi8 zlib1g libexpat1".split()
)
_STDLIB: Final = "|".join(
    """__future__ _collections_abc _weakrefset abc codecs collections contextlib copyreg ctypes encodings enum functools
    genericpath importlib io json keyword linecache operator os posixpath re reprlib site stat struct textwrap token
    tokenize traceback types warnings weakref""".split()
)
_KEEP: Final = re.compile(
    rf"^usr/bin/python3\.11$|^usr/lib/python3\.11/({_STDLIB})(\.py|/[a-z_0-9]+\.py)$"
    r"|dynload/(_ctypes|_json|mmap)\.|x86_64-linux-gnu/(libc|libm|libffi|libz|libexpat|ld-linux[^/]*)\.so|ld-linux"
)

_LEAVE_OUT: Final = re.compile(r"^usr/share|^usr/lib/debug")


@dataclass(frozen=True)
class Guest:
    """What an xl configuration names as kernel and ramdisk."""

    kernel: Path
    ramdisk: Path


def build(init: bytes, modules: Mapping[str, bytes]) -> Guest:
    """``init`` is the Python program that runs as PID 1; beside it, in /, the Python ``modules`` it imports, by file
    name.

    /modules holds what it has to load first, in the order of names.
    """
    debs, version = packages()
    recipe = (version, [deb.name for deb in debs], init, sorted(modules.items()), Path(__file__).read_bytes())
    target = XEN / f"guest-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}"
    with making(target) as scratch:
        if scratch:
            with step("a guest for tests"):
                _fill(scratch, debs, version, init, modules)
    return Guest(target / "kernel", target / "initramfs")


def _fill(scratch: Path, debs: Iterable[Path], version: str, init: bytes, modules: Mapping[str, bytes]) -> None:
    wanted = [deb for deb in debs if deb.name.split("_")[0] in (*_PACKAGES, f"linux-image-{version}")]
    tree = unpack(wanted, _LEAVE_OUT)
    (scratch / "kernel").write_bytes(_unpacked(tree[f"boot/vmlinuz-{version}"].data))
    kmods.keep(tree, version, MODULES)
    order = tree["etc/modules.order"].data.decode().split()
    drivers = {
        f"modules/{number:02}-{path.rsplit('/', 1)[1]}": file(tree[path[1:]].data) for number, path in enumerate(order)
    }
    (scratch / "initramfs").write_bytes(archive(_furnished(tree, init, modules) | drivers))


def _furnished(tree: Tree, init: bytes, modules: Mapping[str, bytes]) -> Tree:
    """What is kept of the packages in ``tree``, the test's own programs, and the places that a kernel and they
    expect."""
    kept = {path: entry for path, entry in tree.items() if _KEEP.search(path) or path in ("lib", "lib64", "bin")}
    kept = compiled(kept | {name: file(data) for name, data in modules.items()})
    kept["init"] = file(init, 0o755)
    kept |= {name: folder() for name in ("proc", "sys", "dev", "modules")}
    kept |= {"dev/console": character(5, 1), "dev/null": character(1, 3)}
    if absent := elf.missing(kept):
        raise RuntimeError(f"libraries missing in the test guest: {absent}")
    return kept


def _unpacked(kernel: bytes) -> bytes:
    """The ELF file inside a bzImage (linux, Documentation/x86/boot.rst: payload_offset and payload_length).

    xl unpacks it for each guest it creates; where the processor is emulated, that takes longer than everything else
    together.
    """
    sectors = kernel[0x1F1]
    offset, length = struct.unpack_from("<II", kernel, 0x248)
    start = (sectors + 1) * 512 + offset
    return lzma.LZMADecompressor().decompress(kernel[start : start + length])
