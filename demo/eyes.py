"""An eavesdropper on the WAN: reads every frame off the bridge and remembers what it could make of it."""

from __future__ import annotations

import fcntl
import socket
import struct
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.system.lab import MARKER, Datagram, Lab
from tests.system.lab.capture import dissect
from tests.system.lab.topology import BRIDGE

ETH_P_ALL = 3
SIOCGIFINDEX = 0x8933
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 263, 1, 1  # <linux/if_packet.h>
NAMES = {1: "handshake initiations", 2: "handshake responses", 3: "cookie replies", 4: "transport data"}


@dataclass
class Seen:
    """Frames by what they are; `readable` counts those in which the plaintext's marker stood."""

    by_type: dict[int, int] = field(default_factory=dict)
    foreign: int = 0
    readable: int = 0


class Eavesdropper:
    """Listens from entry to exit. A packet socket is all it takes: no capture program needed."""

    def __init__(self, lab: Lab) -> None:
        self.seen = Seen()
        self._socket = lab.wan.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind((BRIDGE, ETH_P_ALL))
        # A bridge shows what it merely passes on to those alone who ask for everything
        request = fcntl.ioctl(self._socket, SIOCGIFINDEX, struct.pack("16sI20x", BRIDGE.encode(), 0))
        wanted = request[16:20] + struct.pack("HH8x", PACKET_MR_PROMISC, 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, wanted)
        self._socket.settimeout(0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                frame = self._socket.recv(1 << 17)
            except TimeoutError:
                continue
            self._note(frame)

    def _note(self, frame: bytes) -> None:
        packet = dissect(0, frame)
        if not isinstance(packet, Datagram):
            self.seen.foreign += packet.protocol in (1, 6)
            return
        kind = packet.payload[0] if packet.payload[1:4] == bytes(3) else 0
        self.seen.by_type[kind] = self.seen.by_type.get(kind, 0) + 1
        self.seen.readable += MARKER in frame

    def words(self) -> str:
        return ", ".join(f"{count:,} {NAMES.get(kind, 'unknown')}" for kind, count in sorted(self.seen.by_type.items()))
