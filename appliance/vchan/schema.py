"""The rules that a .proto states with the options of ``septum/v1/options.proto``, as the domains enforce them.

A schema is one .proto file: the shape of a channel, and the messages that go through it. Every field says how secret it
is (label) and how large it may be (bounds); from the bounds follows the largest legal encoding of each message, hence
the largest frame that an end will look at.

All of it is in the Python that generate.py makes of the .proto: protobuf's own runtime is in no domain, nor in the
monitor (docs/decisions/0013-no-protobuf-runtime-in-a-domain.md).
"""

from __future__ import annotations

import importlib
from enum import Enum, IntEnum
from functools import cache
from typing import Any, Final, NamedTuple

from appliance.vchan import layout
from appliance.vchan.frame import frame_bytes
from appliance.vchan.layout import Orders
from appliance.vchan.message import Message
from appliance.vchan.wireformat import uvarint_bytes

PACKAGE: Final = "septum.v1"


class SchemaError(Exception):
    """A .proto breaks the rules for schemas; the message says where and what to do."""


class Kind(Enum):
    """A stream carries ``forward`` one way; a call carries a ``forward`` request, then its ``backward`` reply."""

    STREAM = 1
    CALL = 2


class WhenFull(Enum):
    """What a full ring does to its producer: drop the message and count it, or wait with a deadline."""

    DROP = 1
    BLOCK = 2


class Type(IntEnum):
    """The types of protobuf that schemas use, by the numbers that FieldDescriptorProto.Type has for them."""

    UINT64 = 4
    BOOL = 8
    STRING = 9
    MESSAGE = 11
    BYTES = 12
    UINT32 = 13
    ENUM = 14


LENGTHS: Final = (Type.BYTES, Type.STRING)
"""Those whose bounds are of bytes; the others' are of the value."""


class FieldRule(NamedTuple):
    """What one field may hold. ``low`` and ``high`` bound the value of an integer, enum or bool, else the bytes."""

    number: int
    name: str
    type: Type
    label: str | None  # None: a message, whose own fields have labels
    low: int
    high: int
    max_items: int | None = None  # None: not repeated
    has_presence: bool = False  # absent is different from zero or empty
    enum_values: frozenset[int] | None = None
    message: MessageRule | None = None

    def violation(self, value: Any) -> str | None:
        """Why ``value`` (of the field's type; a string as its UTF-8; a single item) may not stand here, or None."""
        if self.type in LENGTHS:
            if not self.low <= len(value) <= self.high:
                return f"{len(value)} bytes, not {self.low} to {self.high}"
        elif not self.low <= value <= self.high:
            return f"{value:d}, not {self.low} to {self.high}"
        elif self.enum_values is not None and value not in self.enum_values:
            return f"{value} is not declared"
        return None

    @property
    def max_bytes(self) -> int:
        """The longest legal encoding of the field, all its items and tags included."""
        tag = uvarint_bytes(self.number << 3)
        if self.message is not None:
            item = uvarint_bytes(self.message.max_bytes) + self.message.max_bytes
        elif self.type in LENGTHS:
            item = uvarint_bytes(self.high) + self.high
        else:
            item = uvarint_bytes(self.high)
            if self.max_items is not None:  # packed
                return tag + uvarint_bytes(self.max_items * item) + self.max_items * item
        return (tag + item) * (1 if self.max_items is None else self.max_items)

    @property
    def labels(self) -> frozenset[str]:
        return self.message.labels if self.message is not None else frozenset({self.label or ""})


class MessageRule:
    """What one message may hold. ``fields`` are in number order."""

    def __init__(self, name: str, message_class: type[Message], fields: tuple[FieldRule, ...]) -> None:
        self.name: Final = name
        """Full protobuf name, as in ``septum.v1.Packets``."""
        self.message_class: Final = message_class
        self.fields: Final = fields
        self.oneofs: Final = message_class.ONEOFS
        """Groups of fields of which exactly one must be set, by name."""
        alternatives = {member for members in self.oneofs.values() for member in members}
        sizes = {rule.name: rule.max_bytes for rule in fields}
        self.max_bytes: Final = sum(size for member, size in sizes.items() if member not in alternatives) + sum(
            max(sizes[member] for member in members) for members in self.oneofs.values()
        )
        """The largest legal encoding."""
        self.labels: Final[frozenset[str]] = frozenset().union(*(rule.labels for rule in fields))
        """All labels of all fields, at any depth."""


class Schema:
    """The shape of a channel.

    ``ring_order`` is the log2 of the bytes of the ring that carries ``forward``; only calls have a ``backward``.
    Errors of the constructor: SchemaError.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        when_full: WhenFull,
        ring_order: int,
        forward: MessageRule,
        backward: MessageRule | None = None,
    ) -> None:
        self.name: Final = name
        self.kind: Final = kind
        self.when_full: Final = when_full
        self.ring_order: Final = ring_order
        self.forward: Final = forward
        self.backward: Final = backward
        try:
            layout.check(self.orders)
        except ValueError as error:
            raise SchemaError(f"{name}: {error}") from None
        largest = frame_bytes(forward.max_bytes)
        if largest > 1 << ring_order:
            raise SchemaError(
                f"{name}: a {forward.name} takes up to {largest} bytes, "
                f"a ring of order {ring_order} holds {1 << ring_order}: raise ring_order or lower the bounds"
            )

    @property
    def orders(self) -> Orders:
        """Left carries ``forward``. Right is the smallest that holds two of the largest reply: the one that is awaited,
        and one to a request that was given up. In a stream it is the smallest there is, and unused.
        """
        needed = layout.SMALL_ORDER
        if self.backward is not None:
            needed = max(needed, (2 * frame_bytes(self.backward.max_bytes) - 1).bit_length())
        if needed == self.ring_order and needed in layout.IN_PAGE:
            needed += 1
        return Orders(self.ring_order, needed)

    @property
    def labels(self) -> frozenset[str]:
        """All labels of what passes in either direction."""
        return self.forward.labels | (self.backward.labels if self.backward is not None else frozenset())


@cache
def schema(name: str) -> Schema:
    """The schema in ``septum/v1/<name>.proto``.

    Errors: SchemaError if there is none.
    """
    if not (name.isascii() and name.isidentifier() and name.islower()):
        raise SchemaError(f"{name!r} is not the name of a schema")
    try:
        found = getattr(importlib.import_module(f"{PACKAGE}.{name}"), "SCHEMA", None)
    except ImportError as error:
        raise SchemaError(f"there is no schema {name!r} ({error})") from None
    if not isinstance(found, Schema):
        raise SchemaError(f"{name} is not a schema")
    return found
