"""How long a packet stays in the core of each domain: called in this process, without a loop, a ring or a wake.

Run by stages.py, in an interpreter for each twin: which one is used is settled by what can be imported.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from appliance.vchan.messages import Datagrams, Packets
from bench import trace
from components.crypto.receiving import Receiver
from components.crypto.sending import Sender
from components.filter.settings import parse
from components.filter.verdict import Filter
from components.net.coalesce import coalesce
from components.net.split import split
from components.net.udp import SOL_UDP, UDP_GRO, UdpSocket

SECONDS: Final = 0.3  # for each figure


def microseconds(prepare: Callable[[], Any], work: Callable[[Any], object], packets: int) -> list[float]:
    """What ``work`` takes a packet with what ``prepare`` made for it, many times."""
    took: list[float] = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or len(took) < 50:
        made = prepare()
        began = time.perf_counter_ns()
        work(made)
        took.append((time.perf_counter_ns() - began) / 1000 / packets)
    return took[len(took) // 10 :]  # the first ones fill caches


def cores() -> dict[str, dict[str, list[float]]]:
    """{stage: {"bulk" or "lone": microseconds a packet}}, with whichever twins can be imported."""
    sender, receiver = Sender(trace.MTU), Receiver()
    for order in trace.send_orders():
        sender.order(order, 0.0)
    for received in trace.receive_orders():
        receiver.order(received, 0.0)
    filter_ = Filter(parse("filter", {"allow_from_tunnel": [{"protocol": "any"}]}))
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for one in sockets:
        one.setsockopt(SOL_UDP, UDP_GRO, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        one.bind(("127.0.0.1", 0))
    address, port = trace.ENDPOINT[0], sockets[1].getsockname()[1]
    near, far = (UdpSocket(one.detach()) for one in sockets)

    def seal(packets: memoryview, size: int) -> list[Datagrams]:
        return [*sender.seal(packets, size, 0.0), *sender.rest()]

    def sealed(group: Packets) -> Datagrams:
        (datagrams,) = seal(memoryview(group.packets), group.size)
        return datagrams._replace(datagrams=bytes(datagrams.datagrams))

    def send(made: Datagrams) -> None:
        near.send(memoryview(made.datagrams), made.size, address, port)

    def empty() -> None:
        while far.receive() is not None:
            pass

    def stages(read: Callable[[bool], bytes]) -> list[tuple[str, Callable[[], Any], Callable[[Any], object]]]:
        """Name, what makes something to work on, the work."""
        out = memoryview(read(True))
        outward, inward = trace.group(read(True)), trace.group(read(False), 1)

        def departing() -> Datagrams:
            while far.receive() is not None:
                pass
            return sealed(outward)

        return [
            ("red: split", lambda: out, split),
            ("filter, out", lambda: outward, lambda made: filter_.from_red(made, 0.0)),
            ("encrypt", lambda: memoryview(outward.packets), lambda made: seal(made, outward.size)),
            ("black: send", departing, send),
            ("black: receive", lambda: send(departing()), lambda _: far.receive()),
            (
                "decrypt",
                lambda: sealed(inward),
                lambda made: receiver.open(memoryview(made.datagrams), made.size, address, port, 0.0),
            ),
            ("filter, in", lambda: inward, lambda made: filter_.from_tunnel(made, 0.0)),
            ("red: coalesce", lambda: inward, lambda made: coalesce(made, True)),
        ]

    found: dict[str, dict[str, list[float]]] = {}
    for kind, read in (("bulk", trace.superpacket), ("lone", trace.single)):
        group = trace.group(read(True))
        packets = -(-len(group.packets) // group.size)
        for name, prepare, work in stages(read):
            found.setdefault(name, {})[kind] = microseconds(prepare, work, packets)
    return found


def main() -> None:
    print(json.dumps(cores()))
