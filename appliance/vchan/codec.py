"""Bytes to message and back, with every check of the schema on both ways.

Messages of the data path are *flat*: one blob and a few small fields. They are written and read in protobuf's wire
format without a protobuf object: going out, the blob is handed to the ring as it is; coming in, it is a view of the one
copy made. The parser is stricter than protobuf's: each field at most once and in order, shortest varints, no defaults
spelled out, nothing unknown. All it takes, protobuf takes and means the same; all that protobuf writes, it takes.

All other messages are structured: see structured.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from appliance.vchan.messages import FLAT
from appliance.vchan.schema import FieldRule, MessageRule, SchemaError, Type
from appliance.vchan.structured import Structured
from appliance.vchan.wireformat import Violation, read_uvarint, uvarint

Buffer = bytes | bytearray | memoryview

_VARINT: Final = 0
_LENGTH: Final = 2
_REMEMBERED: Final = 4096  # ways in which the fields behind a blob were: a thousand active peers have some each
_INTEGERS: Final = (Type.UINT32, Type.UINT64)


class Codec:
    """Encodes and decodes the message of ``rule``.

    Errors: SchemaError if a flat message is not what messages.py says it is.
    """

    def __init__(self, rule: MessageRule) -> None:
        self.rule = rule
        flat = FLAT.get(rule.name)
        self.encode: Callable[[Any], tuple[Buffer, ...]]
        """``encode(message)``: the encoding in pieces, to be written one after the other.

        Errors: Violation (a ValueError) naming the field that breaks the schema; TypeError for another kind of message.
        """
        self.decode: Callable[[bytes], Any]
        """``decode(untrusted)``: the message in exactly these bytes, every bound checked.

        Errors: Violation, and nothing else whatever the bytes.
        """
        self.flat = None if flat is None else _Flat(rule, flat)
        codec = self.flat or Structured(rule)
        self.encode, self.decode = codec.encode, codec.decode


class _Flat:
    """The codec of one flat message."""

    def __init__(self, rule: MessageRule, flat: type[tuple[Any, ...]]) -> None:
        fields: tuple[str, ...] = getattr(flat, "_fields", ())
        if tuple(one.name for one in rule.fields) != fields:
            raise SchemaError(f"{rule.name}: its fields are not {fields}")
        if rule.fields[0].type != Type.BYTES or not all(map(self._is_plain, rule.fields)):
            raise SchemaError(f"{rule.name}: a flat message is one blob, then single integers and short bytes")
        self.flat = flat
        # (tag, is it bytes, low, high, name)
        plan = tuple((self._tag(one), self._is_bytes(one), one.low, one.high, one.name) for one in rule.fields)
        (tag, _, self.low, self.high, self._name), *rest = plan
        self._rest = tuple(rest)
        self.tag_of_blob = bytes((tag,))
        self.most = rule.max_bytes
        self._heads: dict[int, bytes] = {}  # tag and length of the blob
        self.tails: dict[tuple[Any, ...], bytes] = {}
        self.values: dict[bytes, tuple[Any, ...]] = {}

    @staticmethod
    def _is_bytes(field: FieldRule) -> bool:
        return field.type == Type.BYTES

    @staticmethod
    def _is_plain(field: FieldRule) -> bool:
        kinds = (Type.BYTES, *_INTEGERS)
        return field.type in kinds and field.max_items is None and not field.has_presence and field.number < 16

    @staticmethod
    def _tag(field: FieldRule) -> int:
        return field.number << 3 | (_LENGTH if field.type == Type.BYTES else _VARINT)

    def encode(self, message: Any) -> tuple[Buffer, ...]:
        if type(message) is not self.flat:
            raise TypeError(f"a {self.flat.__name__} goes here, not a {type(message).__name__}")
        blob, values = message[0], message[1:]
        if type(blob) is not bytes:
            blob = memoryview(blob)
            if blob.format != "B" or blob.ndim != 1:
                blob = blob.cast("B")
        tail = self.tails.get(values)
        if tail is None:
            tail = self._remember(self.tails, values, self._encode_tail(values))
        length = len(blob)
        if not self.low <= length <= self.high:
            raise Violation(self._name, f"{length} bytes, not {self.low} to {self.high}")
        if not length:  # proto3 leaves out what is empty
            return (tail,)
        head = self._heads.get(length)
        if head is None:
            head = self._remember(self._heads, length, self.tag_of_blob + uvarint(length))
        return head, blob, tail

    def _encode_tail(self, values: tuple[Any, ...]) -> bytes:
        """The fields behind the blob."""
        tail = bytearray()
        for value, (tag, is_bytes, low, high, name) in zip(values, self._rest, strict=True):
            if is_bytes:
                length = len(value)
                if not low <= length <= high:
                    raise Violation(name, f"{length} bytes, not {low} to {high}")
                if length:
                    tail.append(tag)
                    tail += uvarint(length)
                    tail += value
            else:
                if not low <= value <= high:
                    raise Violation(name, f"{value}, not {low} to {high}")
                if value:
                    tail.append(tag)
                    tail += uvarint(value)
        return bytes(tail)

    def decode(self, untrusted: bytes) -> Any:
        end = len(untrusted)
        if end > self.most:
            raise Violation("", f"{end} bytes, at most {self.most} are legal")
        start = length = 0
        if untrusted.startswith(self.tag_of_blob):
            try:
                length, start = read_uvarint(untrusted, 1)
            except IndexError:
                raise Violation("", "ends in the middle of a field") from None
            if not length:
                raise Violation(self._name, "zero or empty, and spelled out all the same")
        if not self.low <= length <= self.high:
            raise Violation(self._name, f"{length} bytes, not {self.low} to {self.high}")
        stop = start + length
        if stop > end:
            raise Violation(self._name, f"{length} bytes, but only {end - start} are there")
        untrusted_tail = untrusted[stop:]
        values = self.values.get(untrusted_tail)
        if values is None:
            values = self._remember(self.values, untrusted_tail, self._decode_tail(untrusted_tail, stop))
        return tuple.__new__(self.flat, (memoryview(untrusted)[start:stop], *values))

    def _decode_tail(self, untrusted: bytes, offset: int) -> tuple[Any, ...]:
        """The fields behind the blob, which end the message; ``offset`` is where in it they begin."""
        end = len(untrusted)
        values: list[Any] = []
        at = 0
        try:
            for tag, is_bytes, low, high, name in self._rest:
                if at < end and untrusted[at] == tag:
                    value, at = read_uvarint(untrusted, at + 1)
                    if not value:
                        raise Violation(name, "zero or empty, and spelled out all the same")
                else:
                    value = 0
                if not low <= value <= high:
                    raise Violation(name, f"{value}{' bytes' if is_bytes else ''}, not {low} to {high}")
                if is_bytes:
                    start, at = at, at + value
                    if at > end:
                        raise Violation(name, f"{value} bytes, but only {end - start} are there")
                    values.append(untrusted[start:at])
                else:
                    values.append(value)
        except IndexError:
            raise Violation("", "ends in the middle of a field") from None
        if at != end:
            raise Violation("", f"unknown, repeated or misplaced field at byte {offset + at}")
        return tuple(values)

    @staticmethod
    def _remember(known: dict[Any, Any], key: Any, value: Any) -> Any:
        """What was checked is remembered: the next message is most likely of the same size, from the same peer."""
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = value
        return value


__all__: Sequence[str] = ["Buffer", "Codec"]
