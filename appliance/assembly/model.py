"""What an assembly is, once every validator has agreed: frozen values, nothing to check and nothing to look up.

A *role* is what a component can be, a *domain* one running instance of a role, a *channel* one vchan between two ports.
The client of a channel is the producer of a stream or the caller of a call, the server its consumer or callee.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from appliance.guest.outside import OPERATOR

LABELS: Final = ("PUBLIC", "CONTROL", "BLACK", "RED", "KEY")
"""How secret a field is, from the least (proto/septum/v1/options.proto)."""

RED_TO_BLACK: Final = "RED->BLACK"
"""The one transform there is: plaintext in, ciphertext out."""

OUTER_MTU: Final = 1500
"""Bytes of the largest packet that comes in clear from the outside: what Ethernet carries."""

ADMIN_DEFAULT: Final = ("127.0.0.1", 50051)
"""Where administrators call a box that does not say: the host itself, and nobody else."""

EndKind = Literal["out", "in", "client", "server"]

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Prefix = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Device:
    """Something of the host that one domain is handed. ``network`` if packets enter and leave the box by it."""

    name: str
    label: str
    network: bool


DEVICES: Final[Mapping[str, Device]] = MappingProxyType(
    {
        device.name: device
        for device in (
            Device("tun", "RED", network=True),
            Device("udp4", "BLACK", network=True),
            Device("udp6", "BLACK", network=True),
            Device("red_link", "RED", network=True),
            Device("black_link", "BLACK", network=True),
            Device("outer_tun", "BLACK", network=True),
            Device("store", "BLACK", network=False),
            Device("journal", "PUBLIC", network=False),
            Device("management", "CONTROL", network=False),
            Device("identity", "CONTROL", network=False),
            Device("box", "CONTROL", network=False),
            Device("orders", "CONTROL", network=False),
        )
    }
)
"""Every device a role may declare, and what may pass through it."""


@dataclass(frozen=True)
class Port:
    """A role's own name for one end of a channel. ``many`` channels at most may end here (1 for a ``client``); none, if
    it is ``optional``.

    An ``out`` of many is *spread* over the domains at the other ends, its replicas: each has a share of the peers.
    """

    name: str
    schema: str
    end: EndKind
    many: int = 1
    optional: bool = False

    @property
    def begins(self) -> bool:
        """The port belongs on the left of a line in ``[channels]``."""
        return self.end in ("out", "client")

    @property
    def spreads(self) -> bool:
        """What goes out here is shared out among replicas."""
        return self.end == "out" and self.many > 1


@dataclass(frozen=True)
class Role:
    """One thing a component can be, as its component.toml has it.

    ``main`` and ``settings_module`` are modules, ``board`` the rows of 64 bytes behind its status page (one a tunnel
    peer). ``bypass`` are the ports by which plaintext may leave in clear where the assembly declares it.
    ``descriptors`` is how many connections it may hold that it accepted itself.
    """

    component: str
    name: str
    summary: str
    main: str
    settings_module: str | None
    clearance: frozenset[str]
    transforms: frozenset[str]
    imports: tuple[str, ...]
    devices: tuple[str, ...]
    syscalls: tuple[str, ...]
    memory_mib: int
    counters: tuple[str, ...]
    ports: Mapping[str, Port]
    board: int = 0
    bypass: tuple[str, ...] = ()
    descriptors: int = 0


COMMITS: Final = "commits"
"""The port at which a domain is handed what administrators have signed."""

OPERATOR_ROLE: Final = Role(
    component="",
    name=OPERATOR,
    summary="The administrator's tool, outside of the box: `septum filter`, one at a time",
    main="",
    settings_module=None,
    clearance=frozenset({"PUBLIC", "CONTROL", "RED"}),
    transforms=frozenset(),
    imports=(),
    devices=(),
    syscalls=(),
    memory_mib=0,
    counters=(),
    ports=MappingProxyType({"filter": Port("filter", "filtering", "client", optional=True)}),
)
"""Who stands outside of the box: not a domain, but a name that a line of ``[channels]`` may begin with. What it may
call, and is cleared for; a box without such a line gives none of it.
"""

REPLACED_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({"filter": "ruleset"})
"""Port of the operator -> the setting of the domain at the other end that who holds it may replace for later lives."""


@dataclass(frozen=True)
class Domain:
    """One running instance of a role. ``settings`` may hold ``Secret``s, so they stay out of the repr."""

    name: str
    role: Role
    settings: Mapping[str, object] = field(repr=False)
    memory_mib: int


@dataclass(frozen=True, order=True)
class End:
    """One end of a channel: a port of a domain."""

    domain: str
    port: str

    def __str__(self) -> str:
        return f"{self.domain}.{self.port}"


@dataclass(frozen=True)
class Channel:
    """Two joined ports. ``client`` produces or calls, ``server`` consumes or answers."""

    client: End
    server: End
    schema: str


@dataclass(frozen=True)
class Bypass:
    """A port by which RED reaches BLACK untransformed, and why: declared in the assembly, for everybody to read."""

    port: End
    reason: str


@dataclass(frozen=True)
class Network:
    """The box's place in the network.

    ``lan`` and ``wan`` are interfaces of the host that move into the namespaces of red and black; None leaves that side
    on the host, as wg-quick does. ``addresses`` belong to the ``tunnel`` interface, ``lan_addresses`` and
    ``wan_addresses`` to the moved interfaces (empty: they keep what they have). ``routes`` lead into the tunnel, by
    ``table``. ``mtu`` in bytes. ``listen_port`` 0 is any free port, ``fwmark`` 0 is none. ``clear`` are the prefixes
    that are reached without the tunnel, in a box that declares it: they follow from the filter's settings. ``admin`` is
    the host's address and port at which administrators call, in a box with the admin domain.
    """

    tunnel: str
    lan: str | None = None
    wan: str | None = None
    addresses: tuple[Interface, ...] = ()
    mtu: int = 1420
    routes: tuple[Prefix, ...] = ()
    table: int | Literal["auto", "off"] = "auto"
    listen_port: int = 0
    fwmark: int = 0
    lan_addresses: tuple[Interface, ...] = ()
    wan_addresses: tuple[Interface, ...] = ()
    wan_gateways: tuple[Address, ...] = ()
    clear: tuple[Prefix, ...] = ()
    admin: tuple[str, int] | None = None


@dataclass(frozen=True)
class Xen:
    """What the file says for the Xen back end; the process back end does not look at it.

    ``xsm`` is "enforcing", or "absent" for a Xen without an enforced policy. ``type`` is the kind of guest, ``cpus``
    the physical CPUs that domains may run on, as xl writes them ("2-3"; "": all).
    """

    xsm: Literal["enforcing", "absent"] = "enforcing"
    type: Literal["pv", "pvh"] = "pvh"
    cpus: str = ""


_PROOF: Final = object()


@dataclass(frozen=True)
class ValidatedAssembly:
    """A box that every validator has passed: the only thing the monitor accepts.

    Only ``appliance.assembly.load`` makes one; anybody else gets TypeError. Without a ``network`` it is a plan: it can
    be checked and drawn, but has no way in or out until a wg-quick file or a ``[network]`` table gives one.
    ``warnings`` are lines for the user about what was accepted all the same, ``peer_names`` what the file calls the
    peers, by public key; ``bypasses`` are where plaintext leaves.
    """

    name: str
    summary: str
    domains: tuple[Domain, ...]
    channels: tuple[Channel, ...]
    network: Network | None
    source: Path
    warnings: tuple[str, ...] = ()
    bypasses: tuple[Bypass, ...] = ()
    peer_names: Mapping[str, str] = field(default_factory=dict)
    xen: Xen = Xen()
    proof: InitVar[object] = None

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("a ValidatedAssembly comes only from appliance.assembly.load.load or .wgquick.from_wgquick")

    def called_at(self, admin: tuple[str, int]) -> ValidatedAssembly:
        """The same box, which administrators call at this address of the host and port."""
        assert self.network is not None
        return replace(self, network=replace(self.network, admin=admin), proof=_PROOF)

    @property
    def trusting(self) -> frozenset[str]:
        """The domains that act upon what administrators sign, and so must know whom to believe."""
        acting = {channel.server.domain for channel in self.channels if channel.server.port == COMMITS}
        return frozenset(acting | {domain.name for domain in self.domains if domain.role.component == "config"})

    def with_trust(self, trust: Mapping[str, str]) -> ValidatedAssembly:
        """The same box, whose domains believe what this console, and whom it invited, sign for it."""
        domains = tuple(
            replace(one, settings=MappingProxyType({**one.settings, "trust": dict(trust)}))
            if one.name in self.trusting
            else one
            for one in self.domains
        )
        return replace(self, domains=domains, proof=_PROOF)

    def domain(self, name: str) -> Domain:
        """The domain of that name. KeyError if there is none."""
        for domain in self.domains:
            if domain.name == name:
                return domain
        raise KeyError(name)

    @property
    def wired(self) -> tuple[Channel, ...]:
        """The channels between domains: all but the operator's."""
        return tuple(one for one in self.channels if OPERATOR not in (one.client.domain, one.server.domain))

    @property
    def operated(self) -> tuple[Channel, ...]:
        """The channels of which the operator has an end."""
        return tuple(one for one in self.channels if OPERATOR in (one.client.domain, one.server.domain))

    @property
    def devices(self) -> frozenset[str]:
        """All that the domains hold of the host."""
        return frozenset(device for domain in self.domains for device in domain.role.devices)

    def bypass(self, port: End) -> str | None:
        """The reason why plaintext leaves by ``port``; None if it does not."""
        return next((bypass.reason for bypass in self.bypasses if bypass.port == port), None)

    @property
    def parties(self) -> tuple[Domain, ...]:
        """All who have ends of channels: the domains, and the operator if the file joins it to anything."""
        outside = any(OPERATOR in (channel.client.domain, channel.server.domain) for channel in self.channels)
        return (*self.domains, Domain(OPERATOR, OPERATOR_ROLE, MappingProxyType({}), 0)) if outside else self.domains

    def channels_of(self, domain: str) -> tuple[Channel, ...]:
        """The channels that end at ``domain``, in the order of the file."""
        return tuple(channel for channel in self.channels if domain in (channel.client.domain, channel.server.domain))
