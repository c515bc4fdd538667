"""The tunnel's peers for `septum status`: who they are by the assembly, how they fare by keymgr's own word."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Protocol

from appliance.assembly.model import ValidatedAssembly
from appliance.guest.status import PeerRow

_PUBLIC = ("public_key", "allowed_ips", "keepalive")


class Boards(Protocol):
    """Where rows come from."""

    def peers(self, name: str, count: int) -> list[PeerRow | None]: ...


def of(assembly: ValidatedAssembly, boards: Boards) -> list[dict[str, Any]]:
    """One entry a peer, in the order of the settings, which is the order of the rows. No secret is among them."""
    entries: list[dict[str, Any]] = []
    for domain in assembly.domains:
        configured = domain.settings.get("peers")
        if domain.role.board and isinstance(configured, list | tuple):
            rows = boards.peers(domain.name, len(configured))
            names = assembly.peer_names
            entries += [_entry(peer, row, names) for peer, row in zip(configured, rows, strict=True)]
    return entries


def _entry(peer: dict[str, Any], row: PeerRow | None, names: Mapping[str, str]) -> dict[str, Any]:
    known = {key: peer[key] for key in _PUBLIC if key in peer}
    if (name := names.get(peer["public_key"])) is not None:
        known["name"] = name
    return {
        "allowed_ips": [],
        **known,
        "endpoint": _endpoint(row) if row is not None and row.address else peer.get("endpoint"),
        "latest_handshake": row.handshake if row is not None else 0,
        "received": row.received if row is not None else 0,
        "sent": row.sent if row is not None else 0,
    }


def _endpoint(row: PeerRow) -> str:
    address = ipaddress.ip_address(row.address)
    return f"[{address}]:{row.port}" if address.version == 6 else f"{address}:{row.port}"
