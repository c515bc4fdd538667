"""Makes the Python of the schemas of what protoc made of them: ``python -m appliance.vchan.generate FOLDER``.

Called by `make proto`. What lacks a label or a bound, or states one that means nothing, is refused here.
Nothing else in the appliance imports protobuf's runtime, and no domain imports this.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

from appliance.vchan.schema import LENGTHS, PACKAGE, Kind, SchemaError, Type, WhenFull

_LARGEST: Final = {Type.UINT32: (1 << 32) - 1, Type.UINT64: (1 << 64) - 1, Type.BOOL: 1, Type.ENUM: (1 << 31) - 1}
_PYTHON: Final = {Type.BYTES: "bytes", Type.STRING: "str", Type.BOOL: "bool"}
_EMPTY: Final = {Type.BYTES: 'b""', Type.STRING: '""', Type.BOOL: "False"}
_BOUNDS: Final = ("min_bytes", "max_bytes", "max_items", "min", "max")

_HEAD: Final = '''"""Generated from {name}.proto by `make proto`. Do not edit."""

from typing import Final

from appliance.vchan.message import Message
from appliance.vchan.schema import FieldRule, Kind, MessageRule, Schema, Type, WhenFull
'''


def schema_names() -> Iterator[str]:
    """All schemas there are, in alphabetical order."""
    package = importlib.import_module(PACKAGE)
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return (name.removesuffix("_pb2") for name in modules if name.endswith("_pb2") and name != "options_pb2")


def _options() -> Any:
    return importlib.import_module(f"{PACKAGE}.options_pb2")


def _allowed_bounds(descriptor: FieldDescriptor) -> set[str]:
    if descriptor.type == Type.MESSAGE:
        return {"max_items"}
    bounds = {"min_bytes", "max_bytes"} if descriptor.type in LENGTHS else {"min", "max"}
    return bounds | ({"max_items"} if descriptor.is_repeated else set())


def _field_rule(descriptor: FieldDescriptor) -> str:
    """The source of the rule of one field. Errors: SchemaError."""
    where = descriptor.full_name

    def need(condition: Any, what: str) -> None:
        if not condition:
            raise SchemaError(f"{where}: {what}")

    options = _options()
    need(descriptor.GetOptions().HasExtension(options.rule), "has no (rule): give it a label and a bound")
    rule = descriptor.GetOptions().Extensions[options.rule]
    need(
        descriptor.type in set(Type),
        "has a type that schemas do not use: take uint32, uint64, bool, an enum, bytes, string or a message",
    )
    type_ = Type(descriptor.type)
    is_message = type_ is Type.MESSAGE
    stray = [name for name in _BOUNDS if getattr(rule, name) and name not in _allowed_bounds(descriptor)]
    need(not stray, f"{', '.join(stray)} means nothing on a field of this type")
    need(bool(rule.label) != is_message, "needs a label" if not is_message else "is a message: its fields have labels")
    if descriptor.is_repeated:
        need(rule.max_items, "is repeated and needs max_items")
    elif is_message:
        need(rule.max_items == 1, "is a single message: max_items must be 1")
    low, high = 0, 0
    if type_ in LENGTHS:
        low, high = rule.min_bytes, rule.max_bytes
        need(high, "needs max_bytes")
    elif not is_message:
        low, high = rule.min, rule.max
        need(high, "needs max")
        need(high <= _LARGEST[type_], f"max {high} is more than its type holds")
    need(low <= high, f"no value is between {low} and {high}")
    words = [
        repr(descriptor.number),
        f'"{descriptor.name}"',
        f"Type.{type_.name}",
        f'"{options.Label.Name(rule.label)}"' if rule.label else "None",
        repr(low),
        repr(high),
    ]
    if descriptor.is_repeated:
        words.append(f"max_items={rule.max_items}")
    elif descriptor.has_presence:
        words.append("has_presence=True")
    if descriptor.enum_type is not None:
        declared = ", ".join(map(str, sorted(descriptor.enum_type.values_by_number)))
        words.append(f"enum_values=frozenset({{{declared}}})")
    if descriptor.message_type is not None:
        words.append(f"message={_rule_name(descriptor.message_type)}")
    return f"FieldRule({', '.join(words)})"


def _rule_name(descriptor: Descriptor) -> str:
    return f"_{descriptor.name.upper()}"


def _oneofs(descriptor: Descriptor) -> dict[str, tuple[str, ...]]:
    # An `optional` field is a oneof of its own, named after it with an underscore in front: that one may be unset.
    return {
        oneof.name: tuple(field.name for field in oneof.fields)
        for oneof in descriptor.oneofs
        if not oneof.name.startswith("_")
    }


def _inner_first(descriptor: Descriptor, within: tuple[str, ...] = ()) -> Iterator[Descriptor]:
    """``descriptor`` and the messages in it, those that others contain before them."""
    if descriptor.full_name in within:
        raise SchemaError(f"{descriptor.full_name}: contains itself, so it has no largest encoding")
    for field in descriptor.fields:
        if field.message_type is not None:
            yield from _inner_first(field.message_type, (*within, descriptor.full_name))
    yield descriptor


def _class(descriptor: Descriptor) -> Iterator[str]:
    fields = sorted(descriptor.fields, key=lambda one: one.number)
    rules = [_field_rule(field) for field in fields]
    yield ""
    yield ""
    yield f"class {descriptor.name}(Message):"
    yield f"    __slots__ = {tuple(field.name for field in fields)!r}".replace("'", '"')
    oneofs = _oneofs(descriptor)
    if oneofs:
        yield f"    ONEOFS = {oneofs!r}".replace("'", '"')
    heads, body = [], []
    for field in fields:
        kind = _PYTHON.get(Type(field.type), "int")
        if field.message_type is not None:
            kind = field.message_type.name
        if field.is_repeated:
            kind = f"list[{kind}]"
            heads.append(f"{field.name}: {kind} | None = None")
            body.append(f"self.{field.name}: {kind} = [] if {field.name} is None else {field.name}")
        elif field.has_presence:
            heads.append(f"{field.name}: {kind} | None = None")
            body += [f"if {field.name} is not None:", f"    self.{field.name}: {kind} = {field.name}"]
        else:
            heads.append(f"{field.name}: {kind} = {_EMPTY.get(Type(field.type), '0')}")
            body.append(f"self.{field.name} = {field.name}")
    yield ""
    yield "    def __init__("
    yield "        self,"
    yield "        *,"
    yield from (f"        {head}," for head in heads)
    yield "    ) -> None:"
    yield from (f"        {line}" for line in body)
    yield ""
    yield ""
    yield f"{_rule_name(descriptor)}: Final = MessageRule("
    yield f'    "{descriptor.full_name}",'
    yield f"    {descriptor.name},"
    yield "    ("
    yield from (f"        {rule}," for rule in rules)
    yield "    ),"
    yield ")"


def _enum(descriptor: EnumDescriptor) -> Iterator[str]:
    yield ""
    yield from (f"{value.name}: Final = {value.number}" for value in descriptor.values)


def source(name: str, file: FileDescriptor) -> str:
    """The Python of the schema that ``file`` describes.

    Errors: SchemaError.
    """
    options = _options()
    if not file.GetOptions().HasExtension(options.channel):
        raise SchemaError(f"{name}: has no option (channel)")
    channel = file.GetOptions().Extensions[options.channel]
    if not channel.kind or not channel.when_full:
        raise SchemaError(f"{name}: option (channel) needs kind and when_full")
    kind = Kind(channel.kind)
    if (kind is Kind.CALL) != bool(channel.backward):
        raise SchemaError(f"{name}: a call has a backward message, a stream has none")
    carried = [channel.forward, *([channel.backward] if channel.backward else [])]
    messages: dict[str, Descriptor] = {}
    for of in carried:
        if of not in file.message_types_by_name:
            raise SchemaError(f"{name}: message {of!r} is not in this file")
        messages |= {one.name: one for one in _inner_first(file.message_types_by_name[of])}
    lines = [_HEAD.format(name=name).rstrip()]
    for enum in file.enum_types_by_name.values():
        lines += _enum(enum)
    for message in messages.values():
        lines += _class(message)
    rules = ", ".join(_rule_name(messages[of]) for of in carried)
    shape = f'"{name}", Kind.{kind.name}, WhenFull.{WhenFull(channel.when_full).name}, {channel.ring_order}, {rules}'
    lines += ["", "", f"SCHEMA: Final = Schema({shape})", ""]
    return "\n".join(lines)


def main() -> None:
    for name in schema_names():
        module = importlib.import_module(f"{PACKAGE}.{name}_pb2")
        Path(sys.argv[1], f"{name}.py").write_text(source(name, module.DESCRIPTOR))


if __name__ == "__main__":
    main()
