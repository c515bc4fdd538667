"""``allow_from_tunnel``, a list of what the tunnel may open, as the rule set that it stands for."""

from __future__ import annotations

from typing import Final

from appliance.guest.settings import SettingsError, Table
from components.filter.headers import ICMP, ICMPV6, TCP, UDP
from components.filter.model import Action, Icmp, Prefix, Range, Rule, RuleSet, Side, Tracking
from components.filter.ruleset import read_prefix

_PROTOCOLS: Final = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPV6, "any": None}
_ECHO: Final = {ICMP: (Icmp(8, None),), ICMPV6: (Icmp(128, None),)}
_MOST_RULES: Final = 1024
_MOST_RANGES: Final = 64
_ALWAYS: Final = (
    Rule(Action.ALLOW, tracking=Tracking.ESTABLISHED | Tracking.RELATED),
    Rule(Action.ALLOW, sides=Side.RED),
)


def rules_for(reader: Table) -> RuleSet:
    """What is established, what the red side opens, and what the tunnel may open."""
    rules = [_rule(rule) for rule in reader.tables("allow_from_tunnel", _MOST_RULES)]
    return RuleSet((*_ALWAYS, *rules))


def _rule(reader: Table) -> Rule:
    name = reader.text("protocol")
    if name not in _PROTOCOLS:
        raise SettingsError(reader.where("protocol"), f"must be one of {', '.join(_PROTOCOLS)}, not {name!r}")
    protocol = _PROTOCOLS[name]
    source, destination = _prefix(reader, "source"), _prefix(reader, "destination")
    ports = _ports(reader, "ports")
    peer = reader.integer("peer", 0, 65535, default=0)
    reader.done()
    if ports and protocol not in (TCP, UDP):
        raise SettingsError(reader.where("ports"), "only tcp and udp have ports")
    widths = {prefix.width for prefix in (*source, *destination)}
    if len(widths) > 1:
        raise SettingsError(reader.where("destination"), "must be of the same IP version as source")
    if (protocol == ICMP and 16 in widths) or (protocol == ICMPV6 and 4 in widths):
        raise SettingsError(reader.where("protocol"), "icmp goes with IPv4 and icmpv6 with IPv6")
    return Rule(
        Action.ALLOW,
        sides=Side.TUNNEL,
        peers=(peer,) if peer else (),
        protocols=() if protocol is None else (protocol,),
        sources=source,
        destinations=destination,
        destination_ports=ports,
        icmp=_ECHO.get(protocol or 0, ()),
        tracking=Tracking.NEW,
    )


def _prefix(reader: Table, key: str) -> tuple[Prefix, ...]:
    text = reader.text(key, default="")
    return (read_prefix(reader.where(key), text),) if text else ()


def _ports(reader: Table, key: str) -> tuple[Range, ...]:
    text = reader.text(key, default="", longest=1024)
    ranges = []
    for part in text.split(",") if text else []:
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit()) or (dash and not (last.isascii() and last.isdigit())):
            raise SettingsError(reader.where(key), f"must be ports and ranges like 80,8000-8010, not {part!r}")
        pair = Range(int(first), int(last or first))
        if not 1 <= pair[0] <= pair[1] <= 65535:
            raise SettingsError(reader.where(key), f"{part.strip()!r} is not a range within 1 to 65535")
        ranges.append(pair)
    if len(ranges) > _MOST_RANGES:
        raise SettingsError(reader.where(key), f"must have at most {_MOST_RANGES} ranges")
    return tuple(ranges)
