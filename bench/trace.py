"""Fixed traffic: the groups and lone packets by which the work of the data path is counted and timed, made by hand."""

from __future__ import annotations

import socket
import struct
from typing import Final

from septum.v1.receiving import ReceiveOrder, ReceivePeer, ReceivePrefix, ReceiveSession
from septum.v1.sending import SendOrder, SendPeer, SendPrefix, SendSession

from appliance.vchan.messages import Packets
from components.filter.model import Action, Rule, RuleSet, Side, Tracking
from components.net import virtio
from components.net.checksum import MODULUS, total
from components.net.split import split

MTU: Final = 1420
NEAR, FAR = socket.inet_aton("10.1.0.2"), socket.inet_aton("10.2.0.2")
ENDPOINT: Final = (socket.inet_aton("127.0.0.1"), 51820)
RULES: Final = RuleSet(
    (
        Rule(Action.ALLOW, tracking=Tracking.ESTABLISHED | Tracking.RELATED),
        Rule(Action.ALLOW, sides=Side.RED),
        Rule(Action.ALLOW, sides=Side.TUNNEL),
    )
)
"""The filter lets everything through, by the rules that a box begins with and one more."""
_PREFIX: Final = (socket.inet_aton("10.0.0.0"), 8)
_KEY: Final = bytes(range(32))
_RECEIVER: Final = 77
_SEGMENTS: Final = 43  # the most packets of this MTU that leave the box in one UDP_SEGMENT send, a few bytes apart
_HEADERS: Final = 52  # IPv4, and TCP with timestamps


def _ip(length: int, protocol: int, source: bytes, destination: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 7, 0x4000, 64, protocol, 0, source, destination)
    return head[:10] + (-total(head) % MODULUS).to_bytes(2, "big") + head[12:]


def _pseudo(protocol: int, length: int, source: bytes, destination: bytes) -> int:
    return (total(source + destination) + protocol + length) % MODULUS


def superpacket(outward: bool = True) -> bytes:
    """What one read of a TUN gives of a bulk TCP transfer: a virtio_net_hdr, and 43 segments of 1420 bytes as one."""
    ends, ports = ((NEAR, FAR), (40000, 5201)) if outward else ((FAR, NEAR), (5201, 40000))
    data = bytes(range(256)) * 256
    payload = data[: _SEGMENTS * (MTU - _HEADERS)]
    length = 32 + len(payload)
    options = bytes((1, 1, 8, 10)) + struct.pack("!II", 7, 9)
    numbers = (1000, 2000) if outward else (2000, 1000)
    tcp = struct.pack("!HHIIBBHHH", *ports, *numbers, 8 << 4, 0x10, 501, _pseudo(6, length, *ends), 0) + options
    header = virtio.HEADER.pack(virtio.NEEDS_CSUM, virtio.GSO_TCPV4, _HEADERS, MTU - _HEADERS, 20, virtio.TCP_CHECK)
    return header + _ip(20 + length, 6, *ends) + tcp + payload


def handshake() -> list[tuple[bool, Packets]]:
    """How the connection of ``superpacket`` began: whether outward, and the packet."""
    made = []
    for outward, flags, numbers in ((True, 0x02, (999, 0)), (False, 0x12, (1999, 1000)), (True, 0x10, (1000, 2000))):
        ends, ports = ((NEAR, FAR), (40000, 5201)) if outward else ((FAR, NEAR), (5201, 40000))
        options = bytes((3, 3, 7, 0)) if flags & 0x02 else b""  # the scale of windows
        length = 20 + len(options)
        tcp = struct.pack("!HHIIBBHHH", *ports, *numbers, (length // 4) << 4, flags, 64240, 0, 0) + options
        check = -(total(tcp) + _pseudo(6, length, *ends)) % MODULUS
        packet = _ip(20 + length, 6, *ends) + tcp[:16] + check.to_bytes(2, "big") + tcp[18:]
        made.append((outward, Packets(packet, len(packet), int(not outward))))
    return made


def single(outward: bool = True) -> bytes:
    """What one read of a TUN gives of a lone UDP packet of 64 bytes of payload."""
    ends, ports = ((NEAR, FAR), (40001, 5202)) if outward else ((FAR, NEAR), (5202, 40001))
    payload = bytes(range(64))
    udp = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    check = -(total(udp) + _pseudo(17, len(udp), *ends)) % MODULUS
    return virtio.PLAIN + _ip(20 + len(udp), 17, *ends) + udp[:6] + check.to_bytes(2, "big") + udp[8:]


def group(read: bytes, peer: int = 0) -> Packets:
    """The packets of one read, as a message of the data path."""
    ((packets, size),) = split(memoryview(read))
    return Packets(packets, size, peer)


def send_orders() -> list[SendOrder]:
    """What encrypt must be told to seal this traffic."""
    address, port = ENDPOINT
    prefixes = [SendPrefix(address=_PREFIX[0], bits=_PREFIX[1])]
    session = SendSession(peer=1, session=5, receiver=_RECEIVER, key=_KEY, address=address, port=port)
    return [SendOrder(peer=SendPeer(peer=1, allowed_ips=prefixes, public_key=bytes(32))), SendOrder(session=session)]


def receive_orders() -> list[ReceiveOrder]:
    """What decrypt must be told to open it again."""
    prefixes = [ReceivePrefix(address=_PREFIX[0], bits=_PREFIX[1])]
    session = ReceiveSession(peer=1, session=_RECEIVER, key=_KEY)
    return [
        ReceiveOrder(peer=ReceivePeer(peer=1, allowed_ips=prefixes, public_key=bytes(32))),
        ReceiveOrder(session=session),
    ]
