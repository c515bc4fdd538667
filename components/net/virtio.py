"""struct virtio_net_hdr: what a TUN with IFF_VNET_HDR puts before every packet (linux/virtio_net.h).

Ten bytes in the machine's byte order: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
"""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct("=BBHHHH")
PLAIN: Final = bytes(HEADER.size)  # one whole packet, its checksum as it should be on a wire

NEEDS_CSUM: Final = 1  # the checksum field holds the sum of the pseudo-header alone

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80  # a bit beside the type: the first segment alone carries CWR

TCP: Final = 6
UDP: Final = 17
TCP_CHECK: Final = 16  # offset of the checksum in a TCP header
UDP_CHECK: Final = 6
