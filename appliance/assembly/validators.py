"""The rules that an assembly must keep: each a name, one sentence (its docstring, which is also the manual), and a
function.

A validator yields ``(way, detail)`` for every place where the draft breaks its rule. Validators know nothing of each
other and say nothing about what another one refuses: a port that does not exist has no schema to disagree about.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from appliance.assembly import schemas
from appliance.assembly.catalogue import LOOKS, NAME
from appliance.assembly.document import KEYS, WELL_FORMED
from appliance.assembly.draft import NETWORK_RULE, VERSION, Draft, Flow
from appliance.assembly.findings import hint, scrub, show
from appliance.assembly.keyfiles import SECRETS
from appliance.assembly.lines import Path as Way
from appliance.assembly.model import COMMITS, DEVICES, RED_TO_BLACK, End
from appliance.assembly.rulesfile import RULES
from appliance.assembly.settings import plain
from appliance.guest.outside import DOM0, OPERATOR
from appliance.guest.secret import Secret
from appliance.guest.settings import SettingsError
from appliance.vchan.schema import Kind

Broken = Iterator[tuple[Way, str]]


@dataclass(frozen=True)
class Validator:
    """One rule. ``check`` yields the places where a draft breaks it."""

    name: str
    sentence: str
    check: Callable[[Draft], Broken]

    @property
    def rule(self) -> tuple[str, str]:
        return self.name, self.sentence


VALIDATORS: Final[list[Validator]] = []


def validator(name: str, sentence: str = "") -> Callable[[Callable[[Draft], Broken]], Callable[[Draft], Broken]]:
    """Registers a rule under ``name``; its sentence is the docstring, if none is given."""

    def register(check: Callable[[Draft], Broken]) -> Callable[[Draft], Broken]:
        VALIDATORS.append(Validator(name, sentence or " ".join((check.__doc__ or "").split()), check))
        return check

    return register


@validator("version")
def version(draft: Draft) -> Broken:
    """The file says which version of the format it is written in, and it is one that this program knows."""
    if draft.version is not None and draft.version != VERSION:
        yield ("version",), f"version {draft.version} is not known; this program knows version {VERSION}"


# What the monitor and its picture of the box call their own
RESERVED: Final = ("monitor", "host", "lan", "wan", OPERATOR, DOM0)


@validator("names")
def names(draft: Draft) -> Broken:
    """The box and its domains have names that are safe in a path and in an environment variable, and that the monitor
    does not use for itself.
    """
    if not re.fullmatch(NAME, draft.name):
        yield ("name",), f"the name {show(draft.name)} must be {LOOKS}"
    for name in draft.declared:
        if not re.fullmatch(NAME, name):
            yield ("domains", name), f"the domain's name {show(name)} must be {LOOKS}"
        elif name in RESERVED:
            yield ("domains", name), f"the monitor uses the name {name!r} for itself"


@validator("components")
def components(draft: Draft) -> Broken:
    """Every domain names a component that is installed and one of its roles."""
    for name, (component, role) in draft.declared.items():
        way: Way = ("domains", name)
        if component is None:
            known = draft.catalogue.names()
            table = draft.document.tables["domains"]
            said = table[name].get("component") if isinstance(table, dict) and isinstance(table[name], dict) else None
            if isinstance(said, str):  # anything else is already a finding
                yield (*way, "component"), f"there is no component {show(said)}{hint(said, known)}"
        elif name not in draft.domains and component.roles:
            roles = tuple(component.roles)
            if role is None:
                yield way, f"component {component.name!r} has more than one role; say role = …{hint('', roles)}"
            else:
                yield (*way, "role"), f"component {component.name!r} has no role {show(role)}{hint(role, roles)}"


@validator("ends")
def ends(draft: Draft) -> Broken:
    """Every line of [channels] joins a port of one domain to a port of another, and both exist."""
    yield from draft.malformed
    for join in draft.joins:
        for end in (join.client, join.server):
            role = draft.role(end.domain)
            if end.domain not in draft.declared and role is None:
                yield join.way, f"there is no domain {show(end.domain)}{hint(end.domain, tuple(draft.declared))}"
            elif role is not None and end.port not in role.ports:
                whose = "the operator" if end.domain == OPERATOR else f"domain {end.domain!r}"
                yield join.way, f"{whose} has no port {show(end.port)}{hint(end.port, tuple(role.ports))}"
        if join.client.domain == join.server.domain:
            yield join.way, f"domain {show(join.client.domain)} is joined to itself"


@validator("joined-once")
def joined_once(draft: Draft) -> Broken:
    """Every port is joined exactly once, an optional one at most once; a port that takes many channels is joined at
    least once and at most that many times.
    """
    used = Counter(end for join, _, _ in draft.joined() for end in (join.client, join.server))
    # A port may wait in vain only because the line that should join it is refused already
    refused = {str(end) for join in draft.joins for end in (join.client, join.server)} - {str(end) for end in used}
    for name in (*draft.domains, OPERATOR):
        role = draft.role(name)
        for port in role.ports.values() if role else ():
            end = End(name, port.name)
            count = used[end]
            if count > port.many:
                most = "once" if port.many == 1 else f"at most {port.many} times"
                for join in [join for join in draft.joins if end in (join.client, join.server)][port.many :]:
                    yield join.way, f"{end} is joined {count} times; it can be joined {most}"
            elif count == 0 and not port.optional and str(end) not in refused:
                side = "begins" if port.begins else "ends"
                yield ("domains", name), f"{end} is not joined: no channel {side} there (schema {port.schema})"


# What a channel may lead from and to, and what its schema must then be
OPPOSITE: Final = {"out": ("in", Kind.STREAM), "client": ("server", Kind.CALL)}


@validator("direction")
def direction(draft: Draft) -> Broken:
    """A channel leads from a producer to a consumer or from a caller to a server, as its schema says it must."""
    for join, client, server in draft.joined():
        ends = f"{join.client} is of kind {client.end!r}, {join.server} of kind {server.end!r}"
        far, kind = OPPOSITE.get(client.end, ("", None))
        found = schemas.find(client.schema) if client.schema == server.schema else None
        if far != server.end:
            yield join.way, f"from 'out' to 'in' or from 'client' to 'server', but {ends}"
        elif found and found.kind is not kind:
            yield join.way, f"schema {client.schema!r} is a {found.kind.name.lower()}, but {ends}"


@validator("schema")
def schema(draft: Draft) -> Broken:
    """Both ends of a channel speak the same schema, and it exists."""
    for join, client, server in draft.joined():
        if client.schema != server.schema:
            yield join.way, f"{join.client} speaks {client.schema!r}, {join.server} speaks {server.schema!r}"
        elif schemas.find(client.schema) is None:
            yield (
                join.way,
                f"there is no schema {client.schema!r}: no proto/septum/v1/{client.schema}.proto with a channel in it",
            )


@validator("clearance")
def clearance(draft: Draft) -> Broken:
    """A domain is cleared for every label that a channel or a device can bring to it or take from it."""
    for flow in draft.flows():
        for end in (flow.sender, flow.receiver):
            for label in sorted(flow.labels - {"KEY"} - draft.clearance(end.domain)):
                yield flow.way, f"{label} passes {end} (schema {flow.schema}); {end.domain} is not cleared for {label}"
    for name, domain in draft.domains.items():
        for device in map(DEVICES.__getitem__, domain.role.devices):
            if device.label not in domain.role.clearance:
                yield (
                    ("domains", name),
                    f"{name} holds {device.name}, which is {device.label}, and is not cleared for that",
                )


def _holds_secret(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_secret, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Secret)


@validator("keys-stay")
def keys_stay(draft: Draft) -> Broken:
    """KEY reaches only domains that are cleared for it: by channel, or in their settings."""
    for flow in draft.flows():
        for end in (flow.sender, flow.receiver):
            if "KEY" in flow.labels and "KEY" not in draft.clearance(end.domain):
                yield (
                    flow.way,
                    f"{flow.schema} carries keys from {flow.sender} to {flow.receiver}; {end.domain} may see none",
                )
    for name, table in draft.settings.items():
        domain = draft.domains.get(name)
        if domain and "KEY" not in domain.role.clearance and _holds_secret(table):
            yield ("settings", name), f"the settings of {name} hold a key; {name} may see none"


def _red_path(draft: Draft, to: str) -> str:
    """How RED comes to the domain ``to``, from its source, as a reader follows it."""
    flows = [flow for flow in draft.flows() if "RED" in flow.labels]
    steps: list[str] = []
    seen = {to}
    at = to
    while not _red_devices(draft, at):
        flow: Flow | None = next((f for f in flows if f.receiver.domain == at and f.sender.domain not in seen), None)
        if flow is None:
            return " -> ".join([at, *steps])
        steps.insert(0, f"{flow.receiver}")
        at = flow.sender.domain
        seen.add(at)
    return " -> ".join([f"{_red_devices(draft, at)[0]} of {at}", *steps])


def _red_devices(draft: Draft, name: str) -> list[str]:
    role = draft.role(name)
    return [device for device in (role.devices if role else ()) if DEVICES[device].label == "RED"]


def _given_red(draft: Draft) -> set[str]:
    """The domains that plaintext comes to, by a channel or a device."""
    given = {flow.receiver.domain for flow in draft.flows() if "RED" in flow.labels}
    return given | {name for name in draft.domains if _red_devices(draft, name)}


@validator("red-to-black")
def red_to_black(draft: Draft) -> Broken:
    """RED reaches BLACK only through a domain that declares RED->BLACK, or by a port that [bypass] names: no other
    domain that is given plaintext can send anything labelled BLACK, on a channel or to a device.
    """
    for name in sorted(_given_red(draft)):
        role = draft.role(name)
        if role is None or RED_TO_BLACK in role.transforms:
            continue
        for flow in draft.flows():
            if flow.sender.domain == name and "BLACK" in flow.labels and flow.sender not in draft.bypasses:
                path = f"{_red_path(draft, name)} [RED] -> {flow.receiver} [BLACK, by {flow.schema}]"
                yield flow.way, f"plaintext could leave: {path}; {name} does not declare {RED_TO_BLACK}"
        for device in role.devices:
            if DEVICES[device].label == "BLACK":
                path = f"{_red_path(draft, name)} [RED] -> {device} of {name} [BLACK]"
                yield ("domains", name), f"plaintext could leave: {path}; {name} does not declare {RED_TO_BLACK}"


@validator("bypass")
def bypass(draft: Draft) -> Broken:
    """A bypass is declared only for a port that its component offers for that, and only where plaintext really leaves
    by it: none is declared in vain.
    """
    given = _given_red(draft)
    for end in draft.bypasses:
        way: Way = ("bypass", str(end))
        domain = draft.domains.get(end.domain)
        if domain is None:
            if end.domain not in draft.declared:
                yield way, f"there is no domain {show(end.domain)}{hint(end.domain, tuple(draft.declared))}"
        elif end.port not in domain.role.bypass:
            offered = f"; it offers {', '.join(domain.role.bypass)}" if domain.role.bypass else ""
            yield way, f"{domain.role.component}/component.toml offers no bypass by {end}{offered}"
        elif end.domain not in given or not any(
            flow.sender == end and "BLACK" in flow.labels for flow in draft.flows()
        ):
            yield way, f"nothing that is RED leaves by {end}: the line declares what is not there"


_SHORTEST_REASON: Final = 16


@validator("bypass-reason")
def bypass_reason(draft: Draft) -> Broken:
    """A declared bypass gives its reason in words, for those who read the assembly, the picture and the status."""
    for end, reason in draft.bypasses.items():
        if len(reason.strip()) < _SHORTEST_REASON or len(reason.split()) < 3:
            yield ("bypass", str(end)), f"{show(reason)} is no reason: say in a few words why plaintext may leave here"


@validator("one-transform")
def one_transform(draft: Draft) -> Broken:
    """One domain, or the replicas that one port is spread over, turn RED into BLACK; some domain does in a box with a
    RED and a BLACK network device that declares no bypass.
    """
    transforming = [name for name, domain in draft.domains.items() if RED_TO_BLACK in domain.role.transforms]
    sets = draft.spreads().values()
    for name in transforming[1:]:
        if not any(name in members and transforming[0] in members for members in sets):
            yield ("domains", name), f"{name} turns RED into BLACK, and so does {transforming[0]}; there can be one"
    devices = [DEVICES[device] for domain in draft.domains.values() for device in domain.role.devices]
    faces = {device.label for device in devices if device.network}
    known = len(draft.domains) == len(draft.declared)  # the one that is not known may be the one
    if known and not transforming and not draft.bypasses and {"RED", "BLACK"} <= faces:
        yield ("domains",), f"no domain declares {RED_TO_BLACK}, yet the box has a RED and a BLACK network device"


def _fars(draft: Draft, name: str) -> dict[str, str]:
    """What each port of a domain is joined to."""
    ends = [pair for join, _, _ in draft.joined() for pair in ((join.client, join.server), (join.server, join.client))]
    return {own.port: str(far) for own, far in ends if own.domain == name}


@validator("replicas")
def replicas(draft: Draft) -> Broken:
    """The domains that a port is spread over are replicas: of one role, each port of theirs joined to the same port as
    that of the others.
    """
    for end, members in draft.spreads().items():
        first = members[0]
        for name in members[1:]:
            roles = [draft.role(one) for one in (first, name)]
            if roles[0] is not roles[1]:
                yield ("domains", name), f"{end} is spread over {first} and {name}, which are not of one role"
                continue
            fars = _fars(draft, first)
            for port, far in _fars(draft, name).items():
                if far != fars.get(port, far):  # one that is not joined at all is refused already
                    yield ("domains", name), f"{name}.{port} is joined to {far}, {first}.{port} to {fars[port]}"


@validator("numbers")
def numbers(draft: Draft) -> Broken:
    """Replicas are numbered by the order of their lines, and that is the same at every port they are joined to."""
    spread = draft.spreads()
    sets = {frozenset(members): (end, members) for end, members in reversed(spread.items())}
    for end, members in sets.values():
        order: dict[End, list[tuple[str, Way]]] = {}
        for join, _, _ in draft.joined():
            for own, far in ((join.client, join.server), (join.server, join.client)):
                if own.domain in members:
                    order.setdefault(far, []).append((own.domain, join.way))
        for far, joined in order.items():
            for (name, way), wanted in zip(joined, members, strict=False):
                if name != wanted and sorted(name for name, _ in joined) == sorted(members):
                    yield way, f"{name} stands at {far} where {wanted} stands at {end}"
                    break


@validator("even-sets")
def even_sets(draft: Draft) -> Broken:
    """All ports of a box that can be spread are spread over as many domains: the first of each set belong together, the
    second, and so on.
    """
    spread = draft.spreads()
    first = next(iter(spread), None)
    for end, members in spread.items():
        if first and len(members) != len(spread[first]):
            way = next(join.way for join in draft.joins if join.client == end)
            yield way, f"{end} is spread over {len(members)} domains, {first} over {len(spread[first])}"


@validator("operator")
def operator(draft: Draft) -> Broken:
    """The operator, who is outside of the box, calls no domain that may see a key."""
    for join in draft.joins:
        if join.client.domain == OPERATOR and "KEY" in draft.clearance(join.server.domain):
            yield join.way, f"{join.server.domain} may see keys, and whoever is outside of the box may not call it"


@validator("one-source")
def one_source(draft: Draft) -> Broken:
    """A domain that goes by what administrators commit takes no orders from the operator besides."""
    committed = {join.server.domain for join in draft.joins if join.server.port == COMMITS}
    for join in draft.joins:
        if join.client.domain == OPERATOR and join.server.domain in committed:
            yield join.way, f"{join.server.domain} goes by what is committed: what the operator replaced, nobody signed"


@validator("calls")
def calls(draft: Draft) -> Broken:
    """The call graph has no cycle: nobody waits, by whatever detour, for somebody who waits for him."""
    callees: dict[str, list[tuple[str, Way]]] = {}
    for join, client, _ in draft.joined():
        if client.end == "client":
            callees.setdefault(join.client.domain, []).append((join.server.domain, join.way))
    # Whoever calls nobody that is left answers at once; take these away until none is left but those on or before a
    # cycle
    waiting = dict(callees)
    while free := [name for name, to in waiting.items() if not any(callee in waiting for callee, _ in to)]:
        for name in free:
            del waiting[name]
    if waiting:
        path = [min(waiting)]
        while path.count(path[-1]) == 1:
            path.append(next(callee for callee, _ in callees[path[-1]] if callee in waiting))
        cycle = path[path.index(path[-1]) :]
        way = next(way for callee, way in callees[cycle[0]] if callee == cycle[1])
        yield way, f"a cycle of calls: {' -> '.join(cycle)}"


@validator("devices")
def devices(draft: Draft) -> Broken:
    """A device is held only by a domain whose role declares it, and by one domain at most."""
    holders: dict[str, str] = {}
    for name, domain in draft.domains.items():
        for device in domain.role.devices:
            if device in holders:
                yield ("domains", name), f"{name} would hold the device {device}, which {holders[device]} holds already"
            holders.setdefault(device, name)


@validator("limits")
def limits(draft: Draft) -> Broken:
    """The sums of memory, channels, events and grants fit the limits of the box."""
    allowed = draft.limits
    used = [(join, client.schema) for join, client, server in draft.joined() if client.schema == server.schema]
    rings = sum(schemas.memory(name) for _, name in used)
    domains_mib = sum(domain.memory_mib for domain in draft.domains.values())
    total_mib = domains_mib + -(-rings // 2**20)
    if total_mib > allowed["memory_mib"]:
        yield (
            ("limits", "memory_mib"),
            f"the box needs {total_mib} MiB ({domains_mib} for domains, the rest for rings); "
            f"limits.memory_mib is {allowed['memory_mib']}",
        )
    for name in draft.domains:
        own = [schema for join, schema in used if name in (join.client.domain, join.server.domain)]
        sums = {
            "channels": len(own),
            "events": len(own) * schemas.EVENTS,
            "grants": sum(map(schemas.grants, own)),
        }
        for what, amount in sums.items():
            most = allowed[f"{what}_per_domain"]
            if amount > most:
                yield ("domains", name), f"{name} would have {amount} {what}; limits.{what}_per_domain is {most}"


def _way(path: str) -> Way:
    """``peers[2].endpoint`` of a SettingsError as the way to a key."""
    return tuple(int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", path))


@validator("settings")
def settings(draft: Draft) -> Broken:
    """The settings of a domain are what its component's own settings module accepts; no other domain has any."""
    for name in draft.settings:
        if name not in draft.declared:
            yield ("settings", name), f"there is no domain {show(name)}{hint(name, tuple(draft.declared))}"
    for name, domain in draft.domains.items():
        way: Way = ("settings", name)
        module = domain.role.settings_module
        given = draft.settings.get(name)
        if given is None and draft.network is None:
            continue  # a plan: its settings come with its network
        if module is None:
            if given:
                yield way, f"the role {domain.role.name!r} of {domain.role.component!r} has no settings"
            continue
        if any(finding.validator == SECRETS[0] for finding in draft.document.findings):
            continue  # a key that could not be read would be missed once more here
        try:
            importlib.import_module(module).parse(domain.role.name, plain(given or {}))
        except SettingsError as error:
            near = hint(error.path.rpartition(".")[2], error.known)
            yield (*way, *_way(error.path)), scrub(f"settings.{name}{'.' if error.path else ''}{error}{near}")
        except ValueError:
            yield way, f"the settings of {name} hold a number that is not one (inf or nan)"
        except ModuleNotFoundError:
            yield ("domains", name), f"{module} is not installed, and {domain.role.component}/component.toml names it"


