"""What the calls have in common: the other domains, the box's pages, the clock, who calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from appliance.guest import boxpage
from components.admin.asking import Other
from components.admin.certificates import Issuer
from components.admin.holding import Holding
from components.admin.people import People
from components.admin.status import Code, RpcError
from components.admin.tasks import Clock
from components.admin.trail import Trail


class Identity(NamedTuple):
    """What `septum init` gave the box to be known by. PEM, where it is not the 32 bytes of a key or digest."""

    name: str
    box: bytes
    console: bytes
    chain: str  # the server's certificate, and the root
    key: str
    issuing: str
    issuing_key: str
    root: str
    before: str = ""  # the issuing authority's certificate before this one
    before_until: float = 0.0  # seconds since 1970, to which it counts

    @classmethod
    def read(cls, text: bytes) -> Identity:
        """Errors: ValueError, KeyError, TypeError."""
        said = json.loads(text)
        return cls(
            name=said["name"],
            box=bytes.fromhex(said["box"]),
            console=bytes.fromhex(said["console"]),
            **{key: said[key] for key in ("chain", "key", "issuing", "issuing_key", "root")},
            before=said.get("before", ""),
            before_until=float(said.get("before_until", 0)),
        )


class Pages:
    """The two pages between the monitor and this domain."""

    def __init__(self, box: memoryview, orders: memoryview) -> None:
        self._box = box
        self._orders = orders
        self._seen = 0
        self._told: Mapping[str, Any] = {}

    def told(self) -> Mapping[str, Any]:
        """What the monitor says of the box. Errors: RpcError (UNAVAILABLE)."""
        if boxpage.sequence(self._box) != self._seen:
            found = boxpage.read(self._box)
            if found is not None:
                self._seen, text = found
                self._told = json.loads(text)
        if not self._told:
            raise RpcError(Code.UNAVAILABLE, "the monitor has not said anything yet", retry=1.0)
        return self._told

    def number(self, domain: str) -> int:
        """The place of ``domain`` in the list that the box keeps. Errors: RpcError (NOT_FOUND)."""
        names = [one["name"] for one in self.told()["domains"]]
        if domain not in names:
            raise RpcError(Code.NOT_FOUND, f"there is no domain {domain}; there are {', '.join(names)}", path="name")
        return names.index(domain)

    def order(self, number: int) -> None:
        """Asks for that domain to be built anew."""
        boxpage.order(self._orders, number)


class World(NamedTuple):
    """Everything that a call may look at. ``wall()``: seconds since 1970; ``random(n)``: bytes."""

    identity: Identity
    issuer: Issuer
    clock: Clock
    pages: Pages
    holding: Holding
    people: People
    keymgr: Other
    filter: Other
    trail: Trail
    wall: Callable[[], float]
    random: Callable[[int], bytes]
    say: Callable[[str, str], None]
    """An event and a line for the audit log."""
