"""The flat messages of the data path, without protobuf objects: on the wire they are the messages of the .proto files.

Fields are in number order and have their names. The first is the blob: a received one is a read-only memoryview over
the one copy that was made of it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, NamedTuple


class Packets(NamedTuple):
    """IP packets of ``size`` bytes each, back to back (the last may be shorter). ``peer`` is 0 from the red side."""

    packets: bytes | bytearray | memoryview
    size: int
    peer: int = 0


class Datagrams(NamedTuple):
    """UDP payloads of ``size`` bytes each (the last may be shorter). ``address`` is 4 or 16 bytes in network order."""

    datagrams: bytes | bytearray | memoryview
    size: int
    address: bytes
    port: int


FLAT: Final = MappingProxyType({"septum.v1.Packets": Packets, "septum.v1.Datagrams": Datagrams})
"""Full name of the protobuf message -> its NamedTuple."""
