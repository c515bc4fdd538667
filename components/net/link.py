"""One interface of a transparent bridge: Ethernet frames between the wire and the filter. Both faces of such a box are
this, and neither can reach the other but through the filter.
"""

from __future__ import annotations

import errno
from typing import Final

from appliance.guest.loop import Guest
from appliance.vchan.messages import Frames
from components.net import twin, virtio
from components.net.frames import FrameGrouper, FrameWrites, alone, unframe
from components.net.packetsocket import Lost, PacketSocket
from components.net.split import Malformed

READS: Final = 32  # of the socket, in one turn
_GSO_TYPE: Final = 1  # offset in a virtio_net_hdr


class Link:
    """Both directions of the interface."""

    def __init__(self, guest: Guest, device: str) -> None:
        self._log = guest.log
        self._socket = PacketSocket(guest.devices[device])
        self._out = guest.out("arrived")
        self._grouper = FrameGrouper()
        self._takes_uso = True  # until the kernel refuses a UDP superframe (before Linux 6.2)
        self._frames_in = guest.counter("frames_in")
        self._frames_out = guest.counter("frames_out")
        self._bytes_in = guest.counter("bytes_in")
        self._bytes_out = guest.counter("bytes_out")
        self._groups_in = guest.counter("groups_in")
        self._groups_out = guest.counter("groups_out")
        self._malformed = guest.counter("malformed")
        self._bad_checksum = guest.counter("bad_checksum")
        self._read_errors = guest.counter("read_errors")
        self._write_errors = guest.counter("write_errors")

    def arrived(self, now: float) -> bool:
        """The socket can be read: what waits there goes to the filter, in as few groups as its order allows."""
        for _ in range(READS):
            try:
                read = self._socket.read()
                if read is None:
                    self._send(self._grouper.all())
                    return False
                link, pairs = unframe(*read)
            except Lost:
                self._read_errors.add(1)
                continue
            except Malformed:
                self._malformed.add(1)
                continue
            for payloads, size in pairs:
                self._grouper.add(link, payloads, size)
            self._send(self._grouper.closed())
            if not self._out.room():
                return True  # the open groups stay for the next turn, which comes once there is room
        self._send(self._grouper.all())
        return True

    def _send(self, groups: list[Frames]) -> None:
        for group in groups:
            self._groups_in.add(1)
            self._frames_in.add(-(-len(group.payloads) // group.size))
            self._bytes_in.add(len(group.payloads))
            self._out.send(group)

    def depart(self, group: Frames, now: float) -> None:
        """A group from the filter: superframes to the interface where it makes some."""
        writes = FrameWrites(group, self._takes_uso)
        self._groups_out.add(1)
        self._frames_out.add(-(-len(group.payloads) // group.size))
        self._bytes_out.add(len(group.payloads))
        if writes.bad:
            self._bad_checksum.add(writes.bad)
        for pieces in writes.pieces:
            refusal = self._socket.write(pieces)
            if refusal == errno.EINVAL and pieces[0][_GSO_TYPE] == virtio.GSO_UDP_L4:
                self._without_uso(b"".join(pieces))
            elif refusal:
                self._write_errors.add(1)

    def _without_uso(self, superframe: bytes) -> None:
        """This kernel takes no UDP superframes: from now on, and for this one already, UDP goes frame by frame."""
        if self._takes_uso:
            self._takes_uso = False
            self._log.info("no-uso", "this kernel takes no UDP superframes: UDP is written frame by frame")
        link, pairs = unframe(memoryview(superframe), b"")
        for payloads, size in pairs:
            for pieces in alone(Frames(payloads, size, link)):
                if self._socket.write(pieces):
                    self._write_errors.add(1)


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    (device,) = guest.devices
    loops = "compiled" if twin.COMPILED else "pure Python: no compiler was there at install"
    guest.counter("compiled").set(twin.COMPILED)
    guest.on_open("log", lambda now: guest.log.info("loops", loops))
    link = Link(guest, device)
    guest.readable(device, link.arrived, into=(guest.out("arrived"),))
    guest.receive("departing", link.depart)
