"""One UDP socket that moves groups: many datagrams of one size in one call of the kernel, both ways.

Linux: UDP_SEGMENT (GSO) to send, UDP_GRO to receive; see udp(7). A peer that sends one by one, or a device that does
not gather, is made up for here: what waits already is joined. What is left to do after the seal are `recvmsg` and
`sendmsg`; everything else happens in the constructor.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from struct import Struct
from typing import Final, NamedTuple

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

MOST_BYTES: Final = 65_535
MOST_DATAGRAMS: Final = 64  # in a group; the kernel's UDP_MAX_SEGMENTS
_SEGMENT: Final = Struct("=H")
_ANCILLARY: Final = socket.CMSG_SPACE(4)

# What befalls a datagram and not the socket: it is lost, as datagrams are
LOSSES: Final = frozenset(
    {
        errno.EACCES,
        errno.EADDRNOTAVAIL,
        errno.EAGAIN,
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.EINVAL,
        errno.EIO,
        errno.EMSGSIZE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EPERM,
    }
)


class Arrival(NamedTuple):
    """``size`` bytes a datagram but the last, from ``address`` (4 or 16 bytes) and ``port``.

    The view is overwritten by the next one.
    """

    untrusted: memoryview
    size: int
    address: bytes
    port: int


class _Read(NamedTuple):
    """What one call of the kernel gave: ``length`` bytes at ``at``."""

    at: int
    length: int
    size: int
    source: tuple[str, int]


_NOTHING: Final = Arrival(memoryview(b""), 0, b"", 0)
_LOST: Final = _Read(0, 0, 0, ("", 0))


class UdpSocket:
    """Wraps the bound UDP socket ``fd``: IPv4, or IPv6 with V6ONLY, so that no IPv4-mapped address ever appears.

    Whoever made it chose its buffers and set UDP_GRO; without, each datagram is a group of one. A limit: an address has
    no scope here, so a peer on an IPv6 link-local address cannot be answered. Errors: ValueError for another socket.
    """

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._family = self._socket.family
        if self._socket.type != socket.SOCK_DGRAM or self._family not in (socket.AF_INET, socket.AF_INET6):
            raise ValueError(f"descriptor {fd} is no UDP socket")
        if self._family == socket.AF_INET6 and not self._socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            raise ValueError(f"descriptor {fd} takes IPv4 too: make it with IPV6_V6ONLY")
        self._socket.setblocking(False)
        self.buffer = memoryview(bytearray(2 * MOST_BYTES))  # a group, and behind it what may belong to the next
        self._held: _Read | None = None  # read, and not of the group before it
        self.segments = True  # whether the kernel takes groups
        self.is_drained = False  # whether the last ``receive`` left nothing behind: what comes next is a new event

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    @property
    def address_bytes(self) -> int:
        """4 or 16."""
        return 4 if self._family == socket.AF_INET else 16

    def receive(self) -> Arrival | None:
        """The next datagrams from one source, as many as wait already and make a group; None if there are none now.

        Empty if something was lost: a group that the buffer cannot hold, an error about an earlier datagram. Errors:
        OSError if the socket itself is broken.
        """
        first, self._held = self._held, None
        self.is_drained = False
        if first is None:
            first = self._read(0)
            if first is None:
                return None
        if first.at:
            self.buffer[: first.length] = self.buffer[first.at : first.at + first.length]
        if not first.length:
            return _NOTHING
        end, size, source = first.length, first.size, first.source
        while end % size == 0 and end + size <= MOST_BYTES and end // size < MOST_DATAGRAMS:
            more = self._read(end)
            if more is None:
                self.is_drained = True
                break
            # A group of smaller ones is no shorter datagram, even if it is shorter
            joins = more.source == source and (more.size == size or more.size == more.length < size)
            if not more.length or not joins or end + more.length > min(MOST_BYTES, MOST_DATAGRAMS * size):
                self._held = more
                break
            end += more.length
        return Arrival(self.buffer[:end], size, socket.inet_pton(self._family, source[0]), source[1])

    def hold(self, length: int, size: int, address: bytes, port: int) -> None:
        """The short way has read so many bytes into ``buffer``, and left them."""
        self._held = _Read(0, length, size, (socket.inet_ntop(self._family, address), port))

    def hold_loss(self, error: int = 0) -> None:
        """The same of something that was lost, with that errno. Errors: OSError if the socket itself is broken."""
        if error and error not in LOSSES:
            raise OSError(error, os.strerror(error))
        self._held = _LOST

    def _read(self, at: int) -> _Read | None:
        """One call of the kernel, into the buffer from ``at``; None if nothing waits, a count of 0 if it was lost."""
        try:
            count, ancillary, flags, source = self._socket.recvmsg_into([self.buffer[at : at + MOST_BYTES]], _ANCILLARY)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            if error.errno in LOSSES:
                return _LOST
            raise
        if flags & socket.MSG_TRUNC:
            return _LOST
        size = count
        for level, kind, data in ancillary:
            if level == SOL_UDP and kind == UDP_GRO:
                size = min(count, int.from_bytes(data, sys.byteorder))
        return _Read(at, count, size, source[:2])

    def send(self, datagrams: memoryview, size: int, address: bytes, port: int) -> int:
        """Sends a group, in one call if the kernel takes it. Returns how many datagrams it took.

        ``address`` must be of the socket's family. Errors: OSError if the socket itself is broken.
        """
        target = (socket.inet_ntop(self._family, address), port)
        count = -(-len(datagrams) // size)
        if count > 1 and self.segments:
            refused = self._send(datagrams, [(SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(size))], target)
            if not refused:
                return count
            if refused == errno.EIO:  # a device without checksum offload: it will not change its mind
                self.segments = False
            elif refused not in (errno.EINVAL, errno.EMSGSIZE):  # these: a segment is more than the path takes whole
                return 0
        sent = 0
        for start in range(0, len(datagrams), size):
            sent += not self._send(datagrams[start : start + size], [], target)
        return sent

    def _send(self, data: memoryview, ancillary: list[tuple[int, int, bytes]], target: tuple[str, int]) -> int:
        """0, or the number of the error that lost it."""
        try:
            self._socket.sendmsg([data], ancillary, 0, target)
        except OSError as error:
            if error.errno in LOSSES:
                return error.errno
            raise
        return 0
