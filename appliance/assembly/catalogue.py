"""The roles there are: component.toml of each folder under ``components``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import components
from appliance.assembly.document import FLAG, KEYS, TABLE, TEXT, TEXTS, WHOLE, Document, Key, Shape, read, take
from appliance.assembly.findings import Finding, show
from appliance.assembly.model import DEVICES, LABELS, RED_TO_BLACK, Port, Role

COMPONENTS: Final = Path(components.__file__ or "").parent
"""Where the installed components are."""

NAME: Final = r"[a-z][a-z0-9_]{0,14}"
LOOKS: Final = "a lower-case letter, then at most 14 lower-case letters, digits or '_'"
"""Names serve as process names (15 bytes), as folders and in environment variables, with nothing to escape in any of
them.
"""

_MODULE: Final = Key(TEXT, pattern=r"components(\.[a-z_][a-z0-9_]*){2,4}", looks="a module of the component")
_WORDS: Final = Key(TEXTS, pattern=r"[a-z_][a-z0-9_]{0,31}", looks="a lower-case name")
# The status page has room for 496 counters (docs/architecture.md)
_COUNTERS: Final = Key(TEXTS, pattern=r"[a-z][a-z0-9_]{0,31}", looks="a lower-case name", most=496)

COMPONENT: Final[Shape] = {"summary": Key(TEXT, required=True), "roles": Key(TABLE, required=True)}
ROLE: Final[Shape] = {
    "summary": Key(TEXT),
    "main": Key(TEXT, required=True, pattern=_MODULE.pattern, looks=_MODULE.looks),
    "settings": _MODULE,
    "clearance": Key(TEXTS, required=True, known=LABELS),
    "transforms": Key(TEXTS, known=(RED_TO_BLACK,)),
    "imports": _WORDS,
    "devices": Key(TEXTS, known=tuple(DEVICES)),
    "syscalls": _WORDS,
    "memory_mib": Key(WHOLE, default=256, required=True, low=16, high=65536),
    "counters": _COUNTERS,
    "board": Key(WHOLE, default=0, high=65535),
    "descriptors": Key(WHOLE, default=0, high=4096),
    "ports": Key(TABLE, required=True),
    "bypass": _WORDS,
}
PORT: Final[Shape] = {
    "schema": Key(TEXT, default="", required=True, pattern=NAME, looks=LOOKS),
    "end": Key(TEXT, default="out", required=True, known=("out", "in", "client", "server")),
    # A domain has at most 64 channels: the status page has one bit for each
    "many": Key(WHOLE, default=1, low=1, high=64),
    "optional": Key(FLAG, default=False),
}


@dataclass
class Component:
    """One component.toml, with all that is wrong with it."""

    name: str
    file: Path
    roles: Mapping[str, Role] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass
class Catalogue:
    """The components of one folder, each read when first asked for."""

    folder: Path = COMPONENTS
    _read: dict[str, Component] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(file.parent.name for file in self.folder.glob("*/component.toml")))

    def component(self, name: str) -> Component:
        """The component of that name, which must be one of ``names()``."""
        if name not in self._read:
            self._read[name] = _component(name, self.folder / name / "component.toml")
        return self._read[name]


def _component(name: str, file: Path) -> Component:
    document = read(file)
    if not document.tables:
        return Component(name, file, {}, tuple(document.findings))
    taken: Any = take(document, (), document.tables, COMPONENT)
    roles = {role: _role(document, name, role, table, taken["summary"] or "") for role, table in taken["roles"].items()}
    return Component(name, file, MappingProxyType(roles), tuple(document.findings))


def _role(document: Document, component: str, name: str, table: object, summary: str) -> Role:
    way = ("roles", name)
    taken: Any = take(document, way, table, ROLE)
    for key in ("main", "settings"):
        if taken[key] and not taken[key].startswith(f"components.{component}."):
            document.refuse(KEYS, (*way, key), f"roles.{name}.{key} must be a module of components.{component}")
    ports = {port: _port(document, (*way, "ports", port), port, ends) for port, ends in taken["ports"].items()}
    for port in taken["bypass"]:
        if port not in ports or ports[port].end != "out":
            document.refuse(
                KEYS, (*way, "bypass"), f"roles.{name} has no port {show(port)} by which something goes out"
            )
    return Role(
        component=component,
        name=name,
        summary=taken["summary"] or summary,
        main=taken["main"] or "",
        settings_module=taken["settings"],
        clearance=frozenset(taken["clearance"]),
        transforms=frozenset(taken["transforms"]),
        imports=tuple(taken["imports"]),
        devices=tuple(taken["devices"]),
        syscalls=tuple(taken["syscalls"]),
        memory_mib=taken["memory_mib"],
        counters=tuple(taken["counters"]),
        ports=MappingProxyType(ports),
        board=taken["board"],
        bypass=tuple(taken["bypass"]),
        descriptors=taken["descriptors"],
    )


def _port(document: Document, way: tuple[str, ...], name: str, table: object) -> Port:
    taken: Any = take(document, way, table, PORT)
    port = Port(name, taken["schema"], taken["end"], taken["many"], taken["optional"])
    if port.many > 1 and port.end == "client":
        document.refuse(KEYS, (*way, "many"), f"port {name!r}: a caller has one callee, so that it waits for one only")
    return port
