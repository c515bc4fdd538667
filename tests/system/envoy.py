"""A component in admin's place: whatever a test writes into its line goes to the domain that the first byte names, and
the reply comes back behind the four bytes that stood next, by which it is known. It is what a hostile admin can do at
most: say anything to those it is joined to, in any order.

The domain is real: booted, sealed and supervised as every other.
"""

from __future__ import annotations

import os
from typing import Any, Final

from appliance.guest.loop import Guest
from appliance.guest.ports import PeerClosed, PeerStalled
from appliance.vchan.codec import Codec
from appliance.vchan.schema import schema

LARGEST: Final = 1 << 17
AWAY: Final = b"\0"  # no reply is this: nobody answered
PORTS: Final = {b"c": ("config", "configuring"), b"k": ("keymgr", "peers"), b"f": ("filter", "counting")}


def codecs(name: str) -> tuple[Any, Any]:
    """Of what is asked and answered."""
    shape = schema(name)
    return Codec(shape.forward), Codec(shape.backward)


def build(guest: Guest) -> None:
    line = guest.devices["line"]
    ends = {byte: (guest.client(port), *codecs(name)) for byte, (port, name) in PORTS.items()}

    def readable(now: float) -> bool:
        try:
            asked = os.read(line, LARGEST)
        except BlockingIOError:
            return False
        if not asked:
            return False
        client, requests, replies = ends[asked[:1]]
        try:
            answer = b"".join(replies.encode(client.call(requests.decode(asked[5:]), deadline=1.5)))
        except (PeerClosed, PeerStalled):
            answer = AWAY
        os.write(line, asked[1:5] + answer)
        return True

    guest.readable("line", readable)
