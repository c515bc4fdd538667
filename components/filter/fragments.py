"""Later fragments have no ports: they follow the verdict on their datagram's first one, which must come first."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

_TIMEOUT: Final = 30.0  # seconds: Linux's own patience (ipfrag_time)
_MOST: Final = 1024

T = TypeVar("T")


class Fragments(Generic[T]):
    """Datagrams whose first fragment was allowed, by name, for one direction, and what was said of it."""

    def __init__(self) -> None:
        self._allowed: dict[bytes, tuple[float, int, T]] = {}

    def first(self, name: bytes, covered: int, said: T, now: float) -> None:
        """The first fragment was allowed, with a transport header that ends at ``covered``."""
        self._allowed.pop(name, None)
        if len(self._allowed) >= _MOST:
            del self._allowed[next(iter(self._allowed))]
        self._allowed[name] = (now + _TIMEOUT, covered, said)

    def forbid(self, name: bytes) -> None:
        """A first fragment of that name was denied: no fragment may follow an earlier namesake."""
        self._allowed.pop(name, None)

    def later(self, name: bytes, offset: int, now: float) -> T | None:
        """What was said of the first, if a fragment from ``offset`` on may pass: never over the header that was judged
        (RFC 3128).
        """
        found = self._allowed.get(name)
        if found is None or now >= found[0] or offset < found[1]:
            return None
        return found[2]

    def clear(self) -> None:
        """Forgets all."""
        self._allowed.clear()
