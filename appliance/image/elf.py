"""Which shared libraries a program or library needs, read from the ELF file itself: nothing is run to find out.

Only what is needed is read: 64-bit little-endian, the program header and the dynamic section (System V gABI, chapter
"Dynamic Linking"). Libraries are looked for where Debian's dynamic linker looks without any configuration.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_PT_LOAD: Final = 1
_PT_DYNAMIC: Final = 2
_PT_INTERP: Final = 3
_DT_NEEDED: Final = 1
_DT_STRTAB: Final = 5
_DT_RPATH: Final = 15
_DT_RUNPATH: Final = 29

FOLDERS: Final = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib")
"""Where a library lies if no file says otherwise, in the linker's order."""


class ElfError(ValueError):
    """A file that is not what the linker of the image could load; the text names it."""


class Needs(NamedTuple):
    """What an ELF file asks for: its interpreter (None for a library), names of libraries, folders to look in first."""

    interpreter: str | None
    libraries: tuple[str, ...]
    folders: tuple[str, ...]


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def _segments(data: bytes) -> list[_Segment]:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ElfError("not a 64-bit little-endian ELF file")
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    found = []
    for i in range(count):
        kind, _, offset, address, _, length, _, _ = struct.unpack_from("<IIQQQQQQ", data, start + i * size)
        found.append(_Segment(kind, offset, address, length))
    return found


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()


def _in_file(segments: list[_Segment], address: int) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return segment.offset + address - segment.address
    raise ElfError("its strings lie outside of what is loaded")


def needs(data: bytes) -> Needs:
    """What the ELF file with these bytes needs. Errors: ElfError."""
    try:
        segments = _segments(data)
        interpreter, entries = None, []
        for segment in segments:
            if segment.kind == _PT_INTERP:
                interpreter = _text(data, segment.offset)
            elif segment.kind == _PT_DYNAMIC:
                entries = list(struct.iter_unpack("<QQ", data[segment.offset : segment.offset + segment.size]))
        if not entries:
            return Needs(interpreter, (), ())  # statically linked
        strings = _in_file(segments, next(value for tag, value in entries if tag == _DT_STRTAB))
    except (struct.error, StopIteration, ValueError) as error:
        raise ElfError(str(error) or "its dynamic section has no strings") from error
    libraries = tuple(_text(data, strings + value) for tag, value in entries if tag == _DT_NEEDED)
    paths = [_text(data, strings + value) for tag, value in entries if tag in (_DT_RPATH, _DT_RUNPATH)]
    return Needs(interpreter, libraries, tuple(folder for path in paths for folder in path.split(":")))


def closure(files: Iterable[Path]) -> dict[str, Path]:
    """Everything that ``files`` need beside themselves: where it must lie in the image, and where it lies here.

    Errors: ElfError, OSError.
    """
    found: dict[str, Path] = {}
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        try:
            wanted = needs(file.read_bytes())
        except ElfError as error:
            raise ElfError(f"{file}: {error}") from error
        if wanted.folders:
            raise ElfError(f"{file} looks for libraries in {', '.join(wanted.folders)}: an image has no such folder")
        if wanted.interpreter and wanted.interpreter not in found:
            found[wanted.interpreter] = Path(wanted.interpreter)
        for library in wanted.libraries:
            if any(library == Path(place).name for place in found):
                continue
            here = next((path for folder in FOLDERS if (path := Path(folder, library)).is_file()), None)
            if here is None:
                raise ElfError(f"{file} needs {library}, which is in none of {', '.join(FOLDERS)}")
            found[f"/usr/lib/x86_64-linux-gnu/{library}"] = here
            waiting.append(here)
    return found
