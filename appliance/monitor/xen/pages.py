"""The monitor's view of the pages that a guest grants to dom0: its status page, mapped for reading. The guest may write
anything into them.

Until the guest has said where its page is, and after it is gone, the view shows zeros: an untouched page.
"""

from __future__ import annotations

import re
from typing import Final

from appliance.guest.status import (
    FIRST_COUNTER,
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
from appliance.monitor.status import Report
from appliance.xen import gntdev
from appliance.xen.window import PAGE, Window

_REFERENCES: Final = re.compile(r"[0-9]{1,7}(,[0-9]{1,7})*")


def references(untrusted_text: str, pages: int, what: str = "its status") -> list[int] | None:
    """The grant references that a guest has written; None if it has not yet. Errors: ValueError for anything else."""
    if not untrusted_text:
        return None
    if len(untrusted_text) > 8 * pages or not _REFERENCES.fullmatch(untrusted_text):
        raise ValueError(f"what it wrote for {what} are no grant references")
    found = [int(part) for part in untrusted_text.split(",")]
    if len(found) != pages:
        raise ValueError(f"it granted {len(found)} pages for {what}, not {pages}")
    return found


class LentPages:
    """``pages`` that a guest lends to dom0, by way of gntdev's descriptor ``device``; zeros while there are none."""

    def __init__(self, device: int, pages: int, is_writable: bool = False) -> None:
        self.pages = pages
        self._device = device
        self._is_writable = is_writable
        self._borrowed: gntdev.Borrowed | None = None
        self._window = Window(pages * PAGE)
        self.memory = self._window.memory

    @property
    def is_mapped(self) -> bool:
        return self._borrowed is not None

    def map(self, domid: int, references: list[int]) -> None:
        """Shows what ``domid`` granted. Errors: OSError."""
        borrowed = gntdev.borrow(self._device, domid, references)
        try:
            self._window.show(self._device, borrowed.offset, is_writable=self._is_writable)
        except OSError:
            gntdev.give_back(self._device, borrowed)
            raise
        self._borrowed = borrowed

    def close(self) -> None:
        """Lets go of the guest's pages, which it needs to be gone altogether. The view may be used for another life."""
        if self._borrowed is not None:
            self._window.blank()
            gntdev.give_back(self._device, self._borrowed)
            self._borrowed = None


class StatusPages(LentPages):
    """The pages of status and board."""

    def __init__(self, device: int, pages: int) -> None:
        super().__init__(device, pages)
        self._words = self.memory[:SIZE].cast("Q")

    def report(self) -> Report:
        words = self._words
        return Report(words[WORD_MAGIC], words[WORD_STATE], words[WORD_HEARTBEAT], words[WORD_VIOLATIONS])

    def counters(self, names: tuple[str, ...]) -> dict[str, int]:
        """The counters by name, in the order of component.toml. Untrusted, like all else."""
        return {name: self._words[FIRST_COUNTER + i] for i, name in enumerate(names)}

    def rows(self, count: int) -> list[PeerRow | None]:
        """The first ``count`` rows of the board; None for one that was not written, or makes no sense."""
        board = self.memory[SIZE:]
        room = len(board) // 64
        return [read_row(board, peer) if peer <= room else None for peer in range(1, count + 1)]

    def sealed(self) -> Sealed:
        """What the guest says of the parts of its seal that nobody can see from outside."""
        return Sealed(self._words[WORD_LANDLOCK], bool(self._words[WORD_EXEC_GAIN]))
