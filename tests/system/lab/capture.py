"""What an eavesdropper on the WAN sees: dumpcap writes it down, we and tshark read it."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from .ends.end import wait_for
from .namespace import LabError, run, stop, tool
from .topology import BRIDGE, Lab

ETHERNET = 14
TRANSPORT = 4


class Datagram(NamedTuple):
    """One UDP datagram as it crossed the WAN; the payload is cut at the capture's length."""

    when: float
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    payload: bytes


class Other(NamedTuple):
    """A packet that is not UDP: `protocol` is the IP protocol number, or minus the Ethernet type."""

    when: float
    protocol: int


def read_pcap(raw: bytes) -> Iterator[tuple[float, bytes]]:
    """(seconds, frame) for every record of a pcap file in this machine's byte order, microseconds, Ethernet."""
    magic, *_, link = struct.unpack_from("<IHHiIII", raw)
    if magic != 0xA1B2C3D4 or link != 1:
        raise LabError(f"not a pcap of Ethernet: magic {magic:#x}, link type {link}")
    at = 24
    while at + 16 <= len(raw):
        seconds, micros, size, _ = struct.unpack_from("<IIII", raw, at)
        at += 16
        yield seconds + micros / 1e6, raw[at : at + size]
        at += size


def dissect(when: float, frame: bytes) -> Datagram | Other:
    kind = int.from_bytes(frame[12:14], "big")
    ip = frame[ETHERNET:]
    if kind == 0x0800:
        protocol, header, source, destination = ip[9], (ip[0] & 15) * 4, ip[12:16], ip[16:20]
    elif kind == 0x86DD:
        protocol, header, source, destination = ip[6], 40, ip[8:24], ip[24:40]
    else:
        return Other(when, -kind)
    if protocol != 17:
        return Other(when, protocol)
    source_port, destination_port = struct.unpack_from(">HH", ip, header)
    return Datagram(when, source, destination, source_port, destination_port, ip[header + 8 :])


class Capture:
    """dumpcap on the WAN's bridge, or another interface that sees every frame once, from entry to exit.

    `length` bytes of each frame are kept: 128 hold all of a handshake's type, index and the head of any plaintext.
    """

    def __init__(self, lab: Lab, length: int = 128, interface: str = BRIDGE) -> None:
        self._lab = lab
        self._interface = interface
        self._length = length
        self._directory = tempfile.TemporaryDirectory(prefix="septum-capture-")
        self.path = Path(self._directory.name) / "wan.pcap"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if not self._lab.plain_nic:
            raise LabError("with offloads on, a capture shows superpackets, not datagrams: use Lab(plain_nic=True)")
        # Not tcpdump: that wants to become another user, and in a user namespace there is none
        command = ["dumpcap", "-P", "-i", self._interface, "-w", str(self.path), "-s", str(self._length), "-B", "32"]
        self._process = self._lab.wan.start(*command, stderr=subprocess.PIPE)
        wait_for("dumpcap to open its file", lambda: self.path.exists() and self.path.stat().st_size >= 24)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the capture: before the tunnel's ends do, or their last words find nobody and ICMP says so."""
        process, self._process = self._process, None
        if process is not None:
            self._settle()
            stop(process)
            words = process.stderr.read() if process.stderr else ""
            if not re.search(r"received/dropped on interface .*: \d+/0 ", words):
                raise LabError(f"the capture is not complete: {words}")

    def _settle(self) -> None:
        """Waits until dumpcap has written all that it has seen: it may forget the rest when told to end."""
        size = -1
        while size != (size := self.path.stat().st_size):
            time.sleep(0.75)  # dumpcap looks every quarter of a second

    def remove(self) -> None:
        self._directory.cleanup()

    def frames(self) -> Iterator[Datagram | Other]:
        for when, frame in read_pcap(self.path.read_bytes()):
            yield dissect(when, frame)

    def datagrams(self) -> list[Datagram]:
        return [frame for frame in self.frames() if isinstance(frame, Datagram)]

    def contains(self, marker: bytes) -> int:
        """In how many frames the marker can be read."""
        return sum(marker in frame for _, frame in read_pcap(self.path.read_bytes()))

    def foreign(self) -> Counter[int]:
        """Packets that are neither UDP nor what every link needs (ARP, ICMPv6 neighbours, MLD), by protocol."""
        housekeeping = {-0x0806, 58, 0}
        others = (frame for frame in self.frames() if isinstance(frame, Other))
        return Counter(frame.protocol for frame in others if frame.protocol not in housekeeping)

    def repeated_nonces(self) -> dict[tuple[int, int], int]:
        """(receiver index, counter) pairs of transport packets that were sent more than once.

        A receiver index is chosen afresh at random for each session, so a pair seen twice means a nonce used twice.
        """
        seen = Counter(
            struct.unpack_from("<IQ", datagram.payload, 4)
            for datagram in self.datagrams()
            if datagram.payload[:4] == bytes([TRANSPORT, 0, 0, 0])
        )
        return {pair: times for pair, times in seen.items() if times > 1}

    def sessions(self) -> Counter[int]:
        """Transport packets by receiver index: one index a session and direction."""
        return Counter(
            struct.unpack_from("<I", datagram.payload, 4)[0]
            for datagram in self.datagrams()
            if datagram.payload[:4] == bytes([TRANSPORT, 0, 0, 0])
        )

    def tshark_names(self) -> Counter[str]:
        """What tshark calls the payload of every UDP datagram: {"wg": n} if all of them are WireGuard."""
        shown = run(
            tool("tshark"), "-r", str(self.path), "-n", "-Y", "udp && !icmp && !icmpv6",
            "-T", "fields", "-e", "frame.protocols", timeout=120,
        )  # fmt: skip
        return Counter(line.split(":")[-1] for line in shown.splitlines())
