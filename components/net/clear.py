"""The face to the outside of what needs no tunnel: IP packets between the filter and a TUN beside the outside's
interface, from where the kernel of that namespace routes them. It does what red does, on the filter's other side.
"""

from __future__ import annotations

from appliance.guest.loop import Guest
from components.net.face import tell_loops
from components.net.red import Red
from components.net.settings import RedSettings, parse


def build(guest: Guest) -> None:
    """Ports in, ports out."""
    settings = parse("clear", guest.settings)
    assert isinstance(settings, RedSettings)
    tell_loops(guest)
    face = Red(guest, settings, "outer_tun", "arrived")
    guest.readable("outer_tun", face.arrived, into=(guest.out("arrived"),))
    guest.receive("departing", face.depart)
