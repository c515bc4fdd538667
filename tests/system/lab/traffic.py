"""Traffic between two namespaces, and what is measured on it."""

from __future__ import annotations

import json
import os
import re
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from .ends.end import wait_for
from .namespace import LabError, Namespace, family_of, stop

MARKER = b"SEPTUM-PLAINTEXT"  # 16 bytes: any 31 bytes cut out of a transfer contain it whole
BLOCK = MARKER * 4096
READ = 4 * len(BLOCK)
EXPECTED = MARKER * (READ // len(MARKER) + 1)
IPERF_PORT = 5201


@dataclass(frozen=True)
class Pings:
    """Round trips in microseconds."""

    sent: int
    times: list[float]

    @property
    def loss(self) -> float:
        return 1 - len(self.times) / self.sent if self.sent else 1.0

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def p99(self) -> float:
        return sorted(self.times)[min(len(self.times) - 1, int(len(self.times) * 0.99))]


def ping(source: Namespace, address: str, count: int = 3, interval: float = 0.2, patience: float = 2) -> Pings:
    """Echo requests from a namespace. Never raises for lost ones: ask `.loss`."""
    shown = source.run(
        "ping", "-n", "-c", str(count), "-i", str(interval), "-W", str(patience), address,
        check=False, timeout=count * interval + patience + 10,
    )  # fmt: skip
    sent = re.search(r"(\d+) packets transmitted", shown)
    return Pings(int(sent[1]) if sent else count, [float(ms) * 1000 for ms in re.findall(r"time=([\d.]+) ms", shown)])


def reaches(source: Namespace, address: str, seconds: float = 10, patience: float = 0.3) -> bool:
    """Whether one echo comes back within that time, and no later than ``patience`` seconds after it was asked for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ping(source, address, count=1, patience=patience).times:
            return True
    return False


ECHO_EVERY = 0.01  # seconds


def first_echo(source: Namespace, address: str, seconds: float) -> bool:
    """Whether an IPv4 echo comes back within that time. Asks every 10 ms, and returns as soon as one is there."""
    request = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1)
    checksum = 0xFFFF - sum(struct.unpack("!4H", request)) % 0xFFFF
    request = request[:2] + struct.pack("!H", checksum) + request[4:]
    deadline = time.monotonic() + seconds
    with source.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as echo:
        echo.settimeout(ECHO_EVERY)
        while (asked := time.monotonic()) < deadline:
            with suppress(OSError):  # no route yet, or an error that came back for the one before
                echo.sendto(request, (address, 0))
            while (left := asked + ECHO_EVERY - time.monotonic()) > 0:
                echo.settimeout(left)
                with suppress(OSError):
                    heard, (sender, _) = echo.recvfrom(2048)
                    if sender == address and heard[20:21] == b"\0" and heard[24:28] == request[4:8]:
                        return True
    return False


@contextmanager
def iperf_server(namespace: Namespace) -> Iterator[None]:
    server = namespace.start("iperf3", "-s")  # whoever keeps what it prints must read it, or it stops after 64 KiB
    try:
        listening = f":{IPERF_PORT} "
        wait_for("iperf3 to listen", lambda: listening in namespace.run("ss", "-Hltn"))
        yield
    finally:
        stop(server)


def iperf(client: Namespace, address: str, seconds: int, *options: str) -> Any:
    """iperf3's own JSON of one run against the server at `address`. Whole seconds: it takes half of one for ever."""
    command = ["iperf3", "-c", address, "-t", str(seconds), "-J", "--connect-timeout", "5000", *options]
    shown = client.run(*command, timeout=seconds + 20, check=False)
    try:
        result = json.loads(shown)
    except ValueError:
        raise LabError(f"{' '.join(command)}: {shown!r}") from None
    if "error" in result:
        raise LabError(f"{' '.join(command)}: {result['error']}")
    return result


def tcp_mbit(client: Namespace, address: str, seconds: int, streams: int = 1, reverse: bool = False) -> float:
    """Goodput in Mbit/s, as the receiver counted it."""
    options = ["-P", str(streams), *(["-R"] if reverse else [])]
    return float(iperf(client, address, seconds, *options)["end"]["sum_received"]["bits_per_second"]) / 1e6


def udp_loss(
    client: Namespace, address: str, seconds: int, packets_per_second: int, size: int = 64
) -> tuple[float, float]:
    """(fraction lost, packets a second sent) for UDP payloads of `size` bytes."""
    rate = packets_per_second * size * 8
    total = iperf(client, address, seconds, "-u", "-l", str(size), "-b", str(rate), "--pacing-timer", "200")["end"][
        "sum"
    ]
    return float(total["lost_percent"]) / 100, float(total["packets"]) / float(total["seconds"])


def connect(
    client: Namespace, server: Namespace, address: str, patience: float = 60
) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new TCP connection: the client's and the server's, that wait ``patience`` seconds for each other.

    Raises OSError if it cannot be made in 20 s.
    """
    family = family_of(address)
    near = client.socket(family)
    try:
        with server.socket(family) as listener:
            listener.bind((address, 0))
            listener.listen(1)
            near.settimeout(20)
            listener.settimeout(20)
            near.connect(listener.getsockname()[:2])
            far, _ = listener.accept()
    except OSError:
        near.close()
        raise
    near.settimeout(patience)
    far.settimeout(patience)
    return near, far


class Transfer:
    """One TCP connection that carries the marker, over and over, between two namespaces.

    `client` opens the connection to `address` in `server`; the bytes run from client to server, or with `reverse` the
    other way. `rate` bounds them, in bytes a second, given out `pace` times a second; None is as fast as it goes.
    `total` ends it by itself. It is given up when nothing has moved for `patience` seconds.
    The receiver notes when bytes arrive: `longest_silence` is the gap that a user of the connection would have felt.
    """

    def __init__(
        self,
        client: Namespace,
        server: Namespace,
        address: str,
        *,
        rate: float | None = None,
        total: int | None = None,
        reverse: bool = False,
        pace: int = 200,
        patience: float = 60,
    ) -> None:
        self.received = 0
        self.intact = True
        self.arrivals: list[float] = []
        self.error: OSError | None = None
        self._rate, self._total, self._pace = rate, total, pace
        self._stop = threading.Event()
        near, far = connect(client, server, address, patience)
        self._sender, self._receiver = (far, near) if reverse else (near, far)
        self.began = self.ended = time.monotonic()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        sent = 0
        chunk = len(BLOCK) if self._rate is None else max(16, min(len(BLOCK), int(self._rate / self._pace) // 16 * 16))
        try:
            while not self._stop.is_set() and (self._total is None or sent < self._total):
                self._sender.sendall(BLOCK[:chunk])
                sent += chunk
                if self._rate is not None:
                    time.sleep(max(0.0, self.began + sent / self._rate - time.monotonic()))
            self._sender.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = error

    def _receive(self) -> None:
        offset = 0
        try:
            while data := self._receiver.recv(READ):
                self.arrivals.append(time.monotonic())
                self.intact &= EXPECTED[offset : offset + len(data)] == data
                offset = (offset + len(data)) % 16
                self.received += len(data)
        except OSError as error:
            self.error = error
        self.ended = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if kind is None:
            self.finish()
        for end in (self._sender, self._receiver):
            end.close()

    def running(self) -> bool:
        return self.error is None and all(thread.is_alive() for thread in self._threads)

    def finish(self) -> None:
        """Ends the transfer in good order and waits for the last byte. Raises LabError if the connection was lost."""
        self._stop.set()
        self.wait()

    def wait(self, seconds: float = 90) -> None:
        for thread in self._threads:
            thread.join(seconds)
        self._sender.close()
        self._receiver.close()
        if self.error is not None:
            raise LabError(f"the connection was lost after {self.received} bytes: {self.error}")

    @property
    def mbit(self) -> float:
        return self.received * 8 / 1e6 / (self.ended - self.began)

    def longest_silence(self, since: float = 0, until: float = float("inf")) -> float:
        """Seconds of the longest gap between arrivals, one end of which lies in that span of time.monotonic()."""
        gaps = zip(self.arrivals, self.arrivals[1:], strict=False)
        return max((b - a for a, b in gaps if b >= since and a <= until), default=float("inf"))
