"""The plaintext interface: whole packets behind a virtio_net_hdr, read into one buffer that is used again and again."""

from __future__ import annotations

import errno
import os
from typing import Final

from components.net import virtio
from components.net.groups import LARGEST

# The interface is down or gone for now, the kernel is out of memory or queue, or it finds the packet itself wanting
_REFUSALS: Final = frozenset({errno.EIO, errno.EINVAL, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})


class Tun:
    """One queue of a TUN opened with IFF_NO_PI and IFF_VNET_HDR, non-blocking.

    Errors: OSError for what it cannot name.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)
        self.buffer = memoryview(bytearray(virtio.HEADER.size + LARGEST + 1))
        self.held = 0  # bytes in ``buffer`` that the short way has read and left
        self._vector = [self.buffer]

    def read(self) -> memoryview | None:
        """The next read, valid until the one after it; None if nothing waits."""
        if self.held:
            length, self.held = self.held, 0
            return self.buffer[:length]
        try:
            return self.buffer[: os.readv(self.fd, self._vector)]
        except BlockingIOError:
            return None

    def write(self, buffer: bytes) -> int:
        """Writes one packet or superpacket with its virtio_net_hdr: 0, or the errno with which it was refused."""
        try:
            os.write(self.fd, buffer)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            return error.errno or errno.EIO
        return 0
