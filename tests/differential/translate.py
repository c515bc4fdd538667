"""A rule set of ours in nftables' language, condition by condition."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from components.filter.model import Action, Hours, Limit, Prefix, Range, Rule, RuleSet, Side, Tracking, Translation

_WAYS: Final = {Side.RED: ("red",), Side.TUNNEL: ("peer1", "peer2")}
_FAMILIES: Final = {4: "ip", 16: "ip6"}
_FLAGS: Final = ("fin", "syn", "rst", "psh", "ack", "urg")
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# What differs from conntrack on purpose (docs/filter.md), said in nftables' own words: mark 8 stands for "invalid", 9
# for "new"
_DIFFERENCES: Final = (
    # only the red side may pick up a connection in its midst
    'iifname { "peer1", "peer2" } tcp flags & (syn | ack | rst | fin) != syn ct state new meta mark set 8',
    # a SYN of who did not open the connection is judged as one that would open it
    "tcp flags & (syn | ack | rst | fin) == syn ct state invalid meta mark set 9",
)


def script(ruleset: RuleSet) -> str:
    """The input of ``nft -f``. Rules of IPv4 and IPv6 both stand in one inet chain, in the order of ours."""
    lines = list(_DIFFERENCES)
    for width in (4, 16):
        own = [prefix for prefix in ruleset.lan if prefix.width == width]
        if own:
            lines.append(f'iifname "red" {_FAMILIES[width]} saddr != {_prefixes(own)} drop')
            lines.append(f'oifname "red" {_FAMILIES[width]} daddr != {_prefixes(own)} drop')
        elif ruleset.lan:
            lines.append(f"meta nfproto ipv{4 if width == 4 else 6} drop")
    for rule in ruleset.rules:
        lines.extend(_rule(rule))
    body = "\n    ".join(lines)
    chain = f"chain forward {{\n    type filter hook forward priority 0; policy drop;\n    {body}\n  }}"
    return f"table inet filter {{\n  {chain}\n}}\n" + _nat(ruleset.translations)


def _rule(rule: Rule) -> Iterator[str]:
    """One rule of ours is as many of nftables' as it has IP versions: an address condition there is of one version."""
    for width in (4, 16):
        if rule.version and rule.version != (4 if width == 4 else 6):
            continue
        sources, destinations = _of(rule.sources, width), _of(rule.destinations, width)
        if (rule.sources and not sources) or (rule.destinations and not destinations):
            continue
        # A reset can only answer TCP
        anything = (6, None) if rule.action is Action.REJECT else (None,)
        for protocol in rule.protocols or anything:
            conditions = list(_conditions(rule, width, sources, destinations, protocol))
            for state in _states(rule):
                yield " ".join([*conditions, state, *_timed(rule), *_verdict(rule, protocol)])


def _conditions(
    rule: Rule, width: int, sources: Sequence[Prefix], destinations: Sequence[Prefix], protocol: int | None
) -> Iterator[str]:
    family = _FAMILIES[width]
    if rule.sides or rule.peers:
        names = [f"peer{number}" for number in rule.peers] or [n for s, w in _WAYS.items() if rule.sides & s for n in w]
        yield f"iifname {{ {', '.join(names)} }}"
    yield f"meta nfproto ipv{4 if width == 4 else 6}"
    if sources:
        yield f"{family} saddr {_prefixes(sources)}"
    if rule.not_sources and _of(rule.not_sources, width):
        yield f"{family} saddr != {_prefixes(_of(rule.not_sources, width))}"
    if destinations:
        yield f"{family} daddr {_prefixes(destinations)}"
    if rule.not_destinations and _of(rule.not_destinations, width):
        yield f"{family} daddr != {_prefixes(_of(rule.not_destinations, width))}"
    if protocol is not None:
        yield f"meta l4proto {protocol}"
    if rule.source_ports:
        yield f"th sport {_ranges(rule.source_ports)}"
    if rule.destination_ports:
        yield f"th dport {_ranges(rule.destination_ports)}"
    if rule.icmp:
        word = "icmp" if protocol == 1 else "icmpv6"
        if all(one.code is None for one in rule.icmp):
            yield f"{word} type {{ {', '.join(str(one.type) for one in rule.icmp)} }}"
        else:
            yield f"{word} type . {word} code {{ {', '.join(f'{one.type} . {one.code}' for one in rule.icmp)} }}"
    if rule.flags is not None:
        yield f"tcp flags & {_flags(rule.flags.mask)} == {_flags(rule.flags.value)}"


