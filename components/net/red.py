"""The red face: plaintext between the TUN and the filter. See split.py and coalesce.py for what happens to it."""

from __future__ import annotations

import errno
from typing import Final

from appliance.guest.loop import Guest
from appliance.vchan.messages import Packets
from components.net import twin, virtio
from components.net.coalesce import coalesce
from components.net.groups import Grouper
from components.net.settings import RedSettings, parse
from components.net.split import Malformed, split
from components.net.tun import Tun

READS: Final = 32  # of the TUN, in one turn
_GSO_TYPE: Final = 1  # offset in a virtio_net_hdr


class Red:
    """Both directions of a TUN: what ``device`` gives goes out by ``port``."""

    def __init__(self, guest: Guest, settings: RedSettings, device: str = "tun", port: str = "plain_out") -> None:
        self._mtu = settings.mtu
        self._log = guest.log
        self._tun = Tun(guest.devices[device])
        self._out = guest.out(port)
        self._grouper = Grouper()
        self._takes_uso = True  # until the kernel refuses a UDP superpacket (before Linux 6.2)
        self._packets_in = guest.counter("packets_in")
        self._packets_out = guest.counter("packets_out")
        self._bytes_in = guest.counter("bytes_in")
        self._bytes_out = guest.counter("bytes_out")
        self._groups_in = guest.counter("groups_in")
        self._groups_out = guest.counter("groups_out")
        self._malformed = guest.counter("malformed")
        self._bad_checksum = guest.counter("bad_checksum")
        self._write_errors = guest.counter("write_errors")

    def arrived(self, now: float) -> bool:
        """The TUN can be read: what waits there goes to the filter, in as few groups as its order allows."""
        for _ in range(READS):
            read = self._tun.read()
            if read is None:
                self._send(self._grouper.all())
                return False
            try:
                pairs = split(read)
            except Malformed:
                self._malformed.add(1)
                continue
            for packets, size in pairs:
                if size > self._mtu:
                    self._malformed.add(1)
                else:
                    self._grouper.add(packets, size)
            self._send(self._grouper.closed())
            if not self._out.room():
                return True  # the open group stays for the next turn, which comes once there is room
        self._send(self._grouper.all())
        return True

    def _send(self, groups: list[Packets]) -> None:
        for group in groups:
            self._groups_in.add(1)
            self._packets_in.add(-(-len(group.packets) // group.size))
            self._bytes_in.add(len(group.packets))
            self._out.send(group)

    def depart(self, group: Packets, now: float) -> None:
        """A group from the filter: superpackets to the TUN where it makes some."""
        writes = coalesce(group, self._takes_uso)
        self._groups_out.add(1)
        self._packets_out.add(-(-len(group.packets) // group.size))
        self._bytes_out.add(len(group.packets))
        if writes.bad:
            self._bad_checksum.add(writes.bad)
        for buffer in writes.buffers:
            refusal = self._tun.write(buffer)
            if refusal == errno.EINVAL and buffer[_GSO_TYPE] == virtio.GSO_UDP_L4:
                self._without_uso(buffer)
            elif refusal:
                self._write_errors.add(1)

    def _without_uso(self, superpacket: bytes) -> None:
        """This kernel takes no UDP superpackets: from now on, and for this one already, its packets go one by one."""
        if self._takes_uso:
            self._takes_uso = False
            self._log.info("no-uso", "this kernel takes no UDP superpackets on a TUN: UDP is written packet by packet")
        for packets, size in split(memoryview(superpacket)):
            for at in range(0, len(packets), size):
                if self._tun.write(virtio.PLAIN + packets[at : at + size]):
                    self._write_errors.add(1)


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    settings = parse("red", guest.settings)
    assert isinstance(settings, RedSettings)
    guest.counter("compiled").set(twin.COMPILED)
    loops = "compiled" if twin.COMPILED else "pure Python: no compiler was there at install"
    guest.on_open("log", lambda now: guest.log.info("loops", loops))
    red = Red(guest, settings)
    guest.readable("tun", red.arrived, into=(guest.out("plain_out"),))
    guest.receive("plain_in", red.depart)
