"""What the box holds of the outside: TUN interfaces, UDP sockets, packet sockets, the store's file.

Each is opened once and lives as long as the box; a domain that is rebuilt gets the same one again. The functions open
in the network namespace that the caller is in.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple

# <linux/if_tun.h>
_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_IFF_TUN_EXCL: Final = 0x8000
_TUN_F_CSUM: Final = 0x01
_TUN_F_TSO: Final = 0x02 | 0x04 | 0x08  # TSO4, TSO6, TSO_ECN
_TUN_F_USO: Final = 0x20 | 0x40  # USO4, USO6: Linux 6.2

# struct virtio_net_hdr without num_buffers, before every packet read or written
VNET_HEADER: Final = 10

# <linux/udp.h>, <linux/in.h>, <asm/socket.h>
_UDP_GRO: Final = 104
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_DONT: Final = 0
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
SO_MARK: Final = 36

# <linux/if_packet.h>, <linux/if_ether.h>
_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP: Final = 1
_PACKET_AUXDATA: Final = 8
_PACKET_VNET_HDR: Final = 15
_PACKET_IGNORE_OUTGOING: Final = 23
_PACKET_MR_PROMISC: Final = 1
_MEMBERSHIP: Final = struct.Struct("=iHH8s")  # struct packet_mreq
ETH_P_ALL: Final = 0x0003

OUTER_TUN: Final = "outer0"  # in black's namespace, where there is nothing else but the outside's interface
_SOCKET_BUFFER: Final = 7 << 20  # bytes each way, as in-kernel and Go WireGuard have it: 5 ms at 10 Gbit/s
_PORT_ATTEMPTS: Final = 16
_UNCHANGING: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_MANAGEMENT_SILENCE: Final = 60_000  # milliseconds without an acknowledgement, after which a caller is gone
_MANAGEMENT_BACKLOG: Final = 64


class DeviceError(Exception):
    """A device cannot be had; the text says what to do."""


class Tun(NamedTuple):
    """An open TUN interface. ``has_uso``: UDP superpackets come through too."""

    fd: int
    has_uso: bool


class Udp(NamedTuple):
    """The sockets of black, both on ``port``. ``udp6`` is None where the host has no IPv6.

    ``notes`` say what was not to be had.
    """

    udp4: int
    udp6: int | None
    port: int
    notes: tuple[str, ...]


def open_tun(name: str) -> Tun:
    """Makes TUN interface ``name``, with virtio header and offloads. It is gone when the last holder closes it."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"/dev/net/tun: {error.strerror}: load the module (modprobe tun)") from None
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER))
        return Tun(fd, _offload(fd))
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EBUSY, errno.EINVAL):
            raise DeviceError(f"{name}: there is such an interface already: take it down first") from None
        if error.errno == errno.EPERM:
            raise DeviceError(f"{name}: not permitted to make an interface: run as root") from None
        raise DeviceError(f"{name}: {error.strerror}") from None


def _offload(fd: int) -> bool:
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO | _TUN_F_USO)
        return True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO)
        return False


def open_udp(listen_port: int, fwmark: int) -> Udp:
    """An IPv4 and an IPv6 socket on one port; ``listen_port`` 0 takes any that is free for both."""
    notes: list[str] = []
    for _ in range(_PORT_ATTEMPTS if listen_port == 0 else 1):
        udp4 = _socket(socket.AF_INET, listen_port, fwmark, notes)
        port = udp4.getsockname()[1]
        try:
            udp6 = _socket(socket.AF_INET6, port, fwmark, notes)
        except DeviceError:
            udp4.close()
            if listen_port:
                raise
            continue  # the port that was free for IPv4 is taken for IPv6: another one
        except OSError:
            notes.append("the host has no IPv6: the box speaks IPv4 to the outside")
            return Udp(udp4.detach(), None, port, tuple(dict.fromkeys(notes)))
        return Udp(udp4.detach(), udp6.detach(), port, tuple(dict.fromkeys(notes)))
    raise DeviceError("no UDP port is free for both IPv4 and IPv6: name one with ListenPort")


