"""The codec of structured messages: those of control, which are Python objects (message.py).

The wire format is protobuf's; the parser is stricter than protobuf's own, in the same way as that of the flat ones
(codec.py): fields in order of their numbers and each at most once, the items of a repeated one together and packed if
they are integers, shortest varints, no defaults spelled out, nothing unknown.
"""

from __future__ import annotations

from typing import Any, Final

from appliance.vchan.message import Message
from appliance.vchan.schema import LENGTHS, FieldRule, MessageRule, Type
from appliance.vchan.wireformat import Violation, read_uvarint, uvarint

_VARINT: Final = 0
_LENGTH: Final = 2
_KINDS: Final[dict[Type, tuple[Any, ...]]] = {Type.BYTES: (bytes, bytearray), Type.STRING: (str,)}
_SPELLED_OUT: Final = "zero or empty, and spelled out all the same"


class _Field:
    """One field: how an item of it is written and read. Paths in a Violation begin within the item."""

    def __init__(self, rule: FieldRule) -> None:
        self.name = rule.name
        self.max_items = rule.max_items
        self.has_presence = rule.has_presence
        self.nested = Structured(rule.message) if rule.message is not None else None
        self.is_packed = rule.max_items is not None and rule.type not in (*LENGTHS, Type.MESSAGE)
        is_varint = rule.type not in (*LENGTHS, Type.MESSAGE)
        self.tag = uvarint(rule.number << 3 | (_VARINT if is_varint and not self.is_packed else _LENGTH))
        self.is_varint = is_varint
        self._rule = rule
        self._kinds: Any = (rule.message.message_class,) if rule.message is not None else _KINDS.get(rule.type, (int,))
        # Why the field may not be left out, if it may not
        self.missing = None if self.nested is not None else rule.violation(0 if is_varint else b"")

    def _check(self, value: Any) -> None:
        why = self._rule.violation(value)
        if why is not None:
            raise Violation("", why)

    def put(self, value: Any, out: bytearray) -> None:
        """Appends one item, without a tag. Errors: Violation, TypeError."""
        if not isinstance(value, self._kinds):
            raise TypeError(f"{self.name} cannot be of type {type(value).__name__}")
        if self.is_varint:
            self._check(value)
            out += uvarint(value)
            return
        if self.nested is not None:
            piece = self.nested.encode(value)[0]
        else:
            piece = value.encode() if isinstance(value, str) else value
            self._check(piece)
        out += uvarint(len(piece))
        out += piece

    def take(self, untrusted: bytes, at: int, end: int) -> tuple[Any, int]:
        """The item at ``at``, behind its tag, and where it ends. Errors: Violation, IndexError."""
        value, at = read_uvarint(untrusted, at)
        if self.is_varint:
            self._check(value)
            return bool(value) if self._rule.type is Type.BOOL else value, at
        start, at = at, at + value
        if at > end:
            raise Violation("", f"{value} bytes, but only {end - start} are there")
        if self.nested is not None:
            return self.nested.take(untrusted, start, at), at
        found: Any = untrusted[start:at]
        self._check(found)
        if self._rule.type is Type.STRING:
            try:
                found = found.decode()
            except UnicodeDecodeError:
                raise Violation("", "is not UTF-8") from None
        return found, at


def _within(field: _Field, index: int | None, violation: Violation) -> Violation:
    path = field.name if index is None else f"{field.name}[{index}]"
    return Violation(f"{path}.{violation.path}" if violation.path else path, violation.why)


class Structured:
    """The codec of the messages of ``rule``."""

    def __init__(self, rule: MessageRule) -> None:
        self._rule = rule
        self._class = rule.message_class
        self._fields = tuple(_Field(one) for one in rule.fields)

    def encode(self, message: Any) -> tuple[bytes | bytearray]:
        """Errors: Violation; TypeError for another kind of message, or a field of another type."""
        if not isinstance(message, self._class):
            raise TypeError(f"a {self._rule.name} goes here, not a {type(message).__name__}")
        out = bytearray()
        self.put(message, out)
        return (out,)

    def decode(self, untrusted: bytes) -> Any:
        """Errors: Violation, and nothing else whatever the bytes."""
        if len(untrusted) > self._rule.max_bytes:
            raise Violation("", f"{len(untrusted)} bytes, at most {self._rule.max_bytes} are legal")
        try:
            return self.take(untrusted, 0, len(untrusted))
        except IndexError:
            raise Violation("", "ends in the middle of a field") from None

    def put(self, message: Message, out: bytearray) -> None:
        """Appends the encoding of ``message``."""
        for field in self._fields:
            index = None
            try:
                if field.max_items is not None:
                    items = getattr(message, field.name)
                    if len(items) > field.max_items:
                        raise Violation("", f"{len(items)} items, not 0 to {field.max_items}")
                    packed = bytearray()
                    for index, item in enumerate(items):  # noqa: B007 - an error says which
                        if not field.is_packed:
                            out += field.tag
                        field.put(item, packed if field.is_packed else out)
                    if packed:
                        out += field.tag + uvarint(len(packed)) + packed
                else:
                    value = getattr(message, field.name, None) if field.has_presence else getattr(message, field.name)
                    if value if not field.has_presence else value is not None:
                        out += field.tag
                        field.put(value, out)
                    elif not field.has_presence and field.missing is not None:
                        raise Violation("", field.missing)
            except Violation as violation:
                raise _within(field, index, violation) from None
        self._check_oneofs(
            [name for members in self._rule.oneofs.values() for name in members if hasattr(message, name)]
        )

    def take(self, untrusted: bytes, at: int, end: int) -> Message:
        """The message that is exactly ``untrusted[at:end]``."""
        values: dict[str, Any] = {}
        for field in self._fields:
            tag, index = field.tag, None
            try:
                if not untrusted.startswith(tag, at, end):
                    if field.max_items is None and not field.has_presence and field.missing is not None:
                        raise Violation("", field.missing)
                elif field.max_items is None:
                    value, at = field.take(untrusted, at + len(tag), end)
                    if not value and not field.has_presence:
                        raise Violation("", _SPELLED_OUT)
                    values[field.name] = value
                else:
                    items = values[field.name] = []
                    until = end
                    if field.is_packed:
                        length, at = read_uvarint(untrusted, at + len(tag))
                        until = at + length
                        if not length or until > end:
                            raise Violation("", f"{length} bytes of {end - at}" if length else _SPELLED_OUT)
                    while at < until and (field.is_packed or untrusted.startswith(tag, at, end)):
                        if len(items) == field.max_items:
                            index = None
                            raise Violation("", f"more than {field.max_items} items")
                        index = len(items)
                        item, at = field.take(untrusted, at if field.is_packed else at + len(tag), until)
                        items.append(item)
                    index = None
                    if field.is_packed and at != until:
                        raise Violation("", "ends in the middle of an item")
            except Violation as violation:
                raise _within(field, index, violation) from None
        if at != end:
            raise Violation("", f"unknown, repeated or misplaced field at byte {at}")
        self._check_oneofs(values)
        return self._class(**values)

    def _check_oneofs(self, present: Any) -> None:
        for oneof, members in self._rule.oneofs.items():
            count = sum(name in present for name in members)
            if count != 1:
                raise Violation(oneof, "more than one is set" if count else "nothing is set")
