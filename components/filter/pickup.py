"""Picking up established connections after the table of flows was lost.

A filter that was rebuilt knows no flow, and denies what the tunnel sends in the middle of a connection. Had the red
host sent something, its next packet would open the flow again; but one that only receives has nothing to send. So the
filter asks it: the denied segment is answered with a *question* to the red host, the segment's headers without its
data and with a sequence number far in the past. A host that has the connection must answer such a segment with an ACK
(RFC 9293 section 3.10.7.4: "If an incoming segment is not acceptable, an acknowledgment should be sent in reply"),
which opens the flow again, from the red side; retransmission does the rest. A host that has no such connection answers
with a reset, which opens nothing and is denied. A red host that is closing sends nothing but its FIN, over and over,
which opens nothing either: it is asked in the same way. No byte of the tunnel's data passes before the red side has
spoken.
"""

from __future__ import annotations

from typing import Final

from components.filter.headers import ACK, TCP, Header
from components.filter.reject import checksum

_PAST: Final = 1 << 30  # the largest window (RFC 7323 section 2.3): what is that old is never acceptable
_PATIENCE: Final = 0.25  # seconds between two questions about one flow
_MOST: Final = 1024  # flows remembered as asked
_RATE: Final = 64.0  # questions a second
_BURST: Final = 256.0


class Pickup:
    """Questions to the red side, bounded in rate, so that the tunnel cannot make the filter shout."""

    def __init__(self) -> None:
        self._asked: dict[bytes, float] = {}
        self._tokens = _BURST
        self._filled = 0.0

    def may_ask(self, key: bytes, now: float) -> bool:
        """Whether to ask about that flow now; counts as asked if so."""
        if now < self._asked.get(key, 0.0):
            return False
        self._tokens = min(_BURST, self._tokens + (now - self._filled) * _RATE)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self._asked.pop(key, None)
        if len(self._asked) >= _MOST:
            del self._asked[next(iter(self._asked))]
        self._asked[key] = now + _PATIENCE
        return True


def turned_round(packet: bytes) -> bytes:
    """A whole TCP segment with plain headers, as if the other end had sent it: to ask the end that did."""
    at, width = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    start = at + 2 * width
    parts = (
        packet[:at],
        packet[at + width : start],
        packet[at : at + width],
        packet[start + 2 : start + 4],
        packet[start : start + 2],
        packet[start + 8 : start + 12],
        packet[start + 4 : start + 8],
        packet[start + 12 :],
    )
    return b"".join(parts)


def question(packet: bytes, header: Header) -> bytes:
    """The question for a whole TCP segment with plain headers."""
    is_4 = len(header.ends.source) == 4
    start = 20 if is_4 else 40
    length = 4 * (packet[start + 12] >> 4)
    asked = bytearray(packet[: start + length])
    sequence = int.from_bytes(asked[start + 4 : start + 8], "big")
    asked[start + 4 : start + 8] = ((sequence - _PAST) % 2**32).to_bytes(4, "big")
    asked[start + 13] = ACK
    if is_4:
        asked[2:4] = len(asked).to_bytes(2, "big")
        asked[10:12] = b"\0\0"
        asked[10:12] = checksum(asked[:20], 0)
    else:
        asked[4:6] = length.to_bytes(2, "big")
    asked[start + 16 : start + 18] = b"\0\0"
    asked[start + 16 : start + 18] = checksum(asked[12 if is_4 else 8 :], TCP + length)
    return bytes(asked)
