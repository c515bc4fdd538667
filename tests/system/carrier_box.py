"""A gateway whose peers come with signed commits: `python -m tests.system.carrier_box CONF LAN WAN NAME TRUST LINE`.

It is assemblies/vpn.toml with the network and the private key of CONF (none of its peers), and with the stand-in of
carrier.py where config belongs. TRUST is JSON; LINE the socket at which the test waits to speak through it.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
from pathlib import Path
from typing import Any

from appliance.assembly import model
from appliance.assembly.model import Channel, Domain, End, Port, Role, ValidatedAssembly
from appliance.assembly.wgquick import from_wgquick
from appliance.monitor import main as monitor
from appliance.monitor.process import ProcessBackend
from tests.system.carrier import PORTS

CONFIG = Role(
    component="carrier",
    name="config",
    summary="A stand-in",
    main="tests.system.carrier",
    settings_module=None,
    clearance=frozenset({"PUBLIC", "CONTROL"}),
    transforms=frozenset(),
    imports=("tests",),
    devices=("line",),
    syscalls=("read", "write"),
    memory_mib=192,
    counters=(),
    ports={port: Port(port, schema, "client") for port, schema in PORTS.items()},
)


def managed(assembly: ValidatedAssembly, trust: dict[str, str]) -> ValidatedAssembly:
    """``assembly`` with a config, and a keymgr that knows nobody yet."""

    def changed(domain: Domain) -> Domain:
        if domain.name != "keymgr":
            return domain
        settings = {"private_key": domain.settings["private_key"], "trust": trust}
        return dataclasses.replace(domain, settings=settings)

    asked = [Channel(End("config", port), End("keymgr", port), schema) for port, schema in PORTS.items()]
    told = Channel(End("keymgr", "identity"), End("black", "identity"), "identity")
    return dataclasses.replace(
        assembly,
        domains=(*map(changed, assembly.domains), Domain("config", CONFIG, {}, CONFIG.memory_mib)),
        channels=(*assembly.channels, *asked, told),
        proof=model._PROOF,
    )


def main() -> int:
    conf, lan, wan, name, trust, line = sys.argv[1:]
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.connect(line)
    end.setblocking(False)

    class Backend(ProcessBackend):
        """With one device more."""

        def __init__(self, assembly: Any, devices: Any, *rest: Any) -> None:
            super().__init__(assembly, {**devices, "line": end.fileno()}, *rest)

    monitor.ProcessBackend = Backend  # type: ignore[misc]
    assembly = managed(from_wgquick(Path(conf), lan=lan, wan=wan), json.loads(trust))
    return monitor.run(assembly, name=name)


if __name__ == "__main__":
    sys.exit(main())
