"""A component in the place of config, and of admin: it hands every request that a test writes into its line to keymgr,
and the reply back. The first byte of a request is the number of the port, in the order of PORTS.

The domain is real: booted, sealed and supervised as every other.
"""

from __future__ import annotations

import os
from typing import Final

from appliance.guest.loop import Guest
from appliance.guest.ports import PeerClosed, PeerStalled
from appliance.vchan.codec import Codec
from appliance.vchan.schema import schema

PORTS: Final = {"commits": "applying", "peers": "peers"}  # with their schemas
LARGEST: Final = 1 << 17
AWAY: Final = b"\0"  # no message is this: keymgr did not answer


def codecs(port: str) -> tuple[Codec, Codec]:
    """For the requests and the replies of a port."""
    shape = schema(PORTS[port])
    assert shape.backward is not None
    return Codec(shape.forward), Codec(shape.backward)


def build(guest: Guest) -> None:
    line = guest.devices["line"]
    clients = [(guest.client(port), *codecs(port)) for port in PORTS]

    def readable(now: float) -> bool:
        try:
            asked = os.read(line, LARGEST)
        except BlockingIOError:
            return False
        if not asked:
            return False
        client, requests, replies = clients[asked[0]]
        try:
            answer = b"".join(replies.encode(client.call(requests.decode(asked[1:]), deadline=2.0)))
        except (PeerClosed, PeerStalled):
            answer = AWAY
        os.write(line, answer)
        return True

    guest.readable("line", readable)
