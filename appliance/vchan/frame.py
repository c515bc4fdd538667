"""Frames in the byte stream of a ring: u32 length, u32 serial, then ``length`` bytes of one message. Little-endian.

Serials count the frames of one direction from 0 in each session, modulo 2**32; a reply carries its request's serial.
A frame whose length exceeds the schema's largest message is refused before anything of it is copied.
"""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct("<II")
HEADER_BYTES: Final = HEADER.size


def frame_bytes(message_bytes: int) -> int:
    """Bytes that a message of ``message_bytes`` takes in a ring."""
    return HEADER_BYTES + message_bytes
