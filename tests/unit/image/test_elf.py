"""The closure of libraries against what the dynamic linker itself says."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from appliance.image import elf
from appliance.image.closure import INTERPRETER

CTYPES = next(Path("/usr/lib/python3.11/lib-dynload").glob("_ctypes.*.so"))


def loaded(file: Path) -> set[str]:
    """The names of libraries that the dynamic linker would load for ``file``."""
    said = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=True).stdout
    return {line.split()[0].rsplit("/", 1)[-1] for line in said.splitlines() if "linux-vdso" not in line}


@pytest.mark.parametrize("file", [INTERPRETER, CTYPES], ids=["python", "_ctypes"])
def test_the_closure_is_what_the_linker_loads(file: Path) -> None:
    found = elf.closure([file])
    assert {Path(place).name for place in found} == loaded(file)
    assert all(here.is_file() for here in found.values())


def test_the_interpreter_lies_where_the_program_says() -> None:
    assert elf.needs(INTERPRETER.read_bytes()).interpreter in elf.closure([INTERPRETER])


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100)])
def test_what_is_no_such_elf_file_is_refused(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "odd"
    file.write_bytes(data)
    with pytest.raises(elf.ElfError, match="odd"):
        elf.closure([file])


def test_a_library_that_is_nowhere_is_named(tmp_path: Path) -> None:
    file = tmp_path / "needy"
    file.write_bytes(CTYPES.read_bytes().replace(b"libffi.so.8\0", b"libxxx.so.8\0"))
    with pytest.raises(elf.ElfError, match=r"needy needs libxxx\.so\.8"):
        elf.closure([file])


def test_strings_outside_of_what_is_loaded_are_refused() -> None:
    data = bytearray(CTYPES.read_bytes())
    at = data.index(struct.pack("<Q", 5), next(s.offset for s in elf._segments(bytes(data)) if s.kind == 2))
    data[at + 8 : at + 16] = struct.pack("<Q", 1 << 40)
    with pytest.raises(elf.ElfError, match="outside of what is loaded"):
        elf.needs(bytes(data))
