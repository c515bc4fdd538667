"""The red face: plaintext between the TUN and the filter. See split.py and coalesce.py for what happens to it."""

from __future__ import annotations

from collections.abc import Iterable

from appliance.guest import shortly
from appliance.guest.loop import Guest
from appliance.vchan.messages import Packets
from components.net import virtio
from components.net.coalesce import coalesce
from components.net.face import Face, is_uso, tell_loops
from components.net.groups import Grouper
from components.net.settings import RedSettings, parse
from components.net.split import split
from components.net.tun import Tun


class Red(Face[Packets, bytes]):
    """Both directions of a TUN: what ``device`` gives goes out by ``port``."""

    def __init__(self, guest: Guest, settings: RedSettings, device: str = "tun", port: str = "plain_out") -> None:
        grouper, tun = Grouper(), Tun(guest.devices[device])
        super().__init__(guest, port, "packets", grouper, coalesce, tun.write)
        self._tun = tun
        self._read, self._add = tun.read, grouper.add
        self._mtu = settings.mtu

    def shorten(self, guest: Guest) -> None:
        """A lone packet goes the short way, where there is one."""
        short = shortly.module("components.net.short")
        inward, outward = guest.short_end("plain_in"), guest.short_end("plain_out")
        if short is not None and inward is not None and outward is not None:
            counters = [guest.counter(name) for name in ("groups_in", "packets_in", "bytes_in")]
            guest.shorten(short.FromTun(self._tun, outward, self._mtu, counters))
            counters = [guest.counter(name) for name in ("groups_out", "packets_out", "bytes_out")]
            guest.shorten(short.ToTun(self._tun.fd, inward, counters))

    def _take(self) -> bool:
        read = self._read()
        if read is None:
            return False
        for packets, size in split(read):
            if size > self._mtu:
                self._malformed.add(1)
            else:
                self._add(packets, size)
        return True

    def _is_uso(self, write: bytes) -> bool:
        return is_uso(write)

    def _apart(self, write: bytes) -> Iterable[bytes]:
        for packets, size in split(memoryview(write)):
            for at in range(0, len(packets), size):
                yield virtio.PLAIN + packets[at : at + size]


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    settings = parse("red", guest.settings)
    assert isinstance(settings, RedSettings)
    tell_loops(guest)
    red = Red(guest, settings)
    guest.readable("tun", red.arrived, into=(guest.out("plain_out"),))
    guest.receive("plain_in", red.depart)
    red.shorten(guest)
