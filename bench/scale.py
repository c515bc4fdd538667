"""How far it scales: handshakes a second on one core, and TCP with ten thousand peers against TCP with two.

    python -m bench.scale [--json FILE] [--rounds N]

``handshakes()`` is one run of the first measure; ``Crowd`` is one world of the second, for which there are two that
take turns: see ``tcp_ratios``.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from septum.v1.blobs import BLOB_ABSENT, BLOB_OK, BlobReply
from septum.v1.handshakes import Handshake
from septum.v1.random import RandomReply
from septum.v1.received import ReceiveReport

from appliance.guest.status import PeerRow, write_row
from appliance.vchan.codec import Codec
from appliance.vchan.schema import schema
from bench.farpeers import FarPeers
from components.keymgr.cookie import CookieJar
from components.keymgr.main import build
from components.keymgr.noise import NO_PSK, Initiator, PrivateKey
from components.keymgr.tai64n import stamp
from tests.system.lab import Conf, Keys, Lab, PeerConf, Septum, iperf_server, pair, tcp_mbit
from tests.system.lab.conf import PORT

# One core ------------------------------------------------------------------------------------------------------------

HANDSHAKES: Final = 1500
SHAKING_PEERS: Final = 500


class _Out:
    """Encodes what is sent, as the ring's writer would; ``last`` is the newest message of each kind."""

    is_open = True

    def __init__(self, name: str) -> None:
        self._encode = Codec(schema(name).forward).encode
        self.last: Any = None

    def send(self, message: Any) -> bool:
        self._encode(message)
        self.last = message
        return True

    def room(self) -> bool:
        return True


class _Client:
    is_open = True

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.call = answer


