"""The few netlink requests that a guest with an interface makes before its seal: messages as bytes, and a socket.

Source: Linux, rtnetlink(7), <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h>. The process back end has
pyroute2 for what it finds on a host and must put back; here there is a bare kernel, an interface and a TUN.
"""

from __future__ import annotations

import _socket
import os
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Prefix = IPv4Network | IPv6Network

NEWLINK: Final = 16
NEWADDR: Final = 20
NEWROUTE: Final = 24

MTU: Final = 4  # IFLA_*
MASTER: Final = 10
TXQLEN: Final = 13
GSO_MAX_SEGS: Final = 40
GSO_MAX_SIZE: Final = 41
GRO_MAX_SIZE: Final = 58

_ERROR: Final = 2
_REQUEST: Final = 1
_ACK: Final = 4
_EXCL_CREATE: Final = 0x200 | 0x400
_IFF_UP: Final = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD: Final = 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_TABLE_MAIN: Final = 254
_PROTO_STATIC: Final = 4
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_UNICAST: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
_REPLY: Final = 8192


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def family(version: int) -> int:
    return int(_socket.AF_INET if version == 4 else _socket.AF_INET6)


def request(kind: int, body: bytes, flags: int = 0) -> bytes:
    """One message that is to be acknowledged."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body


def link_up(index: int, limits: dict[int, int]) -> bytes:
    """Sets ``limits`` (IFLA_* -> number) of interface ``index`` and brings it up."""
    body = struct.pack("=BxHiII", 0, 0, index, _IFF_UP, _IFF_UP)
    return request(NEWLINK, body + b"".join(_number(kind, value) for kind, value in limits.items()))


def address(index: int, own: Interface) -> bytes:
    """Gives interface ``index`` an address. Nobody else can have it: no duplicate is looked for."""
    scope = _SCOPE_LINK if own.ip.is_link_local else _SCOPE_UNIVERSE
    flags = _IFA_F_NODAD if own.version == 6 else 0
    body = struct.pack("=BBBBI", family(own.version), own.network.prefixlen, flags, scope, index)
    packed = own.ip.packed
    return request(NEWADDR, body + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed), _EXCL_CREATE)


def route(index: int, to: Prefix, gateway: Address | None = None) -> bytes:
    """A route by interface ``index``, through ``gateway`` if there is one."""
    scope = _SCOPE_UNIVERSE if gateway is not None or to.version == 6 else _SCOPE_LINK
    body = struct.pack(
        "=BBBBBBBBI",
        family(to.version),
        to.prefixlen,
        0,
        0,
        _TABLE_MAIN,
        _PROTO_STATIC,
        scope,
        _UNICAST,
        0,
    )
    body += _attribute(_RTA_DST, to.network_address.packed) + _number(_RTA_OIF, index)
    if gateway is not None:
        body += _attribute(_RTA_GATEWAY, gateway.packed)
    return request(NEWROUTE, body, _EXCL_CREATE)


class Rtnetlink:
    """A netlink socket. Errors: OSError, as the kernel refuses."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))

    def tell(self, message: bytes) -> None:
        """Sends ``message`` and waits for its acknowledgement."""
        self._socket.send(message)
        reply = self._socket.recv(_REPLY)
        _, kind, _, _, _ = _HEADER.unpack_from(reply)
        code = struct.unpack_from("=i", reply, _HEADER.size)[0] if kind == _ERROR else 0
        if code:
            raise OSError(-code, f"netlink: {os.strerror(-code)}")

    def close(self) -> None:
        self._socket.close()
