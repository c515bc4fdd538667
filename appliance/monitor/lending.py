"""The operator's ends of channels, each lent to one tool at a time; the monitor reads nothing of what passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from appliance.assembly.model import OPERATOR_ROLE, REPLACED_SETTINGS
from appliance.monitor.backend import Away, Backend
from appliance.monitor.notify import NOTICE

Json = dict[str, Any]


class _Held(NamedTuple):
    pid: int
    since: float
    domain: str


class Lending:
    """Who holds what. ``log(priority, text)`` gets a line for each setting that is replaced."""

    def __init__(self, backend: Backend, log: Callable[[int, str], None]) -> None:
        self._backend = backend
        self._log = log
        self._held: dict[str, _Held] = {}
        self.replaced: dict[str, float] = {}
        """Which settings are not those of the assembly any more, and since when (monotonic)."""

    def borrow(self, port: str, pid: int) -> tuple[Json, tuple[int, ...]]:
        """The answer, and the descriptors that go with it if it is not "error"."""
        if port not in OPERATOR_ROLE.ports:
            known = ", ".join(OPERATOR_ROLE.ports)
            return {"error": f"the operator has no such port; there are: {known}"}, ()
        if (held := self._held.get(port)) is not None:
            seconds = time.monotonic() - held.since
            who = f"process {held.pid}{_name(held.pid)} has held operator.{port} for {seconds:.1f} s"
            return {"error": f"{who}; it is lent to one at a time", "busy": True}, ()
        try:
            lent = self._backend.lend(port)
        except Away as away:
            return {"error": str(away), "away": True}, ()
        if lent is None:
            return {"error": f"this box joins operator.{port} to nothing", "unjoined": True}, ()
        self._held[port] = _Held(pid, time.monotonic(), lent.peer)
        return {"ok": True, "schema": lent.schema, "domain": lent.peer, "place": lent.place}, lent.descriptors

    def keep(self, port: str, untrusted_fd: int) -> Json:
        """Later lives of the domain at the other end get what is in this memfd in place of a setting."""
        domain, setting = self._held[port].domain, REPLACED_SETTINGS[port]
        try:
            self._backend.replace_setting(domain, setting, untrusted_fd)
        except (OSError, ValueError) as error:
            return {"error": f"what should replace settings.{domain}.{setting} {error}"}
        self.replaced[f"settings.{domain}.{setting}"] = time.monotonic()
        self._log(NOTICE, f"settings.{domain}.{setting} is replaced for as long as the box is up")
        return {"ok": True}

    def give_back(self, port: str) -> None:
        """Nobody holds it any more."""
        if self._held.pop(port, None) is not None:
            self._backend.hang_up(port)

    def ports_to(self, domain: str) -> list[str]:
        """The ends now lent whose other end is ``domain``'s."""
        return [port for port, held in self._held.items() if held.domain == domain]


def _name(pid: int) -> str:
    try:
        found = Path(f"/proc/{pid}/comm").read_bytes().strip()
    except OSError:
        return ""
    return f" ({''.join(chr(byte) if 32 <= byte < 127 else '?' for byte in found)})"


__all__ = ["Lending"]
