"""The bounds that admin.proto declares, held against what a caller sent. Generic: the schema's options are the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from google.protobuf import message as protobuf
from google.protobuf import unknown_fields
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from septum.v1 import options_pb2

from components.admin.status import Code, RpcError

_WHOLE: Final = frozenset(
    {
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_ENUM,
    }
)


class _Rule(NamedTuple):
    field: FieldDescriptor
    is_repeated: bool
    is_message: bool
    is_bytes: bool
    is_whole: bool
    is_choice: bool  # of a oneof, which may hold another
    low: int
    high: int
    most_items: int


class Bounds:
    """What the fields of every message that a service takes may hold."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[_Rule, ...]] = {}

    def learn(self, kind: Descriptor) -> None:
        """Reads the rules of a kind of message, and of those within. Errors: ValueError if a field has no bound."""
        if kind.full_name in self._rules:
            return
        self._rules[kind.full_name] = tuple(_rule(field) for field in kind.fields)
        for field in kind.fields:
            if field.message_type is not None:
                self.learn(field.message_type)

    def check(self, untrusted: protobuf.Message) -> None:
        """Errors: RpcError (INVALID_ARGUMENT) with the path of the first field that is out of its bounds."""
        self._check(untrusted, "")

    def _check(self, untrusted: Any, path: str) -> None:
        if len(unknown_fields.UnknownFieldSet(untrusted)):
            # Whoever says more than this box knows means something by it, and would believe that it was done
            why = "has a field that this box does not know: its software is older than yours"
            raise RpcError(Code.INVALID_ARGUMENT, why, path=path or "(request)")
        for rule in self._rules[untrusted.DESCRIPTOR.full_name]:
            where = f"{path}.{rule.field.name}" if path else rule.field.name
            value = getattr(untrusted, rule.field.name)
            if rule.is_repeated:
                if len(value) > rule.most_items:
                    why = f"has {len(value)} items, {rule.most_items} at most"
                    raise RpcError(Code.INVALID_ARGUMENT, why, path=where)
                for i, item in enumerate(value):
                    self._one(rule, item, f"{where}[{i}]")
            elif not rule.is_message:
                if not rule.is_choice or untrusted.HasField(rule.field.name):
                    self._one(rule, value, where)
            elif untrusted.HasField(rule.field.name):
                self._check(value, where)

    def _one(self, rule: _Rule, value: Any, where: str) -> None:
        if rule.is_message:
            self._check(value, where)
        elif rule.is_whole:
            if not rule.low <= value <= rule.high:
                raise RpcError(Code.INVALID_ARGUMENT, f"must be in {rule.low} to {rule.high}, not {value}", path=where)
        elif rule.is_bytes:
            size = len(value.encode()) if isinstance(value, str) else len(value)
            if not rule.low <= size <= rule.high:
                span = f"{rule.low} to {rule.high}" if rule.low else f"at most {rule.high}"
                raise RpcError(Code.INVALID_ARGUMENT, f"must have {span} bytes, not {size}", path=where)


def _rule(field: FieldDescriptor) -> _Rule:
    said = field.GetOptions().Extensions[options_pb2.rule]
    is_bytes = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    is_whole = field.type in _WHOLE
    if (is_bytes and not said.max_bytes) or (is_whole and not said.max) or (field.is_repeated and not said.max_items):
        raise ValueError(f"{field.full_name} has no bound")
    low, high = (said.min_bytes, said.max_bytes) if is_bytes else (said.min, said.max)
    is_message = field.message_type is not None
    is_choice = field.containing_oneof is not None
    return _Rule(field, field.is_repeated, is_message, is_bytes, is_whole, is_choice, low, high, said.max_items)


def fields(kind: Descriptor) -> Iterator[FieldDescriptor]:
    """All fields of a message and of those within, for tests."""
    seen: set[str] = set()
    waiting = [kind]
    while waiting:
        one = waiting.pop()
        if one.full_name in seen:
            continue
        seen.add(one.full_name)
        for field in one.fields:
            yield field
            if field.message_type is not None:
                waiting.append(field.message_type)
