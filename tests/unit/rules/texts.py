"""Random rules, as text, and what they mean, found the slow and obvious way."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import product

from hypothesis import strategies as st

from appliance.rules import space
from appliance.rules.packets import Sample
from components.filter.model import Prefix, Rule, Side, Tracking

_PREFIXES = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3", "192.0.2.0/24", "10.0.0.0-10.1.2.9"]
_PORTS = ["80", "443", "80-100", "90-443", "1000-65535", "https"]
_NAMED = ["alice", "bob"]

_end = st.one_of(
    st.just(""),
    st.sampled_from(_PREFIXES),
    st.lists(st.sampled_from(_PREFIXES), min_size=1, max_size=3, unique=True).map(
        lambda some: f"{{ {', '.join(some)} }}"
    ),
    st.sampled_from(_PREFIXES).map(lambda one: f"not {one}"),
    st.tuples(st.sampled_from(_PREFIXES), st.sampled_from(_PREFIXES)).map(lambda two: f"{two[0]} not {two[1]}"),
)
_origin = st.sampled_from(["", "red", "tunnel", "black", "red, tunnel", "peer alice", "peer alice, bob"])
_ports = st.one_of(
    st.just(""),
    st.lists(st.sampled_from(_PORTS), min_size=1, max_size=3, unique=True).map(lambda some: f"port {', '.join(some)}"),
    st.sampled_from(_PORTS).map(lambda one: f"port not {one}"),
)
_tracking = st.sampled_from(["", "new", "established related", "invalid", "new, invalid"])
_more = st.sampled_from(
    [
        "",
        "log",
        "limit 10/second",
        "limit 5 MB/minute burst 7 MB",
        "quota 3 packets",
        "quota 2 GiB",
        "until 2099-01-01",
        "until 2001-01-01T10:30",
        "hours mon-fri 08:00-18:00",
        "hours 22:00-06:00, sat,sun 00:00-24:00",
        'comment "why not"',
        "flags syn/syn,ack",
    ]
)


@st.composite
def tcp_rules(draw: st.DrawFn, with_more: bool = True) -> str:
    """One rule about TCP over IPv4 (and whatever else it lets be)."""
    said = [draw(st.sampled_from(["allow", "drop", "reject"])), draw(_tracking)]
    for word in ("from", "to"):
        origin, end = draw(_origin) if word == "from" else "", draw(_end)
        if origin or end:
            said.append(f"{word} {origin} {end}")
        if word == "from":
            said.append(f"tcp {draw(_ports)}")
    said.append(draw(_more) if with_more else "")
    return " ".join(" ".join(said).split())


def rule_sets(with_more: bool = False) -> st.SearchStrategy[str]:
    return st.lists(tcp_rules(with_more), min_size=1, max_size=6).map("\n".join)


# the slow way ---------------------------------------------------------------------------------------------------------


def has(prefix: Prefix, number: int) -> bool:
    return number & prefix.mask == prefix.network


def matches(rule: Rule, packet: Sample) -> bool:
    """Whether a rule about TCP over IPv4 matches, each condition for itself."""
    at = dict(zip(packet.family.axes, packet.point, strict=True))
    origin = at[space.ORIGIN]
    side = {0: Side.RED, 1: Side.BLACK}.get(origin, Side.TUNNEL)
    state = [Tracking.NEW, Tracking.ESTABLISHED, Tracking.RELATED, Tracking.INVALID, 0][at[space.STATE]]
    sources, destinations = ([p for p in some if p.width == 4] for some in (rule.sources, rule.destinations))
    return (
        (not rule.sides or bool(rule.sides & side))
        and (not rule.peers or origin - 1 in rule.peers)
        and (not rule.protocols or 6 in rule.protocols)
        and (not rule.sources or any(has(p, at[space.SOURCE]) for p in sources))
        and (not rule.destinations or any(has(p, at[space.DESTINATION]) for p in destinations))
        and not any(has(p, at[space.SOURCE]) for p in rule.not_sources if p.width == 4)
        and not any(has(p, at[space.DESTINATION]) for p in rule.not_destinations if p.width == 4)
        and (not rule.source_ports or any(a <= at[space.FROM_PORT] <= b for a, b in rule.source_ports))
        and (not rule.destination_ports or any(a <= at[space.TO_PORT] <= b for a, b in rule.destination_ports))
        and (rule.flags is None or at[space.FLAGS] & rule.flags.mask == rule.flags.value)
        and (bool(rule.tracking & state) if rule.tracking else state != Tracking.INVALID)
    )


def first(rules: tuple[Rule, ...], packet: Sample) -> int:
    """The number of the rule that decides; -1 for none."""
    return next((number for number, rule in enumerate(rules) if matches(rule, packet)), -1)


_ADDRESSES = [
    int(ipaddress.ip_address(one))
    for one in (
        "9.9.9.9",
        "10.0.0.1",
        "10.1.0.1",
        "10.1.2.1",
        "10.1.2.3",
        "10.1.2.9",
        "10.1.2.10",
        "10.1.3.1",
        "10.9.9.9",
    )
] + [int(ipaddress.ip_address("192.0.2.1"))]
_DPORTS = [1, 80, 85, 95, 443, 444, 1000]
TCP4 = space.families(with_link=False)[0]


def grid() -> Iterator[Sample]:
    """A packet of each kind that the rules above can tell apart."""
    for origin, source, destination, port, state in product([0, 1, 2, 3, 4], _ADDRESSES, _ADDRESSES, _DPORTS, range(5)):
        yield Sample(TCP4, (origin, source, destination, 51_000, port, 2, state))
