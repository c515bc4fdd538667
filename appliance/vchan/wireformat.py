"""Varints of protobuf's wire format (protobuf encoding, "Base 128 Varints"), and what is said of a wrong message."""

from __future__ import annotations


class Violation(ValueError):
    """A message breaks its schema: ``path`` is the field, with dots and indices, ``why`` what is wrong with it."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}" if path else why)
        self.path = path
        self.why = why


def uvarint_bytes(value: int) -> int:
    """Bytes of a varint."""
    return max(1, (value.bit_length() + 6) // 7)


def uvarint(value: int) -> bytes:
    """The varint of ``value``, 0 or more."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_uvarint(untrusted: bytes, at: int) -> tuple[int, int]:
    """Value and end of the shortest varint of at most 64 bits at ``at``. Errors: Violation; IndexError at the end."""
    value = untrusted[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    shift = 7
    while True:
        at += 1
        byte = untrusted[at]
        if byte < 0x80:
            if not byte:
                raise Violation("", "varint longer than it need be")
            if shift == 63 and byte > 1:
                raise Violation("", "varint of more than 64 bits")
            return value | byte << shift, at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise Violation("", "varint of more than 64 bits")
