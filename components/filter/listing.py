"""The flows there are, for people: one by one, and by who opened them."""

from __future__ import annotations

import heapq
import ipaddress
from itertools import islice
from typing import NamedTuple

from components.filter.flows import Flow, FlowTable
from components.filter.headers import Endpoints
from components.filter.model import Side
from components.filter.nat import reverse


class FlowRow(NamedTuple):
    """One flow. Its ends are those that rules are asked about, the one that opened it first."""

    protocol: int
    source: str
    source_port: int  # of ICMP: the identifier
    destination: str
    destination_port: int
    opener: Side
    across: Side  # the other side
    peer: int
    state: str
    is_answered: bool
    rule: int  # that lets it live
    packets: int
    octets: int
    ends_in: float  # seconds, if nothing comes
    translated: str  # what its ends are on the far side; empty if the same
    is_followed: bool  # TCP, by sequence number


class Talker(NamedTuple):
    """Who opened flows that live, and what went over them, both ways."""

    side: Side
    address: str
    flows: int
    packets: int
    octets: int


def ends_of(key: bytes) -> Endpoints:
    """Who talks to whom, by a flow's key (and what VLAN it has behind it)."""
    width = 16 if len(key) >= 37 else 4
    at = 1 + 2 * width
    return Endpoints(key[:1], key[1 : 1 + width], key[at : at + 2], key[1 + width : at], key[at + 2 : at + 4])


def told(flow: Flow, now: float) -> str:
    """A flow's state, for people."""
    words = [flow.state.name.lower(), f"opened from the {flow.opener.name.lower()} side"]
    words.append("answered" if flow.is_answered else "not answered")
    if flow.nat is not None:
        words.append("translated")
    return f"{', '.join(words)}, ends in {flow.expires - now:.0f} s if nothing comes"


def list_flows(table: FlowTable, start: int, most: int, generation: int, now: float) -> list[FlowRow]:
    """Rows for the living ones of ``most`` flows, from number ``start`` on, that the rules of that generation allow."""
    found = islice(table.by_key.values(), start, start + most)
    return [_row(flow, now) for flow in found if flow.expires > now and flow.generation == generation]


def talkers(table: FlowTable, most: int, generation: int, now: float) -> list[Talker]:
    """The ``most`` that carried most. Looks at the whole table: as bounded as that is."""
    sums: dict[tuple[Side, bytes], list[int]] = {}
    for flow in table.by_key.values():
        if flow.expires > now and flow.generation == generation:
            ends = _ends(flow)
            one = sums.setdefault((flow.opener, ends.source), [0, 0, 0])
            one[0] += 1
            one[1] += flow.packets
            one[2] += flow.octets
    largest = heapq.nlargest(most, sums.items(), key=lambda item: item[1][2])
    return [Talker(side, str(ipaddress.ip_address(address)), *counts) for (side, address), counts in largest]


def _ends(flow: Flow) -> Endpoints:
    """The true ends, the opener's first."""
    ends = flow.nat.true() if flow.nat is not None else ends_of(flow.key)
    return ends if flow.opener is Side.RED else reverse(ends)


def _row(flow: Flow, now: float) -> FlowRow:
    protocol, source, source_port, destination, destination_port = _ends(flow)
    translated = ""
    if flow.nat is not None:
        far = flow.nat.far
        translated = " > ".join(
            f"{ipaddress.ip_address(address)}:{int.from_bytes(port, 'big')}"
            for address, port in ((far.source, far.source_port), (far.destination, far.destination_port))
        )
    return FlowRow(
        protocol[0],
        str(ipaddress.ip_address(source)),
        int.from_bytes(source_port, "big"),
        str(ipaddress.ip_address(destination)),
        int.from_bytes(destination_port, "big"),
        flow.opener,
        flow.far if flow.opener is Side.RED else Side.RED,
        flow.peer,
        flow.state.name.lower(),
        flow.is_answered,
        flow.rule,
        flow.packets,
        flow.octets,
        flow.expires - now,
        translated,
        flow.near_end is not None,
    )
