"""`python -m tests.system.committer TIMES KEY PREFIX…`: one peer is added and removed so many times, each by a commit.

As `septumctl peers add --commit` and `remove --commit` make them. Prints the seconds that each took, as JSON.
"""

from __future__ import annotations

import base64
import json
import sys
import time

from appliance.ctl import changing, reach
from appliance.ctl.configuration import Configuration, free_number
from appliance.ctl.connection import Box
from appliance.signed.peers import PeerEntry

NAME = "guest"


def main() -> None:
    times, key, *prefixes = sys.argv[1:]
    public = base64.b64decode(key)

    def add(_: Box, before: Configuration) -> Configuration:
        guest = PeerEntry(free_number(before.peers), NAME, public, tuple(prefixes))
        return before._replace(peers=tuple(sorted((*before.peers, guest))))

    def remove(_: Box, before: Configuration) -> Configuration:
        return before._replace(peers=tuple(peer for peer in before.peers if peer.name != NAME))

    reach.chosen("", 60.0)
    took = []
    for n in range(int(times)):
        for edit in (add, remove):
            began = time.monotonic()
            changing.change(edit, f"guest {n}", True)
            took.append(time.monotonic() - began)
    print(json.dumps(took))


if __name__ == "__main__":
    main()
