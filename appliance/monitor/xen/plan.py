"""What a guest gets and no more, counted from the assembly: memory, grants, foreign pages, event channels.

All of it is numbers and names; how it is said to xl is in config.py. The sources of the counts are Linux' own front
ends (drivers/net/xen-netfront.c, drivers/xen/grant-table.c) and Xen's tables (xen/common/grant_table.c).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from appliance.assembly.model import Channel, Domain, EndKind, ValidatedAssembly
from appliance.guest import boxpage, outside
from appliance.guest.status import ROW_SIZE
from appliance.vchan import layout
from appliance.vchan.schema import schema
from appliance.xsm import labels

# A frame of the grant table holds 512 entries of version 1; the first 8 are the toolstack's
_GRANTS_A_FRAME: Final = layout.PAGE // 8
_RESERVED_GRANTS: Final = 8
# netfront: 256 transmit and 256 receive buffers at most, and the two rings themselves; an event channel for each way
_VIF_GRANTS: Final = 256 + 256 + 2
_VIF_EVENTS: Final = 2
# An entry of the maptrack table has 16 bytes. A PV guest maps each page twice, for itself and for its process
_MAPTRACK_A_FRAME: Final = layout.PAGE // 16
_MAPS_A_PAGE: Final = 2
# What every Linux guest binds besides: port 0 is never used; xenstore, console, timer, debug, and the interrupts a CPU
# sends itself (xen/events, xen/smp)
_OWN_EVENTS: Final = 16

STORE: Final = "store"
NETWORK_DEVICES: Final = frozenset({"tun", "udp4", "udp6", "management"})
TOLD: Final = frozenset({"box", "orders"})


@dataclass(frozen=True)
class Link:
    """One end of a channel as its domain sees it. ``number`` is the channel's, everywhere in the box."""

    number: int
    port: str
    peer: str
    schema: str
    end: EndKind
    is_server: bool
    pages: int


@dataclass(frozen=True)
class Side:
    """What a guest with an interface does with it: the description's ``network``, and where the interface leads."""

    name: str  # red, black or admin
    bridge: str
    mac: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Everything that all lives of one domain have in common, but its image."""

    box: str
    domain: Domain
    links: tuple[Link, ...]
    type: str
    cpus: str
    label: str | None
    init_label: str | None
    side: Side | None = None

    @property
    def title(self) -> str:
        """The guest's name, as ``xl list`` shows it."""
        return f"{self.box}-{self.domain.name}"

    @property
    def status_pages(self) -> int:
        """The status page, and behind it a row for each peer that this domain is configured with."""
        peers = self.domain.settings.get("peers")
        rows = min(self.domain.role.board, len(peers) if isinstance(peers, list | tuple) else 0)
        return 1 + -(-rows * ROW_SIZE // layout.PAGE)

    @property
    def told_pages(self) -> int:
        """What the monitor tells a domain that speaks for the box, and what that may ask of the monitor."""
        told = set(self.domain.role.devices) >= TOLD
        return (boxpage.BOX_BYTES + boxpage.ORDERS_BYTES) // layout.PAGE if told else 0

    @property
    def granted(self) -> int:
        """Pages that this domain grants: the rings it serves, and to the monitor its status and what it is told."""
        return self.status_pages + self.told_pages + sum(link.pages for link in self.links if link.is_server)

    @property
    def mapped(self) -> int:
        """Pages of others that it maps: the rings whose client it is."""
        return sum(link.pages for link in self.links if not link.is_server)

    @property
    def max_grant_frames(self) -> int:
        """Room for what it grants, twice: a page that a dead peer still holds is not free for its successor."""
        wanted = _RESERVED_GRANTS + 2 * self.granted + (_VIF_GRANTS if self.side else 0)
        return 1 + -(-wanted // _GRANTS_A_FRAME)

    @property
    def max_maptrack_frames(self) -> int:
        """None at all for a domain that only serves."""
        return -(-_MAPS_A_PAGE * self.mapped // _MAPTRACK_A_FRAME)

    @property
    def max_event_channels(self) -> int:
        """The highest port number it may use."""
        return _OWN_EVENTS + len(self.links) + (_VIF_EVENTS if self.side else 0)


def links_of(assembly: ValidatedAssembly, domain: Domain) -> tuple[Link, ...]:
    """The ends of ``domain``, in the order of the file: that of its ports' numbers. What the operator calls is among
    them: it is granted, bound and counted as all else, to dom0.
    """
    found = [
        _link(number, channel, domain)
        for number, channel in enumerate(assembly.channels)
        if domain.name in (channel.client.domain, channel.server.domain)
    ]
    if STORE in domain.role.devices:
        # A device has one holder in a box, so the number is nobody else's
        found.append(_served("disk", outside.DOM0, len(assembly.channels), domain))
    return tuple(found)


def _served(port: str, peer: str, number: int, domain: Domain) -> Link:
    """A channel by which a program of dom0 reaches ``domain``: what another back end hands over as a descriptor."""
    declared = domain.role.ports[port]
    pages = layout.size(schema(declared.schema).orders) // layout.PAGE
    return Link(number, port, peer, declared.schema, declared.end, True, pages)


def _link(number: int, channel: Channel, domain: Domain) -> Link:
    is_server = channel.server.domain == domain.name
    own, other = (channel.server, channel.client) if is_server else (channel.client, channel.server)
    pages = layout.size(schema(channel.schema).orders) // layout.PAGE
    return Link(number, own.port, other.domain, channel.schema, domain.role.ports[own.port].end, is_server, pages)


def plans_of(assembly: ValidatedAssembly, box: str) -> dict[str, Plan]:
    """A plan for each domain, by name. Without their sides: those are known once the bridges are."""
    xen = assembly.xen
    enforced = xen.xsm == "enforcing"
    return {
        domain.name: Plan(
            box=box,
            domain=domain,
            links=links_of(assembly, domain),
            type=xen.type,
            cpus=xen.cpus,
            label=labels.label(domain.name) if enforced else None,
            init_label=labels.building_label(domain.name) if enforced else None,
        )
        for domain in assembly.domains
    }


def with_sides(plans: dict[str, Plan], sides: dict[str, Side]) -> dict[str, Plan]:
    """``plans`` with an interface for the domains that hold a network device. ``sides`` by red, black and admin."""
    found = {}
    for name, plan in plans.items():
        devices = NETWORK_DEVICES & set(plan.domain.role.devices)
        face = "red" if "tun" in devices else "admin" if "management" in devices else "black"
        side = sides.get(face) if devices else None
        found[name] = replace(plan, side=side)
    return found
