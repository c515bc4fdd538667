"""A laboratory: a small world of network namespaces in which tunnel ends of any make face each other."""

from .capture import Capture, Datagram
from .conf import Conf, Keys, PeerConf, endpoint, pair, preshared_key, star
from .ends import Direct, End, KernelWireguard, Managed, OpenVpn, Septum, WireguardGo
from .ends.end import cpu_seconds, own_kib, pss_kib, wait_for
from .namespace import LabError, Namespace
from .topology import Lab, Site
from .traffic import (
    BLOCK,
    MARKER,
    Pings,
    Transfer,
    first_echo,
    iperf_server,
    ping,
    reaches,
    tcp_mbit,
    udp_loss,
)

__all__ = [
    "BLOCK", "MARKER", "Capture", "Conf", "Datagram", "Direct", "End", "KernelWireguard", "Keys", "Lab", "LabError",
    "Managed", "Namespace", "OpenVpn", "PeerConf", "Pings", "Septum", "Site", "Transfer", "WireguardGo", "cpu_seconds",
    "endpoint", "first_echo", "iperf_server", "own_kib", "pair", "ping", "preshared_key", "pss_kib", "reaches", "star",
    "tcp_mbit", "udp_loss", "wait_for",
]  # fmt: skip
