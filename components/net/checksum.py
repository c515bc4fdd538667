"""The Internet checksum (RFC 1071), over whole buffers at once.

2^16 leaves 1 when divided by 65535, so the one's complement sum of a buffer's 16-bit words is the buffer, read as one
number, modulo 65535. Little-endian serves as well as big-endian (RFC 1071 section 2(B): only the bytes of the sum
change places), is read faster by CPython, and pads an odd byte by itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

MODULUS: Final = 0xFFFF

# Folds cut at multiples of 16 bits (so that the sum stays) and of 30 (CPython's digits, so that cutting is quick).
_CUT: Final = 240


@lru_cache(maxsize=4096)
def folds(length: int) -> tuple[tuple[int, int], ...]:
    """(shift, mask) pairs that shrink a number of ``length`` bytes by halves, keeping it the same modulo 65535.

    Dividing takes time by the digit, folding by the word: folded first, 1400 bytes are summed almost twice as fast.
    """
    bits = 8 * length
    steps = []
    while bits > 4 * _CUT:
        shift = -(-bits // (2 * _CUT)) * _CUT
        steps.append((shift, (1 << shift) - 1))
        bits = shift + 1
    return tuple(steps)


def total(data: bytes | bytearray | memoryview) -> int:
    """The sum of ``data`` modulo 65535, in big-endian words; 0 stands for 0x0000 and 0xFFFF alike."""
    number = int.from_bytes(data, "little")
    for shift, mask in folds(len(data)):
        number = (number >> shift) + (number & mask)
    return (number << 8) % MODULUS  # times 2^8 swaps the bytes of a word, modulo 65535
