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


class Frames(NamedTuple):
    """Ethernet frames that share the header ``link``: payloads of ``size`` bytes, back to back (the last may be
    shorter). ``link`` is destination and source address, the VLAN tags, and the type, or the length of an LLC frame.
    """

    payloads: bytes | bytearray | memoryview
    size: int
    link: bytes


FLAT: Final = MappingProxyType(
    {
        "septum.v1.Packets": Packets,
        "septum.v1.OuterPackets": Packets,
        "septum.v1.Datagrams": Datagrams,
        "septum.v1.Frames": Frames,
        "septum.v1.OuterFrames": Frames,
    }
)
"""Full name of the protobuf message -> its NamedTuple. What goes to or comes from the outside in clear has the form,
not the labels, of what the red side sends."""
