"""The managed gateway with the envoy where admin belongs: `python -m tests.system.envoy_box CONF NAME TRUST LINE`.

TRUST is JSON; LINE the socket at which the test waits to speak through the envoy. Deaths cost no waiting here.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
from pathlib import Path
from typing import Any

from appliance.assembly import model
from appliance.assembly.load import ASSEMBLIES
from appliance.assembly.model import Domain, Port, Role, ValidatedAssembly
from appliance.assembly.wgquick import from_wgquick
from appliance.monitor import main as monitor
from appliance.monitor.process import ProcessBackend
from appliance.monitor.supervisor import LIMITS
from tests.system.envoy import PORTS

MANAGED = ("config", "keymgr", "filter")


def envoy(admin: Domain) -> Role:
    """The same ends as admin has, and another one behind them."""
    ports = {name: Port(name, shape, "client") for name, shape in PORTS.values()}
    return Role(
        component="envoy",
        name="admin",
        summary="A stand-in",
        main="tests.system.envoy",
        settings_module=None,
        clearance=admin.role.clearance,
        transforms=frozenset(),
        imports=("tests",),
        devices=("line",),
        syscalls=("read", "write"),
        memory_mib=192,
        counters=(),
        ports={**ports, "log": admin.role.ports["log"]},
    )


def managed(assembly: ValidatedAssembly, trust: dict[str, str]) -> ValidatedAssembly:
    """``assembly`` with an envoy, and with what `septum init` would have said."""

    def changed(domain: Domain) -> Domain:
        if domain.name == "admin":
            return dataclasses.replace(domain, role=envoy(domain), settings={})
        if domain.name in MANAGED:
            return dataclasses.replace(domain, settings={**domain.settings, "trust": trust})
        return domain

    channels = tuple(one for one in assembly.channels if one.client.port != "tail")
    return dataclasses.replace(
        assembly, domains=tuple(map(changed, assembly.domains)), channels=channels, proof=model._PROOF
    )


def main() -> int:
    conf, name, trust, line = sys.argv[1:]
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.connect(line)
    end.setblocking(False)

    class Backend(ProcessBackend):
        """With one device more, and patience for deaths."""

        pace = ProcessBackend.pace._replace(limits=LIMITS._replace(free_deaths=1000, start=60.0))  # type: ignore[misc]

        def __init__(self, assembly: Any, devices: Any, *rest: Any) -> None:
            super().__init__(assembly, {**devices, "line": end.fileno()}, *rest)

    monitor.ProcessBackend = Backend  # type: ignore[misc]
    loaded = from_wgquick(Path(conf), base=ASSEMBLIES / "vpn-managed.toml")
    return monitor.run(managed(loaded, json.loads(trust)), name=name)


if __name__ == "__main__":
    sys.exit(main())
