"""Settings of the filter: ``allow_from_tunnel``, a list of rules; ``shards``, which the assembly fills in."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final, NamedTuple

from appliance.guest.settings import SettingsError, Table
from components.filter.headers import ICMP, ICMPV6, TCP, UDP
from components.filter.model import Prefix
from components.filter.rules import PROTOCOLS, Rule

_MOST_RULES: Final = 1024
_MOST_RANGES: Final = 64
_MOST_SHARDS: Final = 8
_MOST_PREFIXES: Final = 65_536
_PEER_ANY: Final = 0


class FilterSettings(NamedTuple):
    """What the tunnel may open; and where several pairs of crypto domains share the peers, the prefixes of each."""

    allow_from_tunnel: tuple[Rule, ...]
    shards: tuple[tuple[Prefix, ...], ...] = ()


def _prefix(reader: Table, key: str) -> Prefix | None:
    text = reader.text(key, default="")
    return _read_prefix(reader.where(key), text) if text else None


def _read_prefix(path: str, text: str) -> Prefix:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise SettingsError(path, f"must be a prefix like 10.0.0.0/8 or fd00::/8: {error}") from None
    return Prefix(len(network.network_address.packed), int(network.network_address), int(network.netmask))


def _ports(reader: Table, key: str) -> tuple[tuple[int, int], ...]:
    text = reader.text(key, default="", longest=1024)
    ranges = []
    for part in text.split(",") if text else []:
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit()) or (dash and not (last.isascii() and last.isdigit())):
            raise SettingsError(reader.where(key), f"must be ports and ranges like 80,8000-8010, not {part!r}")
        pair = int(first), int(last or first)
        if not 1 <= pair[0] <= pair[1] <= 65535:
            raise SettingsError(reader.where(key), f"{part.strip()!r} is not a range within 1 to 65535")
        ranges.append(pair)
    if len(ranges) > _MOST_RANGES:
        raise SettingsError(reader.where(key), f"must have at most {_MOST_RANGES} ranges")
    return tuple(ranges)


def _rule(reader: Table) -> Rule:
    name = reader.text("protocol")
    if name not in PROTOCOLS:
        raise SettingsError(reader.where("protocol"), f"must be one of {', '.join(PROTOCOLS)}, not {name!r}")
    protocol = PROTOCOLS[name]
    source, destination = _prefix(reader, "source"), _prefix(reader, "destination")
    ports = _ports(reader, "ports")
    peer = reader.integer("peer", 0, 65535, default=_PEER_ANY)
    reader.done()
    if ports and protocol not in (TCP, UDP):
        raise SettingsError(reader.where("ports"), "only tcp and udp have ports")
    if source and destination and source.width != destination.width:
        raise SettingsError(reader.where("destination"), "must be of the same IP version as source")
    widths = {prefix.width for prefix in (source, destination) if prefix}
    if (protocol == ICMP and 16 in widths) or (protocol == ICMPV6 and 4 in widths):
        raise SettingsError(reader.where("protocol"), "icmp goes with IPv4 and icmpv6 with IPv6")
    return Rule(protocol, source, destination, ports, peer or None)


def _shard(reader: Table) -> tuple[Prefix, ...]:
    texts = reader.texts("allowed_ips", _MOST_PREFIXES)
    reader.done()
    return tuple(_read_prefix(f"{reader.where('allowed_ips')}[{i}]", text) for i, text in enumerate(texts))


def parse(role: str, table: Mapping[str, object]) -> FilterSettings:
    """The settings of the filter. Errors: SettingsError."""
    if role != "filter":
        raise SettingsError("", f"the filter component has no role {role!r}")
    reader = Table(table)
    rules = tuple(_rule(rule) for rule in reader.tables("allow_from_tunnel", _MOST_RULES))
    shards = tuple(_shard(shard) for shard in reader.tables("shards", _MOST_SHARDS))
    reader.done()
    return FilterSettings(rules, shards)
