"""The audit log's last lines, mirrored from the domain that writes it, for those who ask and those who follow.

One asks for all: however many follow, the log is asked a few times a second, and only while somebody does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from septum.v1.tail import Line, TailReply, TailRequest

from components.admin.asking import Other
from components.admin.holding import Lock

MOST_KEPT: Final = 8192  # lines
AT_ONCE: Final = 16  # as the schema has it


class Trail:
    """``life`` says which life of the log the numbers are of; they begin anew with each."""

    def __init__(self, log: Other) -> None:
        self._log = log
        self._lock = Lock()
        self._lines: deque[Line] = deque(maxlen=MOST_KEPT)
        self.life = 0
        self.oldest = 0
        """Of the lines that can still be had; 0: none."""

    @property
    def newest(self) -> int:
        """The number of the last line; 0: none."""
        return self._lines[-1].number if self._lines else 0

    async def refresh(self) -> None:
        """Takes the lines that came since. Errors: RpcError."""
        async with self._lock:
            for _ in range(MOST_KEPT // AT_ONCE + 1):
                reply: TailReply = await self._log.ask(TailRequest(after=self.newest, most=AT_ONCE))
                if reply.life != self.life:
                    self._lines.clear()
                    self.life, again = reply.life, self.oldest != 0
                    self.oldest = reply.oldest
                    if again:
                        continue  # what it was asked for was of the life before
                self._lines.extend(line for line in reply.lines if line.number > self.newest)
                self.oldest = self._lines[0].number if self._lines else 0
                if len(reply.lines) < AT_ONCE:
                    return

    def after(self, number: int) -> Iterator[Line]:
        """The lines behind that number, oldest first."""
        lines = self._lines
        skip = min(len(lines), max(0, number + 1 - self.oldest)) if lines else 0
        return (lines[i] for i in range(skip, len(lines)))
