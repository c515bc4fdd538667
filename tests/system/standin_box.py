"""`python -m tests.system.standin_box SPEC`: runs a box of stand-ins, as `septum up --foreground` runs a real one.

SPEC is JSON: ``name``, ``nodes`` (behaviour by name of domain), ``network`` (see ``network``), ``background`` (a flag).
"""

from __future__ import annotations

import json
import signal
import sys
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from appliance.assembly import model
from appliance.assembly.model import Channel, Domain, End, Network, Port, Role, ValidatedAssembly
from appliance.monitor.sandbox.kernel import PR_SET_PDEATHSIG, prctl

DEVICES = {"red": ("tun",), "black": ("udp4", "udp6")}


def network(spec: dict[str, Any]) -> Network:
    """The fields of ``Network``, addresses and prefixes as text."""
    kinds: dict[str, Any] = {"addresses": ip_interface, "routes": ip_network, "wan_gateways": ip_address}
    kinds |= {"lan_addresses": ip_interface, "wan_addresses": ip_interface}
    return Network(**{key: tuple(map(kinds[key], value)) if key in kinds else value for key, value in spec.items()})


def role(name: str) -> Role:
    return Role(
        component="standin",
        name=name,
        summary="A stand-in",
        main="tests.system.standin",
        settings_module=None,
        clearance=frozenset({"PUBLIC"}),
        transforms=frozenset(),
        imports=("tests",),
        devices=DEVICES.get(name, ()),
        syscalls=(),
        memory_mib=192,
        counters=("opened", "closed", "received", "sent"),
        ports={"out": Port("out", "records", "out"), "in": Port("in", "records", "in")},
    )


def assembly(spec: dict[str, Any]) -> ValidatedAssembly:
    """A ring: each node sends to the next, the last to the first."""
    nodes: dict[str, str] = spec["nodes"]
    names = list(nodes)
    return ValidatedAssembly(
        name="ring",
        summary="Stand-ins in a ring",
        domains=tuple(Domain(name, role(name), {"behaviour": nodes[name]}, 192) for name in names),
        channels=tuple(
            Channel(End(one, "out"), End(other, "in"), "records")
            for one, other in zip(names, names[1:] + names[:1], strict=True)
        ),
        network=network(spec["network"]),
        source=Path(__file__),
        proof=model._PROOF,
    )


def main() -> int:
    from appliance.monitor.main import BuildError, run, start_background

    spec = json.loads(sys.argv[1])
    try:
        if spec.get("background"):
            print(start_background(assembly(spec), name=spec["name"]), flush=True)
            return 0
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a test that is killed leaves no box behind
        return run(assembly(spec), name=spec["name"], ready=lambda: print("up", flush=True))
    except BuildError as error:
        print(f"refused: {error}", flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