def _socket(family: socket.AddressFamily, port: int, fwmark: int, notes: list[str]) -> socket.socket:
    """Errors: OSError if there is no such family here, DeviceError for everything else."""
    udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        else:
            # As in-kernel WireGuard: the outer packet may be fragmented rather than lost on a path with a small MTU
            udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        udp.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        if fwmark:
            udp.setsockopt(socket.SOL_SOCKET, SO_MARK, fwmark)
        _enlarge(udp, notes)
        udp.bind(("", port))
        return udp
    except OSError as error:
        udp.close()
        if family == socket.AF_INET6 and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        if error.errno == errno.EADDRINUSE:
            raise DeviceError(f"UDP port {port} is in use: choose another ListenPort") from None
        raise DeviceError(f"UDP socket on port {port}: {error.strerror}") from None


def _enlarge(udp: socket.socket, notes: list[str]) -> None:
    """Large buffers; FORCE passes over the host's limit and needs CAP_NET_ADMIN in the initial user namespace."""
    for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            udp.setsockopt(socket.SOL_SOCKET, forced, _SOCKET_BUFFER)
        except PermissionError:
            udp.setsockopt(socket.SOL_SOCKET, plain, _SOCKET_BUFFER)
            size = udp.getsockopt(socket.SOL_SOCKET, plain) // 2  # the kernel doubles what it is asked for
            if size < _SOCKET_BUFFER:
                notes.append(
                    f"socket buffers are {size >> 10} KiB instead of {_SOCKET_BUFFER >> 10}: bursts may be lost "
                    "(raise net.core.rmem_max and net.core.wmem_max)"
                )


def open_link(notes: list[str]) -> int:
    """A packet socket for whole frames with virtio header and VLAN tags, bound to nothing: it hears nothing yet."""
    try:
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        raise DeviceError(f"packet socket: {error.strerror}: run as root (and modprobe af_packet)") from None
    try:
        for option in (_PACKET_VNET_HDR, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING):
            link.setsockopt(_SOL_PACKET, option, 1)
        _enlarge(link, notes)
    except OSError as error:
        link.close()
        raise DeviceError(f"packet socket: {error.strerror}: Linux 4.20 or later is needed") from None
    return link.detach()


def bind_link(fd: int, index: int, name: str) -> None:
    """Has the packet socket hear and speak on interface number ``index``, to whomever the frames there are addressed.

    Errors: OSError.
    """
    with socket.socket(fileno=os.dup(fd)) as link:
        membership = _MEMBERSHIP.pack(index, _PACKET_MR_PROMISC, 0, b"")
        link.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
        link.bind((name, ETH_P_ALL))


def open_management(address: str, port: int) -> int:
    """The socket at which administrators call. What is set here, the connections accepted from it have too."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = f"[{address}]:{port}" if family == socket.AF_INET6 else f"{address}:{port}"
    try:
        tcp = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise DeviceError(f"admin at {where}: {error.strerror}") from None
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _MANAGEMENT_SILENCE)
        tcp.bind((address, port))
        tcp.listen(_MANAGEMENT_BACKLOG)
        return tcp.detach()
    except OSError as error:
        tcp.close()
        remedy = "name an address of this host, and a port that is free, as admin in [network]"
        raise DeviceError(f"admin at {where}: {error.strerror}: {remedy}") from None


def open_identity(path: Path) -> int:
    """A sealed memfd with what is in ``path``, unread: the domain that gets it can neither change the file nor be
    surprised by it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DeviceError("this box is to be administered from elsewhere, and nobody has said by whom") from None
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror}") from None
    fd = os.memfd_create("septum-identity", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _UNCHANGING)
    return fd


def open_store(directory: Path) -> int:
    """The one file of the store domain, made if it is not there, readable by this user alone."""
    path = directory / "store"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror}") from None
