"""Addresses, prefixes and endpoints as ``wg`` and ``ip`` read them: strictly, and with no scope."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_interface, ip_network
from typing import Final

from appliance.assembly.findings import show
from appliance.assembly.model import Address, Interface, Prefix

INTERFACE_NAME: Final = r"[a-zA-Z0-9_=+.-]{1,15}"
"""What wg-quick takes as the name of an interface; Linux has 15 bytes for it (IFNAMSIZ)."""

_SLASH: Final = re.compile(r"[^/%]+(/[0-9]{1,3})?")
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


def address(text: str) -> Address:
    """``10.0.0.1`` or ``fd00::1``. ValueError says what is wrong."""
    try:
        if "%" not in text:
            return ip_address(text)
    except ValueError:
        pass
    raise ValueError(f"{show(text)} is not an IP address")


def interface(text: str) -> Interface:
    """An address with the length of its prefix; without one the address stands alone (/32, /128). ValueError."""
    try:
        if _SLASH.fullmatch(text):
            return ip_interface(text)
    except ValueError:
        pass
    raise ValueError(f"{show(text)} is not an IP address with a prefix length, like 10.0.0.1/24 or fd00::1/64")


@lru_cache(maxsize=1 << 16)  # of a large file: each is read from the file, and again from the settings made of it
def prefix(text: str) -> Prefix:
    """A prefix; host bits are dropped, and without a length it is one address, as ``wg`` has it. ValueError."""
    try:
        if _SLASH.fullmatch(text):
            return ip_network(text, strict=False)
    except ValueError:
        pass
    raise ValueError(f"{show(text)} is not an IP prefix, like 10.0.0.0/24 or fd00::/64")


def endpoint(text: str) -> str:
    """``host:port``, ``1.2.3.4:port`` or ``[v6]:port`` in one spelling; host names stay names. ValueError."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed:
            raise ValueError(f"{show(text)} has no closing bracket")
        colon, port = rest[:1], rest[1:]
    else:
        # wg looks for the last colon, so an IPv6 address needs no brackets
        host, colon, port = text.rpartition(":")
    if colon != ":" or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{show(text)} does not end in a port, :1 to :65535")
    if "%" in host:
        raise ValueError(f"{show(text)} has a scope; an endpoint must be reachable without one")
    if ":" in host or text.startswith("["):
        try:
            return f"[{IPv6Address(host)}]:{int(port)}"
        except ValueError:
            raise ValueError(f"{show(text)} is not an IPv6 address and a port, like [2001:db8::1]:51820") from None
    if re.fullmatch(r"[0-9.]+", host):
        return f"{address(host)}:{int(port)}"
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise ValueError(f"{show(text)} does not begin with a host name or an address")
    return f"{host.lower()}:{int(port)}"


def service(text: str) -> tuple[str, int]:
    """An address of this host and a port, ``192.0.2.1:50051`` or ``[2001:db8::1]:50051``: no name. ValueError."""
    host, _, port = endpoint(text).rpartition(":")
    return str(address(host.strip("[]"))), int(port)
