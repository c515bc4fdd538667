"""No tunnel at all: the gateway forwards. The upper limit of what any tunnel could reach here."""

from __future__ import annotations

from .end import End


class Direct(End):
    kind = "none"

    def start(self) -> None:
        other = 3 - self.site.number
        self._route("replace", f"192.168.{other}.0/24", f"203.0.113.{other}")
        self._route("replace", f"fd00:{other}::/64", f"2001:db8:113::{other}")

    def stop(self) -> None:
        other = 3 - self.site.number
        self._route("delete", f"192.168.{other}.0/24", f"203.0.113.{other}")
        self._route("delete", f"fd00:{other}::/64", f"2001:db8:113::{other}")

    def _route(self, verb: str, network: str, gateway: str) -> None:
        family = "-6" if ":" in network else "-4"
        self.site.gateway.run("ip", family, "route", verb, network, "via", gateway, check=verb == "replace")

    def pids(self) -> list[int]:
        return []

    @classmethod
    def version(cls) -> str:
        return "kernel forwarding"
