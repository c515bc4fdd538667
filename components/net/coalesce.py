"""A group of packets -> as few writes to the TUN as it allows: see runs.py for how."""

from __future__ import annotations

from typing import NamedTuple

from appliance.vchan.messages import Packets
from components.net import twin


class Writes(NamedTuple):
    """What to write to the TUN in this order, each with its virtio_net_hdr, and how many packets failed a checksum."""

    buffers: list[bytes]
    bad: int


def coalesce(group: Packets, udp: bool) -> Writes:
    """The writes for ``group``; UDP is joined only if the TUN takes VIRTIO_NET_HDR_GSO_UDP_L4 (``udp``)."""
    return Writes(*twin.join(group.packets, group.size, udp))
