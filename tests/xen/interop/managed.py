"""Four guests of a managed gateway: admin, whom administrators call, config, store and log. Runs in dom0:

    managed.py FOLDER ADDRESS PORT   one JSON object when they run; then it goes on until there is FOLDER/end

FOLDER has what `septum init` made, in management/. ADDRESS is on dom0's interface ``lan``, which becomes admin's; in
the place of the box's other two are interfaces that lead nowhere. Xen must enforce the policy of vpn-managed.toml.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from appliance.assembly.load import ASSEMBLIES
from appliance.assembly.model import _PROOF, ValidatedAssembly, Xen
from appliance.assembly.wgquick import from_wgquick
from appliance.management.trust import trust
from appliance.monitor import devices
from appliance.monitor.places import run_dir
from appliance.monitor.telling import Telling
from appliance.monitor.xen.bridges import Bridges
from appliance.monitor.xen.fit import policy_amiss
from tests.xen.interop.some import BOX, CONF, Some

NAMES: Final = ("log", "store", "config", "admin")
NOWHERE: Final = ("nowhere0", "nowhere1")


def assembly(folder: Path, admin: tuple[str, int]) -> ValidatedAssembly:
    file = folder / "wg0.conf"
    file.write_text(CONF)
    file.chmod(0o600)
    built = from_wgquick(file, lan=NOWHERE[0], wan=NOWHERE[1], base=ASSEMBLIES / "vpn-managed.toml")
    believed = trust(folder)
    assert believed is not None
    return replace(built.called_at(admin).with_trust(believed), xen=Xen(xsm="enforcing", type="pv"), proof=_PROOF)


def policy(built: ValidatedAssembly) -> dict[str, list[str]]:
    """How what Xen enforces differs from ``built``, and from others of which it must differ."""
    joined = next(one for one in built.channels if (one.client.domain, one.server.domain) == ("admin", "config"))
    fewer = tuple(one for one in built.channels if one is not joined)
    deaf = [replace(one, role=replace(one.role, devices=())) if one.name == "admin" else one for one in built.domains]
    return {
        "own": policy_amiss(built),
        "without a channel": policy_amiss(replace(built, channels=fewer, proof=_PROOF)),
        "without an interface": policy_amiss(replace(built, domains=tuple(deaf), proof=_PROOF)),
    }


def state(some: Some) -> dict[str, Any]:
    """As the monitor tells it, of these domains."""
    rows = [
        {
            **{
                key: value for key, value in some.backend.describe(name).items() if key in ("name", "component", "role")
            },
            "state": "running",
            "restarts": some.restarts.get(name, 0),
            "counters": some.backend.describe(name)["counters"],
            "heartbeat_age": 0.0,
            **dict.fromkeys(("pss_kib", "last_death", "rebuild_ms")),
        }
        for name in some.names
    ]
    box = {"name": BOX, "assembly": "vpn_managed", "backend": "xen", "uptime": time.monotonic(), "domains": rows}
    return {**box, "channels": [], "listen_port": 51820, "tunnel": None, "addresses": []}


def main(where: str, address: str, port: str) -> None:
    folder = Path(where)
    (folder / "end").unlink(missing_ok=True)
    for name in NOWHERE:
        subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"], check=True)
    directory = run_dir(BOX)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    built = assembly(folder, (address, int(port)))
    assert built.network is not None
    place = Bridges(built.network, BOX, directory, built.devices)
    place.open()
    telling = Telling(NAMES, lambda: state(some))
    identity = devices.open_identity(folder / "management/identity.json")
    some = Some(built, NAMES, folder, place.sides, {**telling.devices, "identity": identity})
    seen: dict[str, Any] = {}
    try:
        seen["all run after s"] = round(some.run(*NAMES), 1)
        seen["policy"] = policy(built)
        seen["admin is at"] = place.sides["admin"].settings["addresses"]
        seen["dom0 has on it"] = subprocess.run(
            ["ip", "-o", "addr", "show", "dev", "lan"], check=True, capture_output=True, text=True
        ).stdout
        print(json.dumps(seen), flush=True)
        ordered: list[str] = []

        def ordered_or_end() -> str | bool:
            return telling.turn(time.monotonic()) or (folder / "end").exists()

        while (name := some.until("neither ordered nor ended", ordered_or_end)) is not True:
            ordered.append(name)
            some.destroy(name)
            some.run(name)
            some.restarts[name] = some.restarts.get(name, 0) + 1
        print(json.dumps({"ordered": ordered, "living": list(some.backend.living), "log": some.lines}), flush=True)
    finally:
        some.close()
        place.close()
        shutil.rmtree(directory)
        telling.close()
        os.close(identity)


if __name__ == "__main__":
    main(*sys.argv[1:])
