"""Two pages between the monitor and the domain that speaks for the box: what it may tell, and what it may ask for.

*box*: the monitor writes, the domain can only read. u64 words, little-endian: a sequence that is odd while the rest is
being written (a seqlock), the length, then as many bytes of JSON from byte 16 on.

*orders*: the domain writes, the monitor reads 16 bytes and trusts nothing: how many orders were given so far, and for
the last of them the number of a domain, in the order in which the box lists them.
"""

from __future__ import annotations

from typing import Final

BOX_BYTES: Final = 256 << 10
ORDERS_BYTES: Final = 4096
_HEADER: Final = 16
_SEQUENCE, _LENGTH = 0, 1
_COUNT, _DOMAIN = 0, 1
_ATTEMPTS: Final = 16


def write(memory: memoryview, text: bytes) -> bool:
    """Shows ``text`` to whoever reads the page. False: it does not fit, and the page stays as it is."""
    if len(text) > len(memory) - _HEADER:
        return False
    words = memory[:_HEADER].cast("Q")
    sequence = words[_SEQUENCE] | 1
    words[_SEQUENCE] = sequence
    words[_LENGTH] = len(text)
    memory[_HEADER : _HEADER + len(text)] = text
    words[_SEQUENCE] = (sequence + 1) & 0xFFFF_FFFF_FFFF_FFFF
    return True


def read(memory: memoryview) -> tuple[int, bytes] | None:
    """The page's sequence and text; None if nothing was written yet, or it is being written over and over."""
    words = memory[:_HEADER].cast("Q")
    for _ in range(_ATTEMPTS):
        sequence, length = words[_SEQUENCE], words[_LENGTH]
        if sequence & 1 or not sequence or length > len(memory) - _HEADER:
            continue
        text = bytes(memory[_HEADER : _HEADER + length])
        if words[_SEQUENCE] == sequence:
            return sequence, text
    return None


def sequence(memory: memoryview) -> int:
    """Changes whenever the page does."""
    return memory[:8].cast("Q")[0]


def order(memory: memoryview, domain: int) -> None:
    """Asks for domain number ``domain`` to be built anew."""
    words = memory[:_HEADER].cast("Q")
    words[_DOMAIN] = domain
    words[_COUNT] = (words[_COUNT] + 1) & 0xFFFF_FFFF_FFFF_FFFF


def ordered(memory: memoryview) -> tuple[int, int]:
    """How many orders there were, and the domain of the last. Both are the other side's word."""
    words = bytes(memory[:_HEADER])
    return int.from_bytes(words[:8], "little"), int.from_bytes(words[8:], "little")
