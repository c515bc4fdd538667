"""The last lines, for whoever watches from elsewhere: numbered from 1 for as long as this domain lives."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from septum.v1.tail import Line, TailReply, TailRequest

from appliance.vchan.message import cut
from components.log.lines import Entry

MOST_KEPT: Final = 4096  # lines
AT_ONCE: Final = 16  # as the schema has it
_LONGEST_EVENT: Final = 256  # bytes, as the schema has it
_LONGEST_TEXT: Final = 2048


class Tail:
    """``life`` is when it began, in milliseconds since 1970: numbers are of that life."""

    def __init__(self, life: int) -> None:
        self._life = life
        self._lines: deque[Line] = deque(maxlen=MOST_KEPT)
        self._next = 1

    def keep(self, entry: Entry, at: int) -> None:
        """Keeps a line, written ``at`` milliseconds since 1970; the oldest goes if there are too many."""
        event, text = cut(entry.event, _LONGEST_EVENT), cut(entry.text, _LONGEST_TEXT)
        line = Line(number=self._next, at=at, severity=entry.severity & 7, domain=entry.sender, event=event, text=text)
        self._lines.append(line)
        self._next += 1

    def answer(self, request: TailRequest) -> TailReply:
        """The lines behind the one that is asked for, as many as fit a reply."""
        lines = self._lines
        oldest = lines[0].number if lines else 0
        skip = max(0, request.after + 1 - oldest)
        found = list(islice(lines, skip, skip + min(request.most, AT_ONCE))) if skip < len(lines) else []
        return TailReply(life=self._life, oldest=oldest, lines=found)
