"""Sections on their way in, in pieces behind a header that says how much of each will come.

What is on its way is kept in memory: so there is room for so much of all, and of one administrator for half of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from septum.admin.v1 import admin_pb2 as pb

from components.admin.status import Code, RpcError

MOST_COMING: Final = 64 << 20  # bytes of all
MOST_OF_ONE: Final = 32 << 20

Receive = Callable[[], Awaitable[Any]]
Sizes = Mapping[pb.Section.ValueType, int]


class Room:
    """How much is on its way, by the name of who brings it."""

    def __init__(self) -> None:
        self._coming: Counter[str] = Counter()

    @contextmanager
    def take(self, name: str, sizes: Sizes) -> Iterator[None]:
        """Room for as much, until it is left. Errors: RpcError (RESOURCE_EXHAUSTED)."""
        size = sum(sizes.values())
        if self._coming[name] + size > MOST_OF_ONE or self._coming.total() + size > MOST_COMING:
            why = "too much is on its way already: let that end first"
            raise RpcError(Code.RESOURCE_EXHAUSTED, why, reason="RATE", retry=1.0)
        self._coming[name] += size
        try:
            yield
        finally:
            self._coming[name] -= size
            if not self._coming[name]:
                del self._coming[name]


async def sections(sizes: Sizes, receive: Receive) -> dict[int, bytes]:
    """The sections that follow a header, each of exactly the size that it gave: ``sizes`` by section, 0 if it does not
    come. Errors: RpcError.
    """
    found = {section: bytearray() for section, size in sizes.items() if size}
    while (message := await receive()) is not None:
        if message.WhichOneof("part") != "piece":
            raise RpcError(Code.INVALID_ARGUMENT, "must come first, and once", path="header")
        piece = message.piece
        if piece.section not in found:
            why = "is of a section that the header does not bring"
            raise RpcError(Code.INVALID_ARGUMENT, why, path="piece.section")
        found[piece.section] += piece.data
        if len(found[piece.section]) > sizes[piece.section]:
            raise RpcError(Code.INVALID_ARGUMENT, "is more than the header says", path="piece.data")
    for section, data in found.items():
        if len(data) < sizes[section]:
            why = f"has {len(data)} bytes of {sizes[section]}"
            raise RpcError(Code.INVALID_ARGUMENT, why, path=f"header.{pb.Section.Name(section)[8:].lower()}")
    return {int(section): bytes(data) for section, data in found.items()}
