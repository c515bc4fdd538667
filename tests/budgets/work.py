"""The fixed trace: what each domain of the data path does for it, to be counted from outside.

    python -m tests.budgets.work LIST

What counts happens between a call of getppid and one of getpgrp, neither of which is called for anything else: strace
shows them, and callgrind can be told to begin at the one and to write what it counted at the other. LIST is written at
the end: the pieces of work, which turns each took, counted from 0, and how many packets that was for.

Everything comes out the same each time: hashes, keys, packets and the clock are fixed, and there is one thread.
"""

from __future__ import annotations

import base64
import gc
import itertools
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Each look at the clock finds it a microsecond later: whatever waits by the clock looks as often each time. It begins
# late, so that the kernel's own, by which the short way goes, never comes to the end of a lease
time.monotonic = itertools.count(1e9, 1e-6).__next__  # type: ignore[assignment]

import appliance.vchan.short  # noqa: E402, F401 - first, as boot.py does

from appliance.vchan.messages import Datagrams  # noqa: E402
from bench import trace  # noqa: E402
from components.crypto.sending import Sender  # noqa: E402
from components.filter.ruleset import encode  # noqa: E402
from tests.budgets.domain import Domain  # noqa: E402

# Name, read of a TUN, how many are there at once (the socket buffers of a default kernel hold them), how often that. A
# lone packet finds everybody asleep
KINDS = (("bulk", trace.superpacket, 3, 1), ("lone", trace.single, 1, 3))
WARM = 2  # times that all is done before it counts: caches are full then, the interpreter has adapted
MOST_TURNS = 64
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
OVERHEAD = 32  # of a datagram over its packet


class Turns:
    """Marks each turn for who counts from outside, and numbers it."""

    def __init__(self) -> None:
        self._number = 0

    def count(self, turn: Callable[[], None]) -> int:
        os.getppid()
        turn()
        os.getpgrp()
        self._number += 1
        return self._number - 1


@dataclass(frozen=True)
class Way:
    """One way through one domain: ``make`` makes of a read of a TUN what arrives there; ``take`` counts packets."""

    name: str
    domain: Domain
    outward: bool
    make: Callable[[bytes], Any]
    give: Callable[[list[Any]], object]
    take: Callable[[], int]

    def run(self, read: Callable[[bool], bytes], times: int, turns: Turns) -> tuple[int, list[int]]:
        """What ``times`` times the same traffic, there at once, comes to: its packets, and the turns they took."""
        data = read(self.outward)
        packets = left = times * packets_in([trace.group(data)])
        units = [self.make(data) for _ in range(times)]
        self.domain.settle()
        self.give(units)
        taken: list[int] = []
        for number in range(MOST_TURNS):
            if number:
                self.domain.wake()
            turn = turns.count(self.domain.turn)
            out = self.take()
            left -= out
            if number or out:  # the first may have been asleep, to be woken at its end: that sleep is not this work's
                taken.append(turn)
            if left <= 0:
                return packets, taken
        raise RuntimeError(f"{self.name}: {left} packets of {packets} did not come out in {MOST_TURNS} turns")


def packets_in(groups: list[Any]) -> int:
    return sum(-(-len(group[0]) // group.size) for group in groups)


def segments_in(reads: Iterable[bytes]) -> int:
    return sum(packets_in([trace.group(read)]) for read in reads)


def datagrams_in(reads: Iterable[bytes]) -> int:
    return sum(-(-len(read) // (trace.MTU + OVERHEAD)) for read in reads)


def arrivals(end: socket.socket) -> Iterator[bytes]:
    with suppress(BlockingIOError):
        while True:
            yield end.recv(1 << 17, socket.MSG_DONTWAIT)


def ways() -> list[Way]:
    """Every way of a packet through a domain, in the order of the map: out, then in."""
    sender = Sender(trace.MTU)
    for order in trace.send_orders():
        sender.order(order, 0.0)

    def seal(read: bytes) -> Datagrams:
        group = trace.group(read)
        (sealed,) = [*sender.seal(memoryview(group.packets), group.size, 0.0), *sender.rest()]
        return sealed._replace(datagrams=bytes(sealed.datagrams), port=wan.getsockname()[1])

    def into(domain: Domain, port: str) -> Callable[[list[Any]], object]:
        return lambda messages: domain.give(port, messages)

    def out_of(domain: Domain, port: str) -> Callable[[], int]:
        return lambda: packets_in(domain.take(port))

    # A socket that keeps the bounds of what is written into it is as good as a TUN
    lan, tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (lan, tun):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    # Over loopback a group stays one datagram for the kernel, if who receives takes groups
    wan, udp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for end in (wan, udp):
        end.setsockopt(SOL_UDP, UDP_GRO, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        end.bind(("127.0.0.1", 0))
    wan.connect(udp.getsockname())

    def onto_wan(groups: list[Datagrams]) -> None:
        for group in groups:
            wan.sendmsg([group.datagrams], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", group.size))])

    red = Domain("net", "red", devices={"tun": tun.detach()})
    filter_ = Domain("filter", "filter", {"ruleset": encode(trace.RULES)})
    for outward, packet in trace.handshake():
        filter_.give("red_in" if outward else "tunnel_in", [packet])
        filter_.settle()
        filter_.take("tunnel_out" if outward else "red_out")
    encrypt, decrypt = Domain("crypto", "encrypt"), Domain("crypto", "decrypt")
    encrypt.give("orders", trace.send_orders())
    decrypt.give("orders", trace.receive_orders())
    key = base64.b64encode(bytes(32)).decode()
    black = Domain("net", "black", {"public_key": key}, {"udp4": udp.detach()})
    return [
        Way("red, out", red, True, bytes, lambda reads: [lan.send(read) for read in reads], out_of(red, "plain_out")),
        Way("filter, out", filter_, True, trace.group, into(filter_, "red_in"), out_of(filter_, "tunnel_out")),
        Way("encrypt", encrypt, True, trace.group, into(encrypt, "plain"), out_of(encrypt, "sealed")),
        Way("black, out", black, True, seal, into(black, "departing"), lambda: datagrams_in(arrivals(wan))),
        Way("black, in", black, False, seal, onto_wan, out_of(black, "arrived")),
        Way("decrypt", decrypt, False, seal, into(decrypt, "sealed"), out_of(decrypt, "plain")),
        Way("filter, in", filter_, False, trace.group, into(filter_, "tunnel_in"), out_of(filter_, "red_out")),
        Way("red, in", red, False, trace.group, into(red, "plain_in"), lambda: segments_in(arrivals(lan))),
    ]


def main() -> None:
    turns, done, every = Turns(), [], ways()
    gc.collect()
    gc.freeze()  # as the loop does before it runs
    for way in every:
        for kind, read, at_once, repeats in KINDS:
            for _ in range(WARM):
                way.run(read, at_once, turns)
            runs = [way.run(read, at_once, turns) for _ in range(repeats)]
            packets, taken = sum(packets for packets, _ in runs), [turn for _, taken in runs for turn in taken]
            done.append({"name": f"{way.name}, {kind}", "packets": packets, "turns": taken})
    Path(sys.argv[1]).write_text(json.dumps(done))


if __name__ == "__main__":
    main()
