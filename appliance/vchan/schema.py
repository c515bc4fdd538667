"""The rules that a .proto states with the options of ``septum/v1/options.proto``, read once and enforced from then on.

A schema is one .proto file: the shape of a channel, and the messages that go through it. Every field says how secret it
is (label) and how large it may be (bounds); from the bounds follows the largest legal encoding of each message, hence
the largest frame that an end will look at. What lacks a label or a bound, or states one that means nothing, does not
load.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from appliance.vchan import layout
from appliance.vchan.frame import frame_bytes
from appliance.vchan.layout import Orders

PACKAGE: Final = "septum.v1"


class SchemaError(Exception):
    """A .proto breaks the rules for schemas; the message says where and what to do."""


class Violation(ValueError):
    """A message breaks its schema: ``path`` is the field, with dots and indices, ``why`` what is wrong with it."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}" if path else why)
        self.path = path
        self.why = why


class Kind(Enum):
    """A stream carries ``forward`` one way; a call carries a ``forward`` request, then its ``backward`` reply."""

    STREAM = 1
    CALL = 2


class WhenFull(Enum):
    """What a full ring does to its producer: drop the message and count it, or wait with a deadline."""

    DROP = 1
    BLOCK = 2


def uvarint_bytes(value: int) -> int:
    """Bytes of a varint (protobuf encoding, "Base 128 Varints")."""
    return max(1, (value.bit_length() + 6) // 7)


_LARGEST: Final = {
    FieldDescriptor.TYPE_UINT32: (1 << 32) - 1,
    FieldDescriptor.TYPE_UINT64: (1 << 64) - 1,
    FieldDescriptor.TYPE_BOOL: 1,
    FieldDescriptor.TYPE_ENUM: (1 << 31) - 1,
}
_LENGTHS: Final = (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING)


@dataclass(frozen=True)
class FieldRule:
    """What one field may hold. ``low`` and ``high`` bound the value of an integer, enum or bool, else the bytes."""

    number: int
    name: str
    type: int  # FieldDescriptor.TYPE_*
    label: str | None  # None: a message, whose own fields have labels
    low: int
    high: int
    max_items: int | None  # None: not repeated
    has_presence: bool  # absent is different from zero or empty
    enum_values: frozenset[int] | None
    message: MessageRule | None

    def violation(self, value: Any) -> str | None:
        """Why ``value`` (of the field's type; a single item) may not stand here, or None."""
        if self.type in _LENGTHS:
            length = len(value.encode()) if isinstance(value, str) else len(value)
            if not self.low <= length <= self.high:
                return f"{length} bytes, not {self.low} to {self.high}"
        elif not self.low <= value <= self.high:
            return f"{value}, not {self.low} to {self.high}"
        elif self.enum_values is not None and value not in self.enum_values:
            return f"{value} is not declared"
        return None

    @property
    def max_bytes(self) -> int:
        """The longest legal encoding of the field, all its items and tags included."""
        tag = uvarint_bytes(self.number << 3)
        if self.message is not None:
            item = uvarint_bytes(self.message.max_bytes) + self.message.max_bytes
        elif self.type in _LENGTHS:
            item = uvarint_bytes(self.high) + self.high
        else:
            item = uvarint_bytes(self.high)
            if self.max_items is not None:  # packed
                return tag + uvarint_bytes(self.max_items * item) + self.max_items * item
        return (tag + item) * (1 if self.max_items is None else self.max_items)

    @property
    def labels(self) -> frozenset[str]:
        return self.message.labels if self.message is not None else frozenset({self.label or ""})


@dataclass(frozen=True)
class MessageRule:
    """What one message may hold."""

    name: str
    """Full protobuf name, as in ``septum.v1.Packets``."""
    message_class: type[Message]
    fields: tuple[FieldRule, ...]
    """In number order."""
    oneofs: tuple[str, ...]
    """Groups of fields of which exactly one must be set."""
    max_bytes: int
    """The largest legal encoding."""
    labels: frozenset[str] = field(init=False)
    """All labels of all fields, at any depth."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", frozenset().union(*(rule.labels for rule in self.fields)))

    def check(self, message: Message, path: str = "") -> None:
        """Errors: Violation at the first field that is unknown, out of bounds, or missing from its oneof."""
        unknown = UnknownFieldSet(message)
        if len(unknown):
            raise Violation(path.rstrip("."), f"unknown field {unknown[0].field_number}")
        for rule in self.fields:
            value = getattr(message, rule.name)
            if rule.max_items is not None:
                if len(value) > rule.max_items:
                    raise Violation(path + rule.name, f"{len(value)} items, not 0 to {rule.max_items}")
                for index, item in enumerate(value):
                    _check_one(rule, item, f"{path}{rule.name}[{index}]")
            elif not rule.has_presence or message.HasField(rule.name):
                _check_one(rule, value, path + rule.name)
        for oneof in self.oneofs:
            if message.WhichOneof(oneof) is None:
                raise Violation(path + oneof, "nothing is set")


def _check_one(rule: FieldRule, value: Any, path: str) -> None:
    if rule.message is not None:
        rule.message.check(value, path + ".")
        return
    why = rule.violation(value)
    if why is not None:
        raise Violation(path, why)


@dataclass(frozen=True)
class Schema:
    """The shape of a channel."""

    name: str
    kind: Kind
    when_full: WhenFull
    ring_order: int
    """log2 of the bytes of the ring that carries ``forward``."""
    forward: MessageRule
    backward: MessageRule | None
    """Calls only."""

    def __post_init__(self) -> None:
        try:
            layout.check(self.orders)
        except ValueError as error:
            raise SchemaError(f"{self.name}: {error}") from None
        largest = frame_bytes(self.forward.max_bytes)
        if largest > 1 << self.ring_order:
            raise SchemaError(
                f"{self.name}: a {self.forward.name} takes up to {largest} bytes, "
                f"a ring of order {self.ring_order} holds {1 << self.ring_order}: raise ring_order or lower the bounds"
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


# reading the options


def _options() -> Any:
    return importlib.import_module(f"{PACKAGE}.options_pb2")


_BOUNDS: Final = ("min_bytes", "max_bytes", "max_items", "min", "max")


def _allowed_bounds(descriptor: FieldDescriptor) -> set[str]:
    if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
        return {"max_items"}
    bounds = {"min_bytes", "max_bytes"} if descriptor.type in _LENGTHS else {"min", "max"}
    return bounds | ({"max_items"} if descriptor.is_repeated else set())


def _field_rule(descriptor: FieldDescriptor, within: tuple[str, ...]) -> FieldRule:
    where = descriptor.full_name

    def need(condition: Any, what: str) -> None:
        if not condition:
            raise SchemaError(f"{where}: {what}")

    options = _options()
    need(descriptor.GetOptions().HasExtension(options.rule), "has no (rule): give it a label and a bound")
    rule = descriptor.GetOptions().Extensions[options.rule]
    is_message = descriptor.type == FieldDescriptor.TYPE_MESSAGE
    need(
        is_message or descriptor.type in _LENGTHS or descriptor.type in _LARGEST,
        "has a type that schemas do not use: take uint32, uint64, bool, an enum, bytes, string or a message",
    )
    stray = [name for name in _BOUNDS if getattr(rule, name) and name not in _allowed_bounds(descriptor)]
    need(not stray, f"{', '.join(stray)} means nothing on a field of this type")
    need(bool(rule.label) != is_message, "needs a label" if not is_message else "is a message: its fields have labels")
    if descriptor.is_repeated:
        need(rule.max_items, "is repeated and needs max_items")
    elif is_message:
        need(rule.max_items == 1, "is a single message: max_items must be 1")
    low, high = 0, 0
    if descriptor.type in _LENGTHS:
        low, high = rule.min_bytes, rule.max_bytes
        need(high, "needs max_bytes")
    elif not is_message:
        low, high = rule.min, rule.max
        need(high, "needs max")
        need(high <= _LARGEST[descriptor.type], f"max {high} is more than its type holds")
    need(low <= high, f"no value is between {low} and {high}")
    enum = descriptor.enum_type
    return FieldRule(
        number=descriptor.number,
        name=descriptor.name,
        type=descriptor.type,
        label=options.Label.Name(rule.label) if rule.label else None,
        low=low,
        high=high,
        max_items=rule.max_items if descriptor.is_repeated else None,
        has_presence=descriptor.has_presence,
        enum_values=frozenset(enum.values_by_number) if enum is not None else None,
        message=_message_rule(descriptor.message_type, within) if descriptor.message_type is not None else None,
    )


def _message_rule(descriptor: Descriptor, within: tuple[str, ...] = ()) -> MessageRule:
    if descriptor.full_name in within:
        raise SchemaError(f"{descriptor.full_name}: contains itself, so it has no largest encoding")
    within = (*within, descriptor.full_name)
    by_number = sorted(descriptor.fields, key=lambda one: one.number)
    rules = {one.name: _field_rule(one, within) for one in by_number}
    alternatives = {rule.name for oneof in descriptor.oneofs for rule in oneof.fields}
    largest = sum(rule.max_bytes for rule in rules.values() if rule.name not in alternatives)
    largest += sum(max(rules[one.name].max_bytes for one in oneof.fields) for oneof in descriptor.oneofs)
    return MessageRule(
        name=descriptor.full_name,
        message_class=GetMessageClass(descriptor),
        fields=tuple(rules.values()),
        # An `optional` field is a oneof of its own, named after it with an underscore in front: that one may be unset.
        oneofs=tuple(oneof.name for oneof in descriptor.oneofs if not oneof.name.startswith("_")),
        max_bytes=largest,
    )


def read(name: str, file: FileDescriptor) -> Schema:
    """The schema that ``file`` describes.

    Errors: SchemaError.
    """

    def message(of: str) -> MessageRule:
        if of not in file.message_types_by_name:
            raise SchemaError(f"{name}: message {of!r} is not in this file")
        return _message_rule(file.message_types_by_name[of])

    options = _options()
    if not file.GetOptions().HasExtension(options.channel):
        raise SchemaError(f"{name}: has no option (channel)")
    channel = file.GetOptions().Extensions[options.channel]
    if not channel.kind or not channel.when_full:
        raise SchemaError(f"{name}: option (channel) needs kind and when_full")
    kind = Kind(channel.kind)
    if (kind is Kind.CALL) != bool(channel.backward):
        raise SchemaError(f"{name}: a call has a backward message, a stream has none")
    return Schema(
        name=name,
        kind=kind,
        when_full=WhenFull(channel.when_full),
        ring_order=channel.ring_order,
        forward=message(channel.forward),
        backward=message(channel.backward) if channel.backward else None,
    )


@cache
def schema(name: str) -> Schema:
    """The schema in ``septum/v1/<name>.proto``.

    Errors: SchemaError if there is none, or it breaks the rules.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SchemaError(f"{name!r} is not the name of a schema")
    try:
        module = importlib.import_module(f"{PACKAGE}.{name}_pb2")
    except ImportError as error:
        raise SchemaError(f"there is no schema {name!r} ({error})") from None
    return read(name, module.DESCRIPTOR)


def schema_names() -> Iterator[str]:
    """All schemas there are, in alphabetical order."""
    package = importlib.import_module(PACKAGE)
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return (name.removesuffix("_pb2") for name in modules if name.endswith("_pb2") and name != "options_pb2")
