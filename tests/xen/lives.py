"""How long a domain takes from nothing to running, step by step: the monitor's own back end, one at a time. In dom0:

    python3.11 -m tests.xen.lives TYPE DOMAIN…      one JSON object a domain: milliseconds since the monitor began

The box has no policy (``xsm = "absent"``) and no peers alive: what is measured is one start, not what meets afterwards.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from appliance.assembly.model import _PROOF, ValidatedAssembly, Xen
from appliance.assembly.wgquick import from_wgquick
from appliance.guest.status import State
from appliance.monitor.xen import bridges
from appliance.monitor.xen.backend import XenBackend
from appliance.monitor.xen.guest import Stage
from appliance.monitor.xen.images import boots_of
from appliance.monitor.xen.plan import Side

BOX: Final = "lives"
PATIENCE: Final = 300.0
CONF: Final = """[Interface]
PrivateKey = QEJOrY0UzBWGZ0bIcDmEnYxFu4DWN7sWAIvdPm4bYnw=
Address = 10.9.0.1/24
[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 10.9.0.0/24
"""
_SIDE: Final[dict[str, Any]] = {
    "interface": "eth0", "addresses": ["192.0.2.1/24"], "gateways": [], "listen_port": 51820, "fwmark": 0,
}  # fmt: skip
_TUNNEL: Final[dict[str, Any]] = {"name": "wg0", "addresses": ["10.9.0.1/24"], "mtu": 1420, "routes": []}


def assembly(folder: Path, kind: str) -> ValidatedAssembly:
    file = folder / "wg0.conf"
    file.write_text(CONF)
    file.chmod(0o600)
    return replace(from_wgquick(file, lan="lan", wan="wan"), xen=Xen(xsm="absent", type=kind), proof=_PROOF)  # type: ignore[arg-type]


def sides() -> dict[str, Side]:
    """Bridges with nobody else in them."""
    found = {}
    for side in ("red", "black"):
        name = bridges.bridge_name(BOX, side)
        if (
            subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=False, capture_output=True).returncode
            == 0
        ):
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        more = {"forward": True, "largest_group": 65536, "tunnel": _TUNNEL} if side == "red" else {"forward": False}
        found[side] = Side(side, name, bridges.mac(BOX, side), _SIDE | more)
    return found


def life(backend: XenBackend, name: str) -> dict[str, float]:
    """Starts ``name``, lets it go on once it is sealed, destroys it. Milliseconds at which each step was over.

    Errors: TimeoutError, and RuntimeError with its last words if it dies.
    """
    began, seen = time.monotonic(), {}
    poll = select.epoll()
    poll.register(backend.news, select.EPOLLIN)

    def over(step: str) -> None:
        seen.setdefault(step, round((time.monotonic() - began) * 1e3, 1))

    gone = backend.start(name)
    guest = backend._guests[name]
    try:
        while "running" not in seen:
            backend.turn()
            if guest.job is not None:
                over("xl begins")
            if guest.stage is not Stage.CREATING:
                over("created, wired, let go")
            state = backend.report(name).untrusted_state
            if state >= State.STARTING:
                over("imported")
            if state >= State.BUILT:
                over("built")
            if state >= State.SEALED and "released" not in seen:
                over("sealed")
                # Xen's own example policy gives a label to a guest that asks for none
                if amiss := [what for what in backend.check(name) if not what.startswith("label:")]:
                    raise RuntimeError(f"{name}: {'; '.join(amiss)}")
                over("checked")
                backend.release(name)
                over("released")
            if state == State.RUNNING:
                over("running")
            if guest.is_dead or time.monotonic() - began > PATIENCE:
                raise RuntimeError(f"{name} does not come to run: {seen}: {backend.bury(name)}")
            poll.poll(0.02)
        backend.kill(name)
        os.eventfd_read(gone)
        backend.bury(name)
        over("destroyed")
    finally:
        poll.close()
    return seen


def main(kind: str, *names: str) -> None:
    folder = Path(f"/run/{BOX}")
    folder.mkdir(exist_ok=True)
    box = assembly(folder, kind)
    lived = tuple(box.domain(name) for name in names) or box.domains
    boots = boots_of(replace(box, domains=lived, proof=_PROOF))  # the others' images need not be there
    backend = XenBackend(box, BOX, folder, boots, sides(), os.open(os.devnull, os.O_WRONLY))
    try:
        for domain in lived:
            print(json.dumps({"domain": domain.name, **life(backend, domain.name)}), flush=True)
    finally:
        backend.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
