"""The one way to write a value down, so that equal values are equal bytes: JSON, keys sorted, no spaces, ASCII alone.

After RFC 8785 (JSON canonicalization), with less in it: texts, whole numbers, true and false, lists, tables. What was
signed is read by different programs at different times, and must mean the same to all of them.
"""

from __future__ import annotations

import json
from hashlib import blake2s
from typing import Any, Final

from appliance.signed.refusal import Refusal, Why

DIGEST: Final = 32
"""Bytes of what ``digest`` gives."""

LARGEST_INTEGER: Final = 2**53 - 1
"""What every reader of JSON can hold exactly (RFC 8259 section 6)."""


def encode(value: Any) -> bytes:
    """``value`` as canonical bytes. Errors: TypeError, ValueError for what has none (numbers with a point, None)."""
    _check(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _check(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{key!r} is no name")
            _check(key)
            _check(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner)
    elif isinstance(value, int):  # bool too
        if abs(value) > LARGEST_INTEGER:
            raise ValueError(f"{value} is too large for JSON")
    elif isinstance(value, str):
        value.encode()  # half a surrogate pair is text to JSON, and to nobody who is to write it down
    else:
        raise TypeError(f"{value!r} has no canonical form")


def decode(untrusted: bytes, most: int) -> Any:
    """What ``encode`` made these bytes of, ``most`` at most. Errors: Refusal (MALFORMED) for all others."""
    if len(untrusted) > most:
        raise Refusal(Why.MALFORMED, f"has {len(untrusted)} bytes, {most} at most")
    try:
        value = json.loads(untrusted)
        if encode(value) == untrusted:
            return value
    except (ValueError, TypeError, RecursionError) as error:
        raise Refusal(Why.MALFORMED, f"is not canonical JSON: {type(error).__name__}") from None
    raise Refusal(Why.MALFORMED, "is not canonical JSON: it says the same in another way than the one there is")


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE2s-256 (RFC 7693): what statements and sections are named by."""
    return blake2s(data).digest()
