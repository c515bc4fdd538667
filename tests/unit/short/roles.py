"""One way through each domain by which a lone message can go shortly: what warms it up, and what it is given then."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final, NamedTuple

from appliance.vchan.messages import Datagrams, Packets
from bench import trace
from components.filter.ruleset import encode
from tests.unit.crypto.wire import datagram
from tests.unit.short import orders as to
from tests.unit.short import traffic
from tests.unit.short.twins import Twins

KEY: Final = "A" * 43 + "="


class Role(NamedTuple):
    """``messages``: an endless supply of what goes shortly from the third one on, into ``inward`` (and ``outward``)."""

    pair: Twins
    inward: str
    outward: str
    messages: Iterator[Any]
    devices: tuple[Any, ...] = ()


def udp_packet(outward: bool, payload: int = 64) -> bytes:
    near, far = (traffic.NEAR4, traffic.FAR4) if outward else (traffic.FAR4, traffic.NEAR4)
    ports = (40001, 5202) if outward else (5202, 40001)
    head = b"".join(port.to_bytes(2, "big") for port in (*ports, 8 + payload, 0))
    return traffic.ip4(traffic.UDP, near, far, head + (bytes(range(256)) * 9)[:payload])


def lone(outward: bool, payload: int = 64) -> Packets:
    packet = udp_packet(outward, payload)
    return Packets(packet, len(packet), 0 if outward else 1)


def sealed(counter: int, receiver: int = 1, place: tuple[bytes, int] = to.PLACES[0], payload: int = 64) -> Datagrams:
    one = datagram(udp_packet(False, payload), counter, receiver, to.key(receiver))
    return Datagrams(one, len(one), *place)


def endless(make: Callable[[int], Any]) -> Iterator[Any]:
    return map(make, count())


def make_filter(outward: bool) -> Role:
    pair = Twins("filter", "filter", {"ruleset": encode(trace.RULES)})
    ports = ("red_in", "tunnel_out") if outward else ("tunnel_in", "red_out")
    return Role(pair, *ports, endless(lambda n: lone(outward, 20 + n % 100)))


def make_encrypt() -> Role:
    pair = Twins("crypto", "encrypt")
    pair.run("orders", [to.send_peer(1), to.send_session(1, 1)], ())
    return Role(pair, "plain", "sealed", endless(lambda n: lone(True, 20 + n % 100)))


def make_decrypt() -> Role:
    pair = Twins("crypto", "decrypt")
    pair.run("orders", [to.receive_peer(1), to.receive_session(1, 1)], ())
    return Role(pair, "sealed", "plain", endless(lambda n: sealed(n, payload=20 + n % 100)))


def make_red() -> Role:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    pair = Twins("net", "red", {}, ({"tun": pairs[0][1].detach()}, {"tun": pairs[1][1].detach()}))
    devices = tuple(one[0] for one in pairs)
    return Role(pair, "plain_in", "plain_out", endless(lambda n: lone(False, 20 + n % 100)), devices)


def make_black() -> Role:
    ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    for end in ends:
        end.bind(("127.0.0.1", 0))
    place = (socket.inet_aton("127.0.0.1"), ends[2].getsockname()[1])
    pair = Twins("net", "black", {"public_key": KEY}, ({"udp4": ends[0].detach()}, {"udp4": ends[1].detach()}))
    return Role(pair, "departing", "arrived", endless(lambda n: sealed(n, place=place)), (ends[2],))


ROLES: Final[dict[str, Callable[[], Role]]] = {
    "filter, out": lambda: make_filter(True),
    "filter, in": lambda: make_filter(False),
    "encrypt": make_encrypt,
    "decrypt": make_decrypt,
    "red": make_red,
    "black": make_black,
}
