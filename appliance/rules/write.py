"""A rule set as text again: what the filter goes by, in words that compile to just that. Names of sets are gone."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from appliance.rules import words
from components.filter.model import Hours, Icmp, Limit, LinkMatch, Prefix, Quota, Range, Rule, RuleSet, Translation

_NAMES: Final = {number: name for name, number in words.PROTOCOLS.items()}
_PERIODS: Final = {seconds: name for name, seconds in words.PERIODS.items()}
_ETHERTYPES: Final = {number: name for name, number in words.ETHERTYPES.items()}
_OPERATIONS: Final = {number: name for name, number in words.OPERATIONS.items()}
_BARE: Final = re.compile(r"[A-Za-z_][\w.-]{0,63}")
_ALL_SIDES: Final = sum(words.SIDES.values())
_ALIGNED: Final = ((1000**4, "TB"), (1000**3, "GB"), (1000**2, "MB"), (1000, "kB"), (1, "bytes"))


def ruleset(made: RuleSet, peers: Mapping[int, str]) -> str:
    """The whole of it, a statement a line. ``peers`` are their names by number."""
    lines = [f"lan {_listed(map(prefix, made.lan))}"] if made.lan else []
    lines += [translation(one) for one in made.translations]
    lines += [rule(one, peers) for one in made.rules]
    return "".join(f"{line}\n" for line in lines)


def rule(one: Rule, peers: Mapping[int, str]) -> str:
    """One rule, on one line."""
    link = one.link or LinkMatch()
    parts = [one.action.name.lower(), _quoted(one.name)]
    for bit in words.TRACKING:
        if one.tracking & words.TRACKING[bit]:
            parts.append(bit)
    parts.append(_link(link))
    parts += [name for name, version in words.VERSIONS.items() if version == one.version]
    parts.append(_end("from", _origin(one, peers), link.source, one.sources, one.not_sources, one.source_ports))
    parts.append(_protocols(one.protocols))
    if one.icmp:
        parts.append(f"type {', '.join(icmp_type(item, 58 in one.protocols) for item in one.icmp)}")
    if one.flags is not None:
        parts.append(f"flags {_flags(one.flags.value)}/{_flags(one.flags.mask)}")
    parts.append(_end("to", "", link.destination, one.destinations, one.not_destinations, one.destination_ports))
    parts += [*conditions(one), "log" if one.log else ""]
    if one.comment:
        parts.append(f"comment {_quoted(one.comment)}")
    return " ".join(filter(None, parts))


def conditions(one: Rule) -> list[str]:
    """What about a rule a later packet may find otherwise."""
    found = []
    if one.limit is not None:
        found.append(limit(one.limit))
    if one.quota is not None:
        found.append(quota(one.quota))
    if one.expires:
        found.append(f"until {datetime.fromtimestamp(one.expires, UTC):%Y-%m-%dT%H:%M:%S}")
    if one.hours:
        found.append(hours(one.hours))
    return found


def translation(one: Translation) -> str:
    """One translation, on one line."""
    is_source = one.source is not None
    address = one.source if one.source is not None else one.destination or 0
    target = f"{ipaddress.IPv4Address(address)}{f':{one.port}' if one.port else ''}"
    parts = [
        "nat" if is_source else "forward",
        _quoted(one.name),
        _end("from", "" if one.sides == _ALL_SIDES else _sides(one.sides), (), one.sources, (), ()),
        _protocols(one.protocols),
        _end("to", _sides(one.leaves), (), one.destinations, (), one.destination_ports),
        f"-> {target}",
    ]
    return " ".join(filter(None, parts))


def prefix(one: Prefix) -> str:
    """``10.0.0.0/8``; a single address without its length."""
    length = one.mask.bit_count()
    address = ipaddress.ip_address(one.network.to_bytes(one.width, "big"))
    return str(address) if length == 8 * one.width else f"{address}/{length}"


def limit(one: Limit) -> str:
    """``limit 100/second burst 20``."""
    period = _PERIODS.get(one.seconds, f"{one.seconds}s")
    if one.packets:
        return f"limit {one.packets}/{period} burst {one.burst}"
    return f"limit {amount(one.octets)}/{period} burst {amount(one.burst)}"


def quota(one: Quota) -> str:
    """``quota 10 GB``."""
    return f"quota {one.packets} packets" if one.packets else f"quota {amount(one.octets)}"


def amount(octets: int) -> str:
    """Bytes in the largest unit that says it exactly."""
    return next(f"{octets // size} {unit}" for size, unit in _ALIGNED if octets % size == 0)


def hours(spans: Sequence[Hours]) -> str:
    """``hours mon,tue 08:00-18:00``."""
    return f"hours {', '.join(map(_span, spans))}"


def icmp_type(one: Icmp, is_6: bool) -> str:
    """``echo-request``, ``3 code 7``."""
    names = {pair: name for name, pair in (words.ICMP6 if is_6 else words.ICMP).items()}
    if (one.type, one.code) in names:
        return names[one.type, one.code]
    name = names.get((one.type, None), str(one.type))
    return name if one.code is None else f"{name} code {one.code}"


def _span(one: Hours) -> str:
    on = ",".join(day for bit, day in enumerate(words.DAYS) if one.days >> bit & 1)
    times = f"{one.first // 60:02}:{one.first % 60:02}-{one.last // 60:02}:{one.last % 60:02}"
    return times if one.days == 0x7F else f"{on} {times}"


def _quoted(text: str) -> str:
    return f'"{text}"' if text else ""


def _listed(items: Iterable[str]) -> str:
    found = list(items)
    return found[0] if len(found) == 1 else f"{{ {', '.join(found)} }}"


def _sides(sides: int) -> str:
    return ", ".join(name for name, side in words.SIDES.items() if sides & side)


def _origin(one: Rule, peers: Mapping[int, str]) -> str:
    if not one.peers:
        return _sides(one.sides)
    called = [peers.get(number, str(number)) for number in one.peers]
    return f"peer {', '.join(name if _BARE.fullmatch(name) else _quoted(name) for name in called)}"


def _end(
    word: str,
    origin: str,
    macs: Sequence[bytes],
    prefixes: Sequence[Prefix],
    others: Sequence[Prefix],
    ports: Sequence[Range],
) -> str:
    parts = [word, origin]
    if macs:
        parts.append(f"mac {', '.join(mac.hex(':') for mac in macs)}")
    if prefixes:
        parts.append(_listed(map(prefix, prefixes)))
    if others:
        parts.append(f"not {_listed(map(prefix, others))}")
    if ports:
        parts.append(f"port {_listed(map(_range, ports))}")
    said = " ".join(filter(None, parts))
    return "" if said == word else said


def _range(one: Range) -> str:
    return str(one.first) if one.first == one.last else f"{one.first}-{one.last}"


def _protocols(numbers: Sequence[int]) -> str:
    if not numbers:
        return ""
    known = all(number in _NAMES for number in numbers)
    return f"{'' if known else 'proto '}{', '.join(_NAMES.get(number, str(number)) for number in numbers)}"


def _flags(bits: int) -> str:
    return ",".join(name for name, bit in words.FLAGS.items() if bits & bit) or "none"


def _link(link: LinkMatch) -> str:
    parts = []
    if link.ethertypes == (words.ARP,):
        parts += ["arp", *(_OPERATIONS.get(one, str(one)) for one in link.arp)]
    elif link.ethertypes == (words.STP,):
        parts.append("stp")
    elif link.ethertypes:
        types = ", ".join(_ETHERTYPES.get(number, f"0x{number:04x}") for number in link.ethertypes)
        parts.append(f"ethertype {types}")
    if link.vlans:
        parts.append(f"vlan {', '.join('none' if one == (0, 0) else _range(one) for one in link.vlans)}")
    return " ".join(parts)
