"""A value that must not be shown: it has no repr, no equality by ``==`` on content leaks, and can be wiped."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Holds secret bytes.

    ``reveal()`` is the one way in, so that a reader can find every use by that name. Comparison is in constant time.
    Pickling, formatting and hashing are refused: each of them would make a copy that nobody wipes.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = bytearray(value)

    def reveal(self) -> bytes:
        """The secret bytes (a copy: the caller's to drop)."""
        return bytes(self._value)

    def wipe(self) -> None:
        """Overwrites the bytes with zeros. What is revealed afterwards is zeros of the same length."""
        self._value[:] = bytes(len(self._value))

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<Secret>"

    def __format__(self, spec: str) -> str:
        return "<Secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled; use reveal() where its bytes are needed")
