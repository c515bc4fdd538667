"""A rule set as the filter holds it: frozen values, checked where they are made (ruleset.py), with nothing to look up.

Rules are tried in order and the first that matches decides; where none does, the packet is dropped. An empty tuple or
None in a condition stands for any. The language that people write is compiled to this outside the domain.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple

from components.filter.rules import Prefix


class Side(IntEnum):
    """Where a packet comes from; a bit each."""

    RED = 1  # the protected network
    TUNNEL = 2  # a tunnel peer
    BLACK = 4  # the outside, in clear: only in boxes that declare it


class Action(IntEnum):
    """What a rule does with a packet that matches."""

    ALLOW = 1
    DROP = 2
    REJECT = 3  # drop, and tell the sender: a TCP reset, or ICMP "administratively prohibited"


class Tracking(IntFlag):
    """How a packet stands to the flows that are known (nftables' ``ct state``)."""

    NEW = 1
    ESTABLISHED = 2
    RELATED = 4  # an ICMP error about a flow
    INVALID = 8


class Range(NamedTuple):
    """Numbers from ``first`` to ``last``, both included."""

    first: int
    last: int


class Icmp(NamedTuple):
    """An ICMP type (of the rule's protocol), and a code or None for any."""

    type: int
    code: int | None


class Flags(NamedTuple):
    """TCP flags: those of ``mask`` must be just ``value``."""

    mask: int
    value: int


class Limit(NamedTuple):
    """A token bucket: matches ``packets`` or ``octets`` (the other is 0) each ``seconds``, and ``burst`` at once."""

    packets: int
    octets: int
    seconds: int
    burst: int


class Quota(NamedTuple):
    """Matches until so many packets or bytes (0: not counted) have matched since the rule set was loaded."""

    packets: int
    octets: int


class Hours(NamedTuple):
    """Of the days whose bits are set (Monday is 1): minutes of the day in UTC, ``first`` included, ``last`` not."""

    days: int
    first: int
    last: int


class LinkMatch(NamedTuple):
    """Conditions on an Ethernet frame; only where the box passes frames."""

    ethertypes: tuple[int, ...] = ()  # after any VLAN tags; below 1536: an LLC frame, by its DSAP (0x42 is STP)
    vlans: tuple[Range, ...] = ()  # identifiers of the outer tag; 0 stands for no tag
    source: tuple[bytes, ...] = ()  # MAC addresses
    destination: tuple[bytes, ...] = ()
    arp: tuple[int, ...] = ()  # ARP operations (RFC 826): 1 request, 2 reply


class Rule(NamedTuple):
    """One rule. All conditions must hold; of the items of one condition, any."""

    action: Action
    name: str = ""
    file: int = 0  # index into RuleSet.files
    line: int = 0
    sides: int = 0  # bits of Side that the packet comes from; 0: any
    peers: tuple[int, ...] = ()  # numbers of tunnel peers, 1 and up
    version: int = 0  # 4, 6, or 0 for any
    protocols: tuple[int, ...] = ()  # IP protocol numbers
    sources: tuple[Prefix, ...] = ()
    not_sources: tuple[Prefix, ...] = ()  # none of these
    destinations: tuple[Prefix, ...] = ()
    not_destinations: tuple[Prefix, ...] = ()
    source_ports: tuple[Range, ...] = ()
    destination_ports: tuple[Range, ...] = ()
    icmp: tuple[Icmp, ...] = ()
    flags: Flags | None = None
    tracking: int = 0  # bits of Tracking; 0: any
    link: LinkMatch | None = None
    limit: Limit | None = None
    quota: Quota | None = None
    expires: int = 0  # seconds since 1970 after which it matches nothing; 0: never
    hours: tuple[Hours, ...] = ()
    log: bool = False
    comment: str = ""


class Translation(NamedTuple):
    """Network address translation, IPv4: of flows that match, when they are opened. The first that matches holds.

    ``source``: the packet leaves with that source address (and a port of its own choice); ``destination`` and ``port``
    (0: as it came): it is forwarded there. One of the two is given.
    """

    name: str
    file: int
    line: int
    sides: int
    leaves: int  # bits of Side that the packet leaves by; 0: any (source NAT only)
    protocols: tuple[int, ...]
    sources: tuple[Prefix, ...]
    destinations: tuple[Prefix, ...]
    destination_ports: tuple[Range, ...]
    source: int | None = None  # an IPv4 address
    destination: int | None = None
    port: int = 0


class RuleSet(NamedTuple):
    """Everything that the filter goes by."""

    rules: tuple[Rule, ...] = ()
    translations: tuple[Translation, ...] = ()
    files: tuple[str, ...] = ()  # names, for what is said about a rule
    lan: tuple[Prefix, ...] = ()  # what the red side may have as source address; empty: anything
