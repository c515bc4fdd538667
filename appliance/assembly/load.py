"""From an assembly file to a ``ValidatedAssembly``, or to every reason why not. Any doubt refuses the whole file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from appliance.assembly import keyfiles, model, rulesfile
from appliance.assembly.addresses import prefix
from appliance.assembly.catalogue import COMPONENTS, Catalogue
from appliance.assembly.document import Document, read
from appliance.assembly.draft import NETWORK_RULE, Draft, draft
from appliance.assembly.findings import AssemblyError, Finding
from appliance.assembly.model import Bypass, Channel, Domain, Network, ValidatedAssembly
from appliance.assembly.validators import VALIDATORS
from appliance.guest.secret import Secret

__all__ = ["ASSEMBLIES", "VPN", "AssemblyError", "Finding", "load", "validate"]

ASSEMBLIES: Final = COMPONENTS.parent / "assemblies"
"""The ready-made ones."""

VPN: Final = ASSEMBLIES / "vpn.toml"
"""The gateway that a wg-quick file is laid over."""


def load(path: Path, *, lan: str | None = None, wan: str | None = None, rules: Path | None = None) -> ValidatedAssembly:
    """The box that the file at ``path`` describes. ``lan`` and ``wan`` take the place of those in its ``[network]``,
    ``rules`` that of the file that the filter's settings name.

    Errors: AssemblyError with every finding: file, line, validator.
    """
    document = read(path)
    if not document.tables and document.findings:
        raise AssemblyError(document.findings)
    overrides = {key: link for key, link in (("lan", lan), ("wan", wan)) if link is not None}
    if overrides:
        table = document.tables.get("network")
        if isinstance(table, dict):
            table.update(overrides)
        elif not _tunnels(document):
            document.tables["network"] = overrides
        else:
            why = f"{' and '.join(overrides)} given, but the file has no [network]; septum up wg0.conf brings one"
            document.refuse(NETWORK_RULE, (), why)
    return validate(document, rules=rules)


def _tunnels(document: Document) -> bool:
    """Whether the box has a tunnel, so that two interfaces are not all that it must be told of its network."""
    copy = Document(document.file, document.tables, document.lines)  # findings are for ``validate`` to make
    return any("tun" in domain.role.devices for domain in draft(copy, Catalogue()).domains.values())


def validate(
    document: Document, *, source: Path | None = None, warnings: tuple[str, ...] = (), rules: Path | None = None
) -> ValidatedAssembly:
    """The box that ``document`` describes; ``source`` is the file the user named, if that is another one. ``rules``
    as in ``load``.

    Errors: AssemblyError with every finding.
    """
    catalogue = Catalogue()
    drafted = draft(document, catalogue)
    drafted.warnings += warnings
    manifests = {component.name: component for component, _ in drafted.declared.values() if component}
    if broken := [finding for component in manifests.values() for finding in component.findings]:
        # What a broken component.toml says about its ports is not worth a second finding
        raise AssemblyError(document.findings + broken)
    drafted.settings = {
        name: _loaded(document, name, table, drafted.warnings) for name, table in drafted.settings.items()
    }
    _rules(drafted, rules)
    _complete(drafted)
    for validator in VALIDATORS:
        document.findings += [document.finding(validator.rule, *broken) for broken in validator.check(drafted)]
    if document.findings:
        raise AssemblyError(document.findings)
    return ValidatedAssembly(
        name=drafted.name,
        summary=drafted.summary,
        domains=tuple(
            dataclasses.replace(domain, settings=MappingProxyType(drafted.settings.get(name, {})))
            for name, domain in drafted.domains.items()
        ),
        channels=tuple(Channel(join.client, join.server, client.schema) for join, client, _ in drafted.joined()),
        network=drafted.network,
        source=source or document.file,
        warnings=tuple(drafted.warnings),
        bypasses=tuple(Bypass(end, reason) for end, reason in drafted.bypasses.items()),
        peer_names=MappingProxyType(drafted.peer_names),
        xen=drafted.xen,
        proof=model._PROOF,
    )


def _loaded(document: Document, name: str, table: dict[str, object], warnings: list[str]) -> dict[str, object]:
    loaded = keyfiles.load(document, ("settings", name), table, warnings)
    assert isinstance(loaded, dict)  # as its argument is
    return loaded


def _rules(drafted: Draft, override: Path | None) -> None:
    """Compiles the rules of the filter. What peers are called is for these alone: keymgr knows keys."""
    peers: list[dict[str, object]] | None = None
    for name in _of(drafted, "keymgr"):
        own = drafted.settings.get(name, {})
        if isinstance(given := own.get("peers"), list) and all(isinstance(peer, dict) for peer in given):
            peers = given
            named = (peer for peer in given if peer.keys() >= {"name", "public_key"})
            drafted.peer_names |= {str(peer["public_key"]): str(peer["name"]) for peer in named}
            drafted.settings[name] = own | {"peers": [{k: peer[k] for k in peer if k != "name"} for peer in given]}
    filters = _of(drafted, "filter")
    for name in filters:
        table = drafted.settings.get(name, {})
        is_managed = any(join.server == model.End(name, model.COMMITS) for join in drafted.joins)
        is_said = not is_managed and (name in drafted.settings or drafted.network is not None)
        found = rulesfile.load(
            drafted.document,
            ("settings", name),
            table,
            drafted.domains[name].role,
            peers,
            drafted.warnings,
            override,
            is_said=is_said,
        )
        if found or name in drafted.settings:
            drafted.settings[name] = found
    if override is not None and not filters:
        drafted.document.refuse(rulesfile.RULES, (), f"there is no filter that the rules of {override} could be for")


_EVERYWHERE: Final = (prefix("0.0.0.0/0"), prefix("::/0"))


def _of(drafted: Draft, component: str) -> list[str]:
    """The names of the domains of a component."""
    return [name for name, domain in drafted.domains.items() if domain.role.component == component]


def _follows(domain: Domain, network: Network, private: Secret | None) -> Mapping[str, object]:
    """The settings of a domain that follow from the network and the box's key, so that nobody writes them twice."""
    match domain.role.component, domain.role.name:
        case ("net", "red") | ("crypto", "encrypt"):
            return {"mtu": network.mtu}
        case ("net", "clear"):
            return {"mtu": model.OUTER_MTU}
        case ("net", "black"):
            public = {"public_key": keyfiles.encode(keyfiles.public_key(private))} if private else {}
            return {"listen_port": network.listen_port, "fwmark": network.fwmark, **public}
    return {}


