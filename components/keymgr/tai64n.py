"""TAI64N timestamps: what makes an initiation impossible to replay (section 5.1, 5.4.2).

A timestamp is 12 bytes, big-endian: 8 of seconds (TAI64), 4 of nanoseconds. As byte strings they sort by time. Ours
are rounded down to TIMESTAMP_GRANULE: a precise clock on the wire tells a stranger more than they need to know.
"""

from __future__ import annotations

from typing import Final

from components.keymgr.constants import TAI64_EPOCH, TIMESTAMP, TIMESTAMP_GRANULE

NEVER: Final = bytes(TIMESTAMP)  # before every timestamp
_SECOND: Final = 1_000_000_000


def _pack(seconds: int, nanoseconds: int) -> bytes:
    return seconds.to_bytes(8, "big") + nanoseconds.to_bytes(4, "big")


def stamp(wall: float) -> bytes:
    """The timestamp of ``wall`` (seconds since 1970, UTC), rounded down to a granule."""
    nanoseconds = int((wall % 1.0) * _SECOND)
    return _pack(TAI64_EPOCH + int(wall // 1), nanoseconds - nanoseconds % TIMESTAMP_GRANULE)


def after(last: bytes, nanoseconds: int = TIMESTAMP_GRANULE) -> bytes:
    """``last`` and ``nanoseconds`` more. ``last`` must be one of our own timestamps."""
    seconds, rest = divmod(int.from_bytes(last[8:], "big") + nanoseconds, _SECOND)
    return _pack(int.from_bytes(last[:8], "big") + seconds, rest)


def is_newer(untrusted_timestamp: bytes, last: bytes) -> bool:
    """Whether a peer's timestamp is strictly greater than the last one that it was accepted with (5.1)."""
    return len(untrusted_timestamp) == TIMESTAMP and untrusted_timestamp > last
