"""A component in config's place: it hands every request that a test writes into its line to keymgr, and the reply back.

The domain is real: booted, sealed and supervised as every other.
"""

from __future__ import annotations

import os
from typing import Final

from appliance.guest.loop import Guest
from appliance.guest.ports import PeerClosed, PeerStalled
from appliance.vchan.codec import Codec
from appliance.vchan.schema import schema

LARGEST: Final = 1 << 17
AWAY: Final = b"\0"  # no message is this: keymgr did not answer


def build(guest: Guest) -> None:
    client, line = guest.client("commits"), guest.devices["line"]
    requests, replies = Codec(schema("applying").forward), Codec(schema("applying").backward)

    def readable(now: float) -> bool:
        try:
            asked = os.read(line, LARGEST)
        except BlockingIOError:
            return False
        if not asked:
            return False
        try:
            answer = b"".join(replies.encode(client.call(requests.decode(asked), deadline=2.0)))
        except (PeerClosed, PeerStalled):
            answer = AWAY
        os.write(line, answer)
        return True

    guest.readable("line", readable)
