"""The shell around the xenstore's messages, over a FIFO in the place of the device."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from appliance.xen.xenstore import Xenstore
from appliance.xen.xswire import HEADER, Event, Kind


def test_a_flood_of_events_keeps_nobody_reading(tmp_path: Path) -> None:
    device = tmp_path / "xenbus"
    os.mkfifo(device)
    store = Xenstore(str(device))
    flooding = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(flooding, fcntl.F_SETPIPE_SZ, 1 << 20)
        payload = b"/local/domain/4/data/channel/5/ring-ref\0" + b"5\0"
        event = HEADER.pack(Kind.WATCH_EVENT, 0, 0, len(payload)) + payload
        many = 5000
        assert os.write(flooding, event * many) == len(event) * many
        goes = 1
        while store.hear():
            goes += 1
            assert goes < 10
        assert goes == 1 + len(event) * many // (1 << 16)  # 64 KiB at one go, and others have their turn
        assert list(store.events) == [Event("/local/domain/4/data/channel/5/ring-ref", "5")]
        assert store.hear() is False
    finally:
        store.close()
        os.close(flooding)
