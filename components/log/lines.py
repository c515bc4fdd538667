"""Records -> lines for the journal: one line a record whatever is in it, and no sender can drown the others.

The prefix ``<N>`` is the severity, as journald reads it from a stream (sd-daemon(3)).
"""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

RATE: Final = 20.0  # records a second, of one sender
BURST: Final = 200.0
_TELL_EVERY: Final = 10.0  # seconds, of a sender that does not stop
_NOTICE: Final = 5  # RFC 5424 section 6.2.1


class Entry(NamedTuple):
    """One line, of ``sender``; ``event`` and ``text`` are printable."""

    severity: int
    sender: str
    event: str
    text: str

    def line(self) -> bytes:
        """As the journal has it."""
        said = f": {self.text}" if self.text else ""
        return f"<{self.severity & 7}>{self.sender} {self.event}{said}\n".encode("utf-8", "replace")


def printable(text: str) -> str:
    """``text`` with everything escaped that could move a cursor, end a line or turn it round; ``\\`` doubled.

    These are Unicode's categories C (controls, formats such as the bidirectional overrides, surrogates) and Zl, Zp.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if unicodedata.category(character)[0] != "C" and character not in "\u2028\u2029":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _Bucket:
    """What one sender may still say, and what it said beyond that."""

    def __init__(self, filled: float, told: float) -> None:
        self.filled = filled  # when, monotonic seconds
        self.told = told  # when it was last said how much was suppressed
        self.tokens: float = BURST
        self.suppressed = 0

    def fill(self, now: float) -> None:
        self.tokens = min(BURST, self.tokens + (now - self.filled) * RATE)
        self.filled = now


class Lines:
    """The lines of all senders. Senders are the assembly's domains, so there are few."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self.suppressed = 0

    def record(self, sender: str, severity: int, event: str, text: str, now: float) -> list[Entry]:
        """The lines to write for one record: none if ``sender`` has said too much of late."""
        bucket = self._buckets.get(sender)
        if bucket is None:
            bucket = self._buckets[sender] = _Bucket(now, now)
        bucket.fill(now)
        if bucket.tokens < 1:
            bucket.suppressed += 1
            self.suppressed += 1
            return []
        bucket.tokens -= 1
        return [Entry(severity, sender, printable(event), printable(text))]

    def tick(self, now: float) -> list[Entry]:
        """To be called about once a second: says how much was suppressed, once a sender falls silent or every 10 s."""
        lines = []
        for sender, bucket in self._buckets.items():
            bucket.fill(now)
            if bucket.suppressed and (bucket.tokens >= RATE or now >= bucket.told + _TELL_EVERY):
                lines.append(Entry(_NOTICE, sender, "suppressed", f"{bucket.suppressed} records"))
                bucket.suppressed, bucket.told = 0, now
        return lines
