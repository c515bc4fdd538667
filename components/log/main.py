"""The audit sink: records in, lines out. It never waits for the journal: what finds no room there is counted."""

from __future__ import annotations

import os
from collections import deque
from typing import Final

from septum.v1.records import Record
from septum.v1.tail import TailReply, TailRequest

from appliance.guest.loop import Guest
from components.log.lines import Entry, Lines
from components.log.tail import Tail

_MOST_WAITING: Final = 512  # lines
_TICK: Final = 1.0  # seconds
_SHARE: Final = 0.25  # of the log's time, that whoever watches may take


class Journal:
    """Writes lines to a file descriptor; keeps a bounded number while it takes none.

    Whether it can wait at all is settled by who opened it: O_NONBLOCK belongs to the open file, which others may share.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: deque[bytes] = deque()
        self._lost = 0

    def write(self, lines: list[bytes]) -> None:
        """Writes what it can, in order, and keeps the rest. Errors: OSError if the journal is gone."""
        for line in lines:
            if len(self._waiting) >= _MOST_WAITING:
                self._lost += 1
            else:
                self._waiting.append(line)
        try:
            while self._waiting:
                line = self._waiting[0]
                written = os.write(self._fd, line)
                self._waiting.popleft()
                if written < len(line):
                    self._waiting.appendleft(line[written:])
                elif self._lost and not self._waiting:
                    self._waiting.append(f"<4>log lost: {self._lost} lines that the journal had no room for\n".encode())
                    self._lost = 0
        except BlockingIOError:
            pass


def build(guest: Guest) -> None:
    """Ports in, lines out."""
    journal = Journal(guest.devices["journal"])
    lines = Lines()
    records = guest.counter("records")
    suppressed = guest.counter("suppressed")
    tail = Tail(int(guest.wall() * 1000)) if guest.is_joined("tail") else None
    next_tick = 0.0

    def write(entries: list[Entry]) -> None:
        if tail is not None:
            at = int(guest.wall() * 1000)
            for entry in entries:
                tail.keep(entry, at)
        journal.write([entry.line() for entry in entries])

    def record(sender: str, message: Record, now: float) -> None:
        records.add(1)
        write(lines.record(sender, message.severity, message.event, message.text, now))
        suppressed.set(lines.suppressed)

    def tick(now: float) -> float:
        nonlocal next_tick
        if now >= next_tick:
            next_tick = now + _TICK
            write(lines.tick(now))
        return next_tick

    def answer(peer: str, request: TailRequest) -> TailReply:
        assert tail is not None  # as the port is joined
        return tail.answer(request)

    guest.receive_many("records", record)
    if tail is not None:
        guest.serve("tail", answer, share=_SHARE)
    guest.timer(tick)
