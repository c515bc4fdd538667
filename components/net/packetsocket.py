"""One interface, by a packet socket: whole frames behind a virtio_net_hdr, and the VLAN tags that the kernel took out.

packet(7): SOCK_RAW with PACKET_VNET_HDR, PACKET_AUXDATA and PACKET_IGNORE_OUTGOING, bound; whoever made it saw to that.
Frames are read with `recvmsg`, since nothing else tells the tag, and written with `writev`, which has no address: the
socket's own interface is where they go, and nowhere else.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from struct import Struct
from typing import Final

from components.net import virtio
from components.net.frames import LONGEST

SOL_PACKET: Final = 263
PACKET_AUXDATA: Final = 8
AUXDATA: Final = Struct("=IIIHHHH")  # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_TAG: Final = Struct("!HH")
_8021Q: Final = 0x8100
_VLAN_VALID: Final = 1 << 4
_TPID_VALID: Final = 1 << 6
_ANCILLARY: Final = socket.CMSG_SPACE(AUXDATA.size)

# The interface is down or gone for now, the queue is full, or the kernel finds the frame itself wanting
_REFUSALS: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EINVAL,
        errno.EIO,
        errno.EMSGSIZE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENXIO,
    }
)


class Lost(Exception):
    """Something was there and could not be had: a frame too long, or of a kind that the kernel cannot describe."""


class PacketSocket:
    """Wraps the socket ``fd``, non-blocking. Errors: ValueError for another kind of socket; OSError for what it cannot
    name.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._socket = socket.socket(fileno=fd)
        if self._socket.family != socket.AF_PACKET or self._socket.type != socket.SOCK_RAW:
            raise ValueError(f"descriptor {fd} is no packet socket for whole frames")
        self._socket.setblocking(False)
        self._buffer = memoryview(bytearray(virtio.HEADER.size + LONGEST + 1))

    def read(self) -> tuple[memoryview, bytes] | None:
        """The next frame, valid until the one after it, and its VLAN tag if it is not in there; None if nothing waits.

        Errors: Lost.
        """
        try:
            count, ancillary, flags, _ = self._socket.recvmsg_into([self._buffer], _ANCILLARY)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            raise Lost(os.strerror(error.errno or errno.EIO)) from None
        if flags & socket.MSG_TRUNC or count <= virtio.HEADER.size:
            raise Lost(f"{count} bytes")
        return self._buffer[:count], _tag(ancillary)

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Writes one frame or superframe with its virtio_net_hdr: 0, or the errno with which it was refused."""
        try:
            os.writev(self._fd, pieces)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            return error.errno or errno.EIO
        return 0


def _tag(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    for level, kind, data in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA and len(data) >= AUXDATA.size:
            status, _, _, _, _, control, said = AUXDATA.unpack_from(data)
            if status & _VLAN_VALID:
                return _TAG.pack(said if status & _TPID_VALID else _8021Q, control)
    return b""
