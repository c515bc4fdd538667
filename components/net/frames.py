"""Ethernet frames to groups and back: what an interface gives and takes by a packet socket with PACKET_VNET_HDR.

A frame is a *link* header - both addresses, up to two VLAN tags, the type or the length - and a payload. Superframes
that the interface has joined (GRO) or that another host's stack left to it (TSO) are cut as packets of the TUN are
(split.py); frames with the same link header go on as one group, and leave as superframes again (coalesce.py).

IEEE 802.3 clause 3 (frame, length or type, padding), IEEE 802.1Q clause 9 (tags), RFC 826 (ARP).
"""

from __future__ import annotations

from typing import Final

from appliance.vchan.messages import Frames, Packets
from components.net import virtio
from components.net.coalesce import coalesce
from components.net.groups import LARGEST, Grouper
from components.net.split import Malformed, cut

LONGEST: Final = LARGEST + 22  # bytes of a superframe: the largest IP packet behind the longest link header
MOST_TAGS: Final = 2

_ADDRESSES: Final = 12
_TAGS: Final = (b"\x81\x00", b"\x88\xa8")  # 802.1Q, 802.1ad
_IPV4: Final = b"\x08\x00"
_IPV6: Final = b"\x86\xdd"
_ARP: Final = b"\x08\x06"
_LONGEST_LLC: Final = 1500  # what is more is a type (IEEE 802.3 clause 3.2.6)


def unframe(read: memoryview, tag: bytes) -> tuple[bytes, list[tuple[bytes, int]]]:
    """The link header and the payloads in ``read`` (virtio_net_hdr and frame), as ``split`` has them.

    ``tag`` are the 4 bytes of the VLAN tag that the kernel has taken out of the frame, or nothing. Padding is left out
    where the frame says how long it is. Errors: Malformed.
    """
    flags, gso_type, _, gso_size, csum_start, csum_offset = virtio.HEADER.unpack_from(read)
    frame = bytes(read[virtio.HEADER.size :])
    at = _ADDRESSES
    for _ in range(MOST_TAGS - bool(tag)):
        if frame[at : at + 2] in _TAGS:
            at += 4
    start = at + 2
    if not 0 < len(frame) - start <= LARGEST:
        raise Malformed(f"a frame of {len(frame)} bytes")
    payload = frame[start : start + _length(frame, start)]
    link = b"".join((frame[:_ADDRESSES], tag, frame[_ADDRESSES:start]))
    return link, cut(payload, flags, gso_type, gso_size, csum_start - start, csum_offset)


def _length(frame: bytes, start: int) -> int:
    """How long the payload of ``frame`` from ``start`` on says it is; all there is if it does not say, or lies."""
    kind, room = frame[start - 2 : start], len(frame) - start
    said = room
    if kind == _IPV4 and room >= 20:
        said = int.from_bytes(frame[start + 2 : start + 4], "big")
    elif kind == _IPV6 and room >= 40:
        said = 40 + int.from_bytes(frame[start + 4 : start + 6], "big")
    elif kind == _ARP and room >= 8:
        said = 8 + 2 * (frame[start + 4] + frame[start + 5])
    elif (length := int.from_bytes(kind, "big")) <= _LONGEST_LLC:
        said = length
    return said if 0 < said <= room else room


class FrameGrouper:
    """Joins what was read in one turn into groups of frames: those of one link header keep their order."""

    def __init__(self) -> None:
        self._groupers: dict[bytes, Grouper] = {}

    def add(self, link: bytes, payloads: bytes, size: int) -> None:
        grouper = self._groupers.get(link)
        if grouper is None:
            grouper = self._groupers[link] = Grouper()
        grouper.add(payloads, size)

    def closed(self) -> list[Frames]:
        """The groups that nothing can join any more, once."""
        return [Frames(*group[:2], link) for link, grouper in self._groupers.items() for group in grouper.closed()]

    def all(self) -> list[Frames]:
        """What ``closed`` gives, and the groups that could still have grown."""
        groups = [Frames(*group[:2], link) for link, grouper in self._groupers.items() for group in grouper.all()]
        self._groupers.clear()
        return groups


class FrameWrites:
    """What to write for a group, each in pieces: virtio_net_hdr, link header, payload; and failed checksums."""

    __slots__ = ("bad", "buffers")

    def __init__(self, group: Frames, udp: bool) -> None:
        link = group.link
        self.bad = 0
        self.buffers: list[list[bytes | memoryview]]
        if link[-2:] in (_IPV4, _IPV6):
            writes = coalesce(Packets(group.payloads, group.size), udp)
            self.bad = writes.bad
            self.buffers = [_framed(link, memoryview(buffer)) for buffer in writes.buffers]
        else:
            self.buffers = alone(group)


def alone(group: Frames) -> list[list[bytes | memoryview]]:
    """The frames of a group one by one."""
    view = memoryview(group.payloads)
    return [[virtio.PLAIN, group.link, view[at : at + group.size]] for at in range(0, len(view), group.size)]


def _framed(link: bytes, buffer: memoryview) -> list[bytes | memoryview]:
    """``buffer``, a packet behind its virtio_net_hdr, as a frame: all offsets count from the frame's first byte."""
    flags, gso_type, header, size, start, offset = virtio.HEADER.unpack_from(buffer)
    head = virtio.PLAIN
    if flags or gso_type:
        head = virtio.HEADER.pack(flags, gso_type, header + len(link), size, start + len(link), offset)
    return [head, link, buffer[virtio.HEADER.size :]]