def _complete(drafted: Draft) -> None:
    """Gives the domains of a box with a network what follows from it; routes are the peers' prefixes where none are
    named, or where the peers come with commits, and the box has the way out to itself, all there is.
    """
    if drafted.network is None:
        return
    keymgr = next(iter(_of(drafted, "keymgr")), "")
    own = drafted.settings.get(keymgr, {})
    private = own.get("private_key")
    if not drafted.network.routes and "routes" not in _table(drafted.document, "network"):
        is_managed = bool(_of(drafted, "config")) and drafted.network.lan is not None
        routes = _EVERYWHERE if is_managed else _routes(own.get("peers"))
        drafted.network = dataclasses.replace(drafted.network, routes=routes)
    for name, domain in drafted.domains.items():
        follows = _follows(domain, drafted.network, private if isinstance(private, Secret) else None)
        if (domain.role.component, domain.role.name) == ("filter", "split"):
            _split(drafted, name)
            follows = {**follows, "tunnel": [str(one) for one in _routes(own.get("peers"))]}
            _unwritten(drafted, name, "tunnel")
        if (count := len(drafted.spreads().get(model.End(name, "tunnel_out"), ()))) > 1:
            follows = {**follows, "shards": _shards(own.get("peers"), count)}
            _unwritten(drafted, name, "shards")
        if follows:
            drafted.settings[name] = {**follows, **drafted.settings.get(name, {})}


def _unwritten(drafted: Draft, name: str, key: str) -> None:
    """Refuses a setting that follows from the peers, where somebody has written it all the same."""
    if key in drafted.settings.get(name, {}):
        rule = next(validator.rule for validator in VALIDATORS if validator.name == "settings")
        why = f"settings.{name}.{key} follows from the peers, and is not written"
        drafted.document.refuse(rule, ("settings", name, key), why)


def _table(document: Document, name: str) -> Mapping[str, object]:
    table = document.tables.get(name)
    return table if isinstance(table, dict) else {}


def _split(drafted: Draft, name: str) -> None:
    """What the filter lets out in clear has to come to it, as what it sends into the tunnel does."""
    assert drafted.network is not None
    clear = tuple(dict.fromkeys(_prefixes(drafted.settings.get(name, {}).get("clear"))))
    routes = tuple(dict.fromkeys((*drafted.network.routes, *clear)))
    drafted.network = dataclasses.replace(drafted.network, routes=routes, clear=clear)


def _prefixes(texts: object) -> Iterator[model.Prefix]:
    """Those of ``texts`` that are prefixes; what is none is for a settings module to refuse."""
    for text in texts if isinstance(texts, list) else ():
        try:
            yield prefix(text)
        except (ValueError, TypeError):
            continue


def _routes(peers: object) -> tuple[model.Prefix, ...]:
    """The prefixes of all peers, each once. What is not a prefix is for keymgr's own settings module to refuse."""
    return tuple({allowed: None for _, allowed in _allowed(peers)})


def _shards(peers: object, count: int) -> list[dict[str, object]]:
    """Whose the prefixes are: those of each pair of crypto domains. As keymgr has it, peer n belongs to pair
    (n - 1) mod ``count``.
    """
    shards = {allowed: (number - 1) % count for number, allowed in _allowed(peers)}
    return [{"allowed_ips": [str(one) for one, shard in shards.items() if shard == at]} for at in range(count)]


def _allowed(peers: object) -> Iterator[tuple[int, model.Prefix]]:
    """Each prefix with the number of the peer it is given to, from 1."""
    for number, peer in enumerate(peers if isinstance(peers, list) else (), 1):
        allowed = peer.get("allowed_ips") if isinstance(peer, dict) else None
        yield from ((number, one) for one in _prefixes(allowed))