class _Guest:
    """As much of a guest as keymgr needs, without domains around it: what remains is keymgr's own work."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        names = {"handshakes_out": "handshakes", "encrypt_orders": "sending", "decrypt_orders": "receiving"}
        self.outs = {port: _Out(name) for port, name in names.items()}
        self._clients = {
            "random": _Client(lambda request: RandomReply(random=os.urandom(request.length))),
            "blobs": _Client(lambda request: BlobReply(status=BLOB_OK if request.blob else BLOB_ABSENT)),
        }
        self.out, self.client = self.outs.__getitem__, self._clients.__getitem__
        self.spread = lambda port: [self.outs[port]]  # one pair of crypto domains
        self.senders = lambda port: [port]
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.opened: list[Callable[[float], Any]] = []
        self._board = memoryview(bytearray(64 * len(settings["peers"])))
        self._records = _Out("records")
        self.log = self
        self.wall = time.time

    def info(self, event: str, text: str) -> None:
        pass  # what is written to the audit log depends on how many lines of that kind there were of late

    warning = error = info

    def counter(self, name: str) -> Self:
        return self

    def set(self, value: int) -> None:
        pass

    def show_peer(self, row: PeerRow) -> None:
        write_row(self._board, row)

    def is_joined(self, port: str) -> bool:
        return port in self.outs or port in self._clients

    def receive(self, port: str, handler: Callable[..., Any]) -> None:
        self.handlers[port] = handler

    def receive_many(self, port: str, handler: Callable[..., Any]) -> None:
        self.handlers[port] = partial(handler, port)

    def serve(self, port: str, handler: Callable[..., Any], share: float) -> None:
        pass  # nobody asks

    def on_open(self, port: str, handler: Callable[[float], Any], member: int = 0) -> None:
        self.opened.append(handler)

    def on_close(self, port: str, handler: Callable[[float], Any], member: int) -> None:
        pass

    def timer(self, handler: Callable[[float], float | None]) -> None:
        self.handlers["timer"] = handler


def _initiation(private: bytes, box: bytes, index: int) -> bytes:
    static = PrivateKey(private)
    initiator = Initiator(
        static, box, static.dh(box), psk=NO_PSK, ephemeral=os.urandom(32), index=index, timestamp=stamp(time.time())
    )
    return CookieJar(box).sign(initiator.body, 0.0)


def handshakes(count: int = HANDSHAKES) -> float:
    """Handshakes that keymgr's shell answers in a second of one core's time, as responder: from the bytes of an
    initiation on a channel to the session that the peer's first packet confirmed, all orders encoded.
    """
    own = Keys.generate()
    keys = [Keys.generate() for _ in range(SHAKING_PEERS)]
    peers = [{"public_key": one.public, "allowed_ips": [f"10.0.{n >> 8}.{n & 255}/32"]} for n, one in enumerate(keys)]
    guest = _Guest({"private_key": own.private, "peers": peers})
    build(guest)  # type: ignore[arg-type]
    for opened in guest.opened:
        opened(0.0)
    while (due := guest.handlers["timer"](0.0)) is not None and due <= 0.0:
        pass
    arriving, reports = (Codec(schema(name).forward) for name in ("handshakes", "received"))
    spent = 0.0
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        for n in range(count):
            number = n % SHAKING_PEERS
            now = 1.0 + n / 100
            private = base64.b64decode(keys[number].private)
            initiation = _initiation(private, base64.b64decode(own.public), n)
            came = b"".join(
                map(bytes, arriving.encode(Handshake(datagram=initiation, address=b"\1\2\3\4", port=1 + number)))
            )
            begun = time.process_time()
            guest.handlers["handshakes_in"](arriving.decode(came), now)
            spent += time.process_time() - begun
            session = guest.outs["decrypt_orders"].last.session
            report = ReceiveReport(
                peer=session.peer, session=session.session, packets=1, bytes=32, address=b"\1\2\3\4", port=1 + number
            )
            came = b"".join(map(bytes, reports.encode(report)))
            begun = time.process_time()
            guest.handlers["decrypt_reports"](reports.decode(came), now)
            guest.handlers["timer"](now)
            spent += time.process_time() - begun
            assert guest.outs["encrypt_orders"].last.session.session == session.session, "not every handshake was done"
    finally:
        os.sched_setaffinity(0, cpus)
    return count / spent


# Ten thousand peers --------------------------------------------------------------------------------------------------

CONFIGURED: Final = 10_000
ACTIVE: Final = 1000  # of them, the one at the far end of the TCP stream among them
PACKETS: Final = 200  # a second to the others, and as many back, however many they are
TCP_SECONDS: Final = 4
PLAYERS: Final = "203.0.113.9"  # in the WAN


def _inner(number: int) -> str:
    return f"10.{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


class Crowd:
    """A near end with ``configured`` peers, a far end to measure to, and ``active`` - 1 of the others with sessions.

    While it is entered, nothing flows; ``tcp`` measures while the LAN sends PACKETS a second to the others, in turn,
    which send each back.
    """

    def __init__(self, configured: int, active: int) -> None:
        self._configured, self._active = configured, active
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _build(self, stack: ExitStack) -> None:
        self.lab = stack.enter_context(Lab())
        left, right = pair(self.lab.left, self.lab.right)
        keys = [Keys.generate() for _ in range(self._active - 1)]
        public = [one.public for one in keys]
        # Any 32 bytes are a public key
        public += [base64.b64encode(os.urandom(32)).decode() for _ in range(self._configured - self._active)]
        others = [PeerConf(one, [f"{_inner(number)}/32"]) for number, one in enumerate(public)]
        near: Conf = replace(left, peers=[*left.peers, *others])
        stack.enter_context(Septum(self.lab.right, right, admit=True))
        self.near = stack.enter_context(Septum(self.lab.left, near))
        self.lab.wan.run("ip", "address", "add", f"{PLAYERS}/24", "dev", "br0")
        outside = self.lab.wan.socket(socket.AF_INET, socket.SOCK_DGRAM)
        outside.bind((PLAYERS, 0))
        self.players = FarPeers(keys, near.keys, outside, (self.lab.left.wan4, PORT))
        stack.callback(self.players.stop)
        self.players.shake()
        self.players.start()
        stack.enter_context(iperf_server(self.lab.right.host))

    def tcp(self) -> float:
        """Mbit/s of one TCP stream. Errors: LabError."""
        with self.lab.left.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as lan:
            stopped = threading.Event()

            def send() -> None:
                number = 0
                begun = time.monotonic()
                while not stopped.is_set():
                    for _ in range(max(0, int((time.monotonic() - begun) * PACKETS) - number)):
                        lan.sendto(bytes(100), (_inner(number % (self._active - 1)), 9))
                        number += 1
                    time.sleep(0.01)

            thread = threading.Thread(target=send)
            thread.start()
            try:
                return tcp_mbit(self.lab.left.host, self.lab.right.host4, TCP_SECONDS)
            finally:
                stopped.set()
                thread.join()


def tcp_ratios(rounds: int) -> Iterator[tuple[float, float]]:
    """Mbit/s with two peers, and with CONFIGURED of which ACTIVE are active, in turns. Errors: LabError."""
    with Crowd(2, 2) as few, Crowd(CONFIGURED, ACTIVE) as many:
        for number in range(rounds):
            order = (few, many) if number % 2 else (many, few)
            taken = {crowd: crowd.tcp() for crowd in order}
            yield taken[few], taken[many]


# The rows ------------------------------------------------------------------------------------------------------------

Row = dict[str, Any]


def row(runs: list[float], unit: str) -> Row:
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs), "runs": runs, "unit": unit}


def rows(rounds: int) -> dict[str, Row]:
    """{measure: {"median", "min", "max", "runs", "unit"}}; the ratios are of rounds, never of medians."""
    rates = [handshakes() for _ in range(rounds)]
    pairs = list(tcp_ratios(rounds))
    return {
        "handshakes_per_s": row(rates, "1/s"),
        "tcp1_two_peers": row([few for few, _ in pairs], "Mbit/s"),
        "tcp1_many_peers": row([many for _, many in pairs], "Mbit/s"),
        "tcp1_many_to_two": row([many / few for few, many in pairs], "ratio"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("The benchmark builds network namespaces. Run it by: tools/private .venv/bin/python -m bench.scale")
        return 1
    taken = rows(arguments.rounds)
    for name, one in taken.items():
        print(f"{name:18} {one['median']:8.5g} {one['unit']:8} {one['min']:.5g} to {one['max']:.5g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(taken, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
