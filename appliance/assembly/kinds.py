"""What box a filter stands in, read from an assembly without building it: which ways there are, and where its rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from appliance.assembly.catalogue import Catalogue
from appliance.assembly.document import read
from appliance.assembly.draft import draft
from appliance.assembly.findings import AssemblyError, Finding
from appliance.assembly.model import Role
from appliance.assembly.rulesfile import RULES
from appliance.guest.settings import SettingsError
from components.filter import inline
from components.filter.model import RuleSet
from components.filter.ruleset import encode
from components.filter.ways import Ways


class Kind(NamedTuple):
    """The one filter of an assembly. ``rules`` is the file that the assembly names."""

    role: Role
    ways: Ways
    rules: Path | None


def of_role(name: str) -> Role | None:
    """The filter's role of that name."""
    component = Catalogue().component("filter")
    return component.roles.get(name) if component is not None else None


def of_assembly(file: Path, peers: Sequence[Mapping[str, object]] | None) -> Kind:
    """The filter in the assembly at ``file``. ``peers`` are those of a wg-quick file that is laid over it, or None for
    the assembly's own. Errors: AssemblyError.
    """
    document = read(file)
    drafted = draft(document, Catalogue()) if document.tables else None
    if drafted is None or document.findings:
        raise AssemblyError(document.findings)
    filters = [name for name, domain in drafted.domains.items() if domain.role.component == "filter"]
    if len(filters) != 1:
        raise AssemblyError(
            [Finding(file, 0, *RULES, f"{len(filters)} domains are filters; what a packet meets is one")]
        )
    role, settings = drafted.domains[filters[0]].role, drafted.settings.get(filters[0], {})
    named = settings.get("rules")
    rules = file.parent / named if isinstance(named, str) else None
    if role.name == "filter":
        return Kind(role, Ways(), rules)
    given: dict[str, Any] = {"ruleset": encode(RuleSet())}
    if role.name == "split":
        if peers is None:
            own = drafted.settings.get("keymgr", {}).get("peers")
            peers = [peer for peer in own if isinstance(peer, dict)] if isinstance(own, list) else []
        tunnel = dict.fromkeys(prefix for peer in peers for prefix in _texts(peer.get("allowed_ips")))
        given |= {"clear": settings.get("clear", []), "tunnel": list(tunnel)}
    try:
        return Kind(role, inline.parse(role.name, given).ways, rules)
    except SettingsError as error:
        raise AssemblyError([Finding(file, 0, *RULES, f"settings.{filters[0]}.{error}")]) from None


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
