"""The monitor's side of a domain's status page: numbers written by somebody who may be hostile.

The layout is the guest's (appliance/guest/status.py). Nothing read here is believed further than a number goes: a
domain can lie about its own counters and nothing else, since what matters is also read from /proc.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final, NamedTuple

from appliance.guest.status import (
    FIRST_COUNTER,
    MAGIC,
    ROW_SIZE,
    SIZE,
    WORD_EXEC_GAIN,
    WORD_HEARTBEAT,
    WORD_LANDLOCK,
    WORD_MAGIC,
    WORD_STATE,
    WORD_VIOLATIONS,
    PeerRow,
    read_row,
)
from appliance.monitor.sandbox.seal import Sealed

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Report(NamedTuple):
    """What a domain says of itself at one moment. Every field is an unsigned 64-bit number and may be anything."""

    untrusted_magic: int
    untrusted_state: int
    untrusted_heartbeat: int
    untrusted_violations: int

    @property
    def is_page(self) -> bool:
        """Whether the domain has begun to write: an untouched page is all zero."""
        return self.untrusted_magic == MAGIC


class StatusMemory:
    """One status page with ``rows`` of a board behind it. ``fd`` is what the domain gets: to write, not to resize.

    A page that its domain could cut short would end the monitor with SIGBUS at the next look.
    """

    def __init__(self, rows: int = 0) -> None:
        size = SIZE + rows * ROW_SIZE  # of which only what is written takes memory
        self.fd = os.memfd_create("septum-status", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
        self._map = mmap.mmap(self.fd, size, prot=mmap.PROT_READ)
        self._bytes = memoryview(self._map)
        self._words = self._bytes[:SIZE].cast("Q")

    def report(self) -> Report:
        words = self._words
        return Report(words[WORD_MAGIC], words[WORD_STATE], words[WORD_HEARTBEAT], words[WORD_VIOLATIONS])

    def counters(self, names: tuple[str, ...]) -> dict[str, int]:
        """The counters by name, in the order of component.toml. Untrusted, like all else."""
        return {name: self._words[FIRST_COUNTER + i] for i, name in enumerate(names)}

    def rows(self, count: int) -> list[PeerRow | None]:
        """The first ``count`` rows of the board; None for one that was not written, or makes no sense."""
        with self._bytes[SIZE:] as board:
            return [read_row(board, peer) for peer in range(1, count + 1)]

    def sealed(self) -> Sealed:
        """What the domain says of the parts of its seal that nobody can see from outside."""
        return Sealed(self._words[WORD_LANDLOCK], bool(self._words[WORD_EXEC_GAIN]))

    def close(self) -> None:
        self._words.release()
        self._bytes.release()
        self._map.close()
        os.close(self.fd)
