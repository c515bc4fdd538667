"""The console of a guest: what it writes there are its last words, or the journal's lines if the guest is log.

xenconsoled holds the other end of the ring and offers it as a terminal. What is read from it is bounded by the reader:
so much at each look, and only the last of it is kept. Whoever writes more waits, or loses it in xenconsoled's buffer.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Final

_A_LOOK: Final = 4096  # bytes
_KEPT: Final = 4096

TERMINAL: Final = re.compile(r"/dev/pts/[0-9]{1,6}")


class Console:
    """Opened by the path that the xenstore names. Errors of the constructor: OSError, ValueError."""

    def __init__(self, untrusted_path: str) -> None:
        if not TERMINAL.fullmatch(untrusted_path):
            raise ValueError(f"{untrusted_path!r} is no terminal")
        self._fd = os.open(untrusted_path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.untrusted_words = b""

    def look(self) -> bytes:
        """What came since the last look, as much of it as one look takes."""
        try:
            found = os.read(self._fd, _A_LOOK)
        except OSError:  # nothing, or xenconsoled has hung up
            return b""
        self.untrusted_words = (self.untrusted_words + found)[-_KEPT:]
        return found

    def drain(self) -> None:
        """A few more looks, at the end: what is left of the last words."""
        for _ in range(4):
            if not self.look():
                return

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._fd)
