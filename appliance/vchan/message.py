"""What all messages are: a few named values. Which values, and within which bounds, is the schema's (schema.py).

The classes themselves are generated from the .proto files (generate.py) and have the face of protobuf's own: keywords
at construction, attributes, ``WhichOneof``. A field that can be absent and is raises AttributeError when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class Message:
    """The base of the generated classes, whose ``__slots__`` are the fields in number order."""

    __slots__: tuple[str, ...] = ()
    ONEOFS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Name of a group of fields, of which exactly one is set -> the fields."""

    def WhichOneof(self, oneof: str) -> str | None:
        """The field of ``oneof`` that is set."""
        return next((name for name in self.ONEOFS[oneof] if hasattr(self, name)), None)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name, None) == getattr(other, name, None) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Bytes are shown by their number alone: some are keys."""
        shown = ((name, getattr(self, name)) for name in self.__slots__ if hasattr(self, name))
        texts = (f"{name}={f'<{len(it)} bytes>' if isinstance(it, bytes) else repr(it)}" for name, it in shown)
        return f"{type(self).__name__}({', '.join(texts)})"


def cut(text: str, most: int) -> str:
    """As much of ``text`` as fits ``most`` bytes of UTF-8, which is how schemas bound it."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