@validator(*NETWORK_RULE)
def network(draft: Draft) -> Broken:
    net = draft.network
    if net is None:
        return
    links = {key: getattr(net, key) for key in ("lan", "wan") if getattr(net, key)}
    if any("tun" in domain.role.devices for domain in draft.domains.values()):
        links = {"tunnel": net.tunnel, **links}
    for key, link in links.items():
        twin = next(other for other in links if links[other] == link)
        if twin != key:
            yield ("network", key), f"network.{key} and network.{twin} are both {link!r}"
    for key in ("addresses", "routes", "lan_addresses", "wan_addresses", "wan_gateways"):
        seen = set()
        for i, one in enumerate(getattr(net, key)):
            claimed = getattr(one, "ip", one)  # of an interface's address, the prefix does not matter
            if claimed in seen:
                yield ("network", key, i), f"network.{key} has {claimed} twice"
            seen.add(claimed)
    if net.mtu < 1280 and any(own.version == 6 for own in (*net.addresses, *net.routes)):
        yield ("network", "mtu"), f"an MTU of {net.mtu} is too small for IPv6, which needs 1280 (RFC 8200 section 5)"


# Devices that are an interface of the host, or stand beside one in its namespace
_FACES: Final = {"red_link": "lan", "black_link": "wan", "outer_tun": "wan"}


@validator("faces")
def faces(draft: Draft) -> Broken:
    """A box with a network names the interfaces that its domains take over: lan where frames of the protected side
    pass, wan where frames or packets of the outside do.
    """
    if draft.network is None:
        return
    for name, domain in draft.domains.items():
        for device in domain.role.devices:
            key = _FACES.get(device)
            if key and getattr(draft.network, key) is None:
                why = f"{name} holds {device}, an interface of its own: say which (septum up … --{key} INTERFACE)"
                yield ("network", key), why


def manual() -> str:
    """Every rule as a row of a Markdown table, in the order in which they are checked."""
    rules = [WELL_FORMED, KEYS, SECRETS, RULES, *(validator.rule for validator in VALIDATORS)]
    rows = "".join(f"| `{name}` | {sentence} |\n" for name, sentence in rules)
    return f"| validator | rule |\n| --- | --- |\n{rows}"
