"""One interface of a transparent bridge: Ethernet frames between the wire and the filter. Both faces of such a box are
this, and neither can reach the other but through the filter.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.guest.loop import Guest
from appliance.vchan.messages import Frames
from components.net.face import Face, Refused, is_uso, tell_loops
from components.net.frames import FrameGrouper, FrameWrites, alone, unframe
from components.net.packetsocket import Lost, PacketSocket

Pieces = list[bytes | memoryview]


class Link(Face[Frames, Pieces]):
    """Both directions of the interface."""

    def __init__(self, guest: Guest, device: str) -> None:
        grouper, wire = FrameGrouper(), PacketSocket(guest.devices[device])
        super().__init__(guest, "arrived", "frames", grouper, FrameWrites, wire.write)
        self._read, self._add = wire.read, grouper.add
        self._read_errors = guest.counter("read_errors")

    def _take(self) -> bool:
        try:
            read = self._read()
        except Lost:
            self._read_errors.add(1)
            raise Refused from None
        if read is None:
            return False
        link, pairs = unframe(*read)
        for payloads, size in pairs:
            self._add(link, payloads, size)
        return True

    def _is_uso(self, write: Pieces) -> bool:
        return is_uso(write[0])

    def _apart(self, write: Pieces) -> Iterable[Pieces]:
        link, pairs = unframe(memoryview(b"".join(write)), b"")
        for payloads, size in pairs:
            yield from alone(Frames(payloads, size, link))


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    (device,) = guest.devices
    tell_loops(guest)
    link = Link(guest, device)
    guest.readable(device, link.arrived, into=(guest.out("arrived"),))
    guest.receive("departing", link.depart)