def _states(rule: Rule) -> Iterator[str]:
    """What is invalid matches only where a rule says so."""
    named = [state.name.lower() for state in Tracking if state.name and rule.tracking & state]
    states = ", ".join(named or ("new", "established", "related", "untracked"))
    yield f"meta mark != {{ 8, 9 }} ct state {{ {states} }}"
    if not rule.tracking or rule.tracking & Tracking.NEW:
        yield "meta mark 9"
    if rule.tracking & Tracking.INVALID:
        yield "meta mark 8"


def _timed(rule: Rule) -> Iterator[str]:
    yield from _times(rule.expires, rule.hours)
    if rule.quota is not None:
        yield f"quota until {rule.quota.octets} bytes"
    if rule.limit is not None:
        yield _limit(rule.limit)


def _verdict(rule: Rule, protocol: int | None) -> Iterator[str]:
    yield "counter"
    if rule.action is Action.REJECT:
        yield "reject with tcp reset" if protocol == 6 else "reject with icmpx type admin-prohibited"
    else:
        yield "accept" if rule.action is Action.ALLOW else "drop"


def _limit(limit: Limit) -> str:
    unit = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}[limit.seconds]
    if limit.packets:
        return f"limit rate {limit.packets}/{unit} burst {limit.burst} packets"
    return f"limit rate {limit.octets} bytes/{unit} burst {limit.burst} bytes"


def _times(expires: int, hours: Iterable[Hours]) -> Iterator[str]:
    if expires:
        yield f"meta time < {expires}"
    for one in hours:
        days = [name for bit, name in enumerate(_DAYS) if one.days & 1 << bit]
        yield f"meta day {{ {', '.join(days)} }}"


def _nat(translations: Iterable[Translation]) -> str:
    before, after = [], []
    for one in translations:
        names = [n for side, ways in _WAYS.items() if not one.sides or one.sides & side for n in ways]
        for protocol in one.protocols or (None,):
            words = [f"iifname {{ {', '.join(names)} }}", "meta nfproto ipv4"]
            if one.leaves:
                leaves = [n for side, ways in _WAYS.items() if one.leaves & side for n in ways]
                words.append(f"oifname {{ {', '.join(leaves)} }}")
            if one.sources:
                words.append(f"ip saddr {_prefixes(one.sources)}")
            if one.destinations:
                words.append(f"ip daddr {_prefixes(one.destinations)}")
            if protocol is not None:
                words.append(f"meta l4proto {protocol}")
            if one.destination_ports:
                words.append(f"th dport {_ranges(one.destination_ports)}")
            if one.source is not None:
                after.append(" ".join([*words, f"snat ip to {ipaddress.IPv4Address(one.source)}"]))
            else:
                port = f":{one.port}" if one.port else ""
                target = ipaddress.IPv4Address(one.destination or 0)
                before.append(" ".join([*words, f"dnat ip to {target}{port}"]))
    if not before and not after:
        return ""
    return (
        "table inet nat {\n  chain before { type nat hook prerouting priority -100;\n    "
        + "\n    ".join(before)
        + "\n  }\n  chain after { type nat hook postrouting priority 100;\n    "
        + "\n    ".join(after)
        + "\n  }\n}\n"
    )


def _of(prefixes: Iterable[Prefix], width: int) -> list[Prefix]:
    return [prefix for prefix in prefixes if prefix.width == width]


def _prefixes(prefixes: Iterable[Prefix]) -> str:
    networks = (
        ipaddress.ip_network((prefix.network.to_bytes(prefix.width, "big"), prefix.mask.bit_count()))
        for prefix in prefixes
    )
    # Overlapping elements of a set are an error to nft
    return f"{{ {', '.join(str(network) for network in _collapsed(networks))} }}"


def _collapsed(networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> list[object]:
    return list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]


def _ranges(ranges: Iterable[Range]) -> str:
    merged: list[list[int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return f"{{ {', '.join(f'{first}-{last}' if first != last else f'{first}' for first, last in merged)} }}"


def _flags(bits: int) -> str:
    names = [name for bit, name in enumerate(_FLAGS) if bits & 1 << bit]
    return f"({' | '.join(names)})" if names else "0x0"
