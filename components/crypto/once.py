"""A key is handed out once in its life: the memory of the sessions that were handed out.

ChaCha20-Poly1305 under one key and counter twice gives both plaintexts and forgeries away (RFC 8439 section 4), and a
receive key that came with an empty window twice could be replayed to. So whoever hands out keys is not trusted to
count: a session is taken once, however often it is sent.
"""

from __future__ import annotations

from collections import OrderedDict

from components.crypto.constants import REMEMBERED_SESSIONS


class Once:
    """Remembers the last ``most`` session numbers."""

    __slots__ = ("_most", "_seen")

    def __init__(self, most: int = REMEMBERED_SESSIONS) -> None:
        self._most = most
        self._seen: OrderedDict[int, None] = OrderedDict()

    def is_first(self, session: int) -> bool:
        """True the first time it is asked for ``session``."""
        if session in self._seen:
            return False
        self._seen[session] = None
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return True
