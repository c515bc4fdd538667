"""Tunnel ends, all alike from outside: stock ones to compare with and talk to, and Septum."""

from .direct import Direct
from .end import End
from .kernel import KernelWireguard
from .managed import Managed
from .openvpn import OpenVpn
from .septum import Septum
from .wireguard_go import WireguardGo

__all__ = ["Direct", "End", "KernelWireguard", "Managed", "OpenVpn", "Septum", "WireguardGo"]
