"""An assembly as it was read, before anybody has agreed to it: what the validators look at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from appliance.assembly import addresses, schemas
from appliance.assembly.catalogue import Catalogue, Component
from appliance.assembly.document import EITHER, KEYS, TABLE, TEXT, TEXTS, WHOLE, Document, Key, Shape, take
from appliance.assembly.findings import show
from appliance.assembly.lines import Path as Way
from appliance.assembly.model import OPERATOR_ROLE, Domain, End, Network, Port, Role, Xen
from appliance.guest.outside import OPERATOR

VERSION: Final = 1
"""Of the assembly format. A file says which one it is written in."""

ASSEMBLY: Final[Shape] = {
    "name": Key(TEXT, required=True),
    "summary": Key(TEXT),
    "version": Key(WHOLE, required=True),
    "domains": Key(TABLE, required=True),
    "channels": Key(TABLE, required=True),
    "settings": Key(TABLE),
    "limits": Key(TABLE),
    "bypass": Key(TABLE),
    "network": Key(TABLE),
    "xen": Key(TABLE),
}
DOMAIN: Final[Shape] = {
    "component": Key(TEXT, required=True),
    "role": Key(TEXT),
    "memory_mib": Key(WHOLE, low=16, high=65536),
}
LIMITS: Final[Shape] = {
    # What a small appliance has. Address space, not what is in use: a domain that runs takes a tenth of its own
    "memory_mib": Key(WHOLE, default=4096, low=16, high=1 << 20),
    # The status page has one bit for each channel of a domain
    "channels_per_domain": Key(WHOLE, default=64, low=1, high=64),
    # Xen gives a guest 1023 event channels for the asking; a process holds as many descriptors
    "events_per_domain": Key(WHOLE, default=128, low=1, high=1023),
    # Of the 32768 grants that Xen gives a guest by default
    "grants_per_domain": Key(WHOLE, default=2048, low=1, high=32768),
}
_REASON: Final = Key(TEXT)
_ADDRESSES: Final = Key(TEXTS, pattern=r"[^\x00-\x20]{1,64}", looks="an address", most=65536, unique=False)
_LINK: Final = Key(TEXT, pattern=addresses.INTERFACE_NAME, looks="the name of a network interface")
NETWORK: Final[Shape] = {
    "tunnel": Key(TEXT, default="septum0", pattern=_LINK.pattern, looks=_LINK.looks),
    "lan": _LINK,
    "wan": _LINK,
    "addresses": _ADDRESSES,
    "mtu": Key(WHOLE, default=1420, low=576, high=9216),
    "routes": _ADDRESSES,
    "table": Key(EITHER, default="auto", pattern="auto|off", looks="'auto', 'off' or a number", low=1),
    "listen_port": Key(WHOLE, default=0, high=65535),
    "fwmark": Key(WHOLE, default=0),
    "lan_addresses": _ADDRESSES,
    "wan_addresses": _ADDRESSES,
    "wan_gateways": _ADDRESSES,
    "admin": Key(TEXT, pattern=r"[0-9A-Fa-f.:\[\]]{1,48}", looks="an address and a port, as 192.0.2.1:50051"),
}
_CPUS: Final = r"[0-9]{1,4}(-[0-9]{1,4})?"
XEN: Final[Shape] = {
    # A box whose policy is not enforced says so in so many words: on stock Xen two colluding guests can make a channel
    "xsm": Key(TEXT, default="enforcing", known=("enforcing", "absent")),
    "type": Key(TEXT, default="pvh", known=("pv", "pvh")),
    "cpus": Key(TEXT, default="", pattern=rf"({_CPUS}(,{_CPUS}){{0,15}})?", looks="a list of CPUs, as 2-3 or 0,2"),
}
NETWORK_RULE: Final = (
    "network",
    "Addresses, prefixes and names of interfaces are well-formed, no two parts of the box claim one interface or one "
    "address, and IPv6 has the MTU it needs.",
)
_READ: Final[dict[str, Callable[[str], object]]] = {
    "addresses": addresses.interface,
    "routes": addresses.prefix,
    "lan_addresses": addresses.interface,
    "wan_addresses": addresses.interface,
    "wan_gateways": addresses.address,
}


class Join(NamedTuple):
    """A line of ``[channels]``: two ends as written, and the way to the line."""

    client: End
    server: End
    way: Way


class Flow(NamedTuple):
    """What one channel carries one way: ``labels`` from ``sender`` to ``receiver``."""

    sender: End
    receiver: End
    schema: str
    labels: frozenset[str]
    way: Way


@dataclass
class Draft:
    """``domains`` are those whose role is known; ``declared`` are all that the file names, the unknown ones too."""

    document: Document
    name: str
    summary: str
    version: int | None
    declared: Mapping[str, tuple[Component | None, str | None]]
    domains: dict[str, Domain]
    joins: list[Join]
    malformed: list[tuple[Way, str]]
    settings: dict[str, dict[str, object]]
    limits: Mapping[str, int]
    network: Network | None
    bypasses: dict[End, str]
    catalogue: Catalogue
    xen: Xen
    warnings: list[str] = field(default_factory=list)
    peer_names: dict[str, str] = field(default_factory=dict)

    def role(self, name: str) -> Role | None:
        """The role of who has that name in ``[channels]``: a domain's, or the operator's."""
        if name == OPERATOR:
            return OPERATOR_ROLE
        domain = self.domains.get(name)
        return domain.role if domain else None

    def port(self, end: End) -> Port | None:
        role = self.role(end.domain)
        return role.ports.get(end.port) if role else None

    def clearance(self, name: str) -> frozenset[str]:
        """What ``name`` may see; one that nobody knows, nothing."""
        role = self.role(name)
        return role.clearance if role else frozenset()

    def joined(self) -> Iterator[tuple[Join, Port, Port]]:
        """The joins whose ends are both known ports."""
        for join in self.joins:
            client, server = self.port(join.client), self.port(join.server)
            if client and server:
                yield join, client, server

    def spreads(self) -> dict[End, list[str]]:
        """Every port that may be spread, and the domains that it is spread over, in their order."""
        found: dict[End, list[str]] = {}
        for join, client, _ in self.joined():
            if client.spreads:
                found.setdefault(join.client, []).append(join.server.domain)
        return found

    def flows(self) -> Iterator[Flow]:
        """Every way that a message goes, over the joins whose ports agree on what they carry."""
        for join, client, server in self.joined():
            if client.schema == server.schema:
                there, back = schemas.forward(client.schema), schemas.backward(client.schema)
                yield Flow(join.client, join.server, client.schema, there, join.way)
                if back:
                    yield Flow(join.server, join.client, client.schema, back, join.way)


def draft(document: Document, catalogue: Catalogue) -> Draft:
    """What ``document`` says, with a finding in it for all that is not of the right shape."""
    taken: Any = take(document, (), document.tables, ASSEMBLY)
    declared: dict[str, tuple[Component | None, str | None]] = {}
    domains: dict[str, Domain] = {}
    for name, table in taken["domains"].items():
        said: Any = take(document, ("domains", name), table, DOMAIN)
        component = catalogue.component(said["component"]) if said["component"] in catalogue.names() else None
        role = _role(component, said["role"])
        declared[name] = component, said["role"]
        if role:
            domains[name] = Domain(name, role, {}, said["memory_mib"] or role.memory_mib)
    joins, malformed = _joins(taken["channels"])
    limits: Any = take(document, ("limits",), taken["limits"], LIMITS)
    settings = {}
    for name, table in taken["settings"].items():
        if isinstance(table, dict):
            settings[name] = table
        else:
            take(document, ("settings", name), table, {})
    return Draft(
        document=document,
        name=taken["name"] or "",
        summary=taken["summary"] or "",
        version=taken["version"],
        declared=declared,
        domains=domains,
        joins=joins,
        malformed=malformed,
        settings=settings,
        limits=limits,
        network=_network(document) if "network" in document.tables else None,
        bypasses=_bypasses(document, taken["bypass"]),
        catalogue=catalogue,
        xen=_xen(document, taken["xen"]),
    )


def _role(component: Component | None, name: str | None) -> Role | None:
    """The role that a domain names; it may leave it out where the component has only one, or one of its own name."""
    if component is None:
        return None
    if name is None and len(component.roles) == 1:
        return next(iter(component.roles.values()))
    return component.roles.get(name or component.name)


def _end(text: object) -> End | None:
    match = re.fullmatch(r"([^.\x00-\x20]{1,64})\.([^.\x00-\x20]{1,64})", text) if isinstance(text, str) else None
    return End(*match.groups()) if match else None


def _joins(channels: Mapping[str, object]) -> tuple[list[Join], list[tuple[Way, str]]]:
    """The lines of ``[channels]`` as pairs of ends, and those that are not pairs of ends. A list is a channel each."""
    joins: list[Join] = []
    malformed: list[tuple[Way, str]] = []
    for left, right in channels.items():
        line: Way = ("channels", left)
        several = [((*line, i), one) for i, one in enumerate(right)] if isinstance(right, list) else []
        for way, one in several or [(line, right)]:
            client, server = _end(left), _end(one)
            if client is None or server is None:
                malformed.append((way, 'a channel is written "domain.port" = "domain.port", both quoted'))
            else:
                joins.append(Join(client, server, way))
    return joins, malformed


def _bypasses(document: Document, table: Mapping[str, object]) -> dict[End, str]:
    """The lines of ``[bypass]``: a port, and the reason in words."""
    found = {}
    for written, reason in table.items():
        end = _end(written)
        wrong = _REASON.wrong(reason) if end else 'names no port: a bypass is written "domain.port" = "the reason"'
        if wrong or end is None:
            document.refuse(KEYS, ("bypass", written), f"bypass.{show(written)} {wrong}")
        else:
            found[end] = str(reason)
    return found


def _xen(document: Document, table: object) -> Xen:
    taken: Any = take(document, ("xen",), table, XEN)
    return Xen(**taken)


def _network(document: Document) -> Network:
    taken: Any = take(document, ("network",), document.tables["network"], NETWORK)
    for key, read in _READ.items():
        good = []
        for i, text in enumerate(taken[key]):
            try:
                good.append(read(text))
            except ValueError as error:
                document.refuse(NETWORK_RULE, ("network", key, i), f"network.{key}[{i}]: {error}")
        taken[key] = tuple(good)
    try:
        taken["admin"] = addresses.service(taken["admin"]) if taken["admin"] else None
    except ValueError as error:
        document.refuse(NETWORK_RULE, ("network", "admin"), f"network.admin: {error}")
        taken["admin"] = None
    return Network(**taken)
