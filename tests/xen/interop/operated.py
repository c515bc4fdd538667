"""Two guests of a gateway, filter and store, and dom0 as what it is to them: the operator's end, the disk, and (in the
place of keymgr) whose blobs are kept.

Runs in dom0:  operated.py FOLDER   prints one JSON object of what it saw. Xen must enforce the policy of vpn.toml.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from septum.v1.blobs import BLOB_OK, BlobRequest
from septum.v1.filtering import AskTotals, FilteringRequest

from appliance.assembly.model import _PROOF, ValidatedAssembly, Xen
from appliance.assembly.wgquick import from_wgquick
from appliance.cli.guestline import meet
from appliance.guest.outside import OPERATOR
from appliance.monitor.xen import wiring
from appliance.vchan import layout
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import PeerViolation, Side
from appliance.vchan.schema import schema
from tests.xen.interop.some import CONF, Some

NAMES: Final = ("filter", "store")
PEER: Final = """[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 10.9.0.0/24
"""
RULES: Final = 'allow "only this" from red tcp to 192.0.2.1 port 4711\n'


def assembly(folder: Path) -> ValidatedAssembly:
    file = folder / "wg0.conf"
    file.write_text(CONF + PEER)
    file.chmod(0o600)
    return replace(from_wgquick(file, lan="lan", wan="wan"), xen=Xen(xsm="enforcing", type="pv"), proof=_PROOF)


def number_of(some: Some, client: str) -> int:
    return next(n for n, one in enumerate(some.channels) if str(one.client) == client)


def opened(end: Endpoint) -> bool:
    try:
        end.progress()
    except PeerViolation:
        return False
    return end.is_open


def asked(some: Some, domid: int, number: int, shape: str, request: Any) -> Any:
    """What the guest answers whoever meets it by channel ``number``: in one session of its own."""
    line = meet(domid, number, schema(shape).orders)
    try:
        some.until("nothing is offered", line.is_met)
        end = Endpoint(line.wire, Side.CLIENT, schema(shape))
        some.until("no session", lambda: opened(end))
        assert end.send(request)
        end.flush()
        reply = some.until("no reply", end.receive)
        end.close()
        return reply
    finally:
        line.close()


def blobs(some: Some, request: BlobRequest) -> Any:
    """As keymgr, which does not run: dom0 is in its place."""
    domid = some.backend._guests["store"].domid
    assert domid is not None
    number = number_of(some, "keymgr.blobs")
    path = f"/local/domain/{domid}/{wiring.peer_path(number)}"
    if some.backend._store.read(path) != "0":
        some.backend._store.write(path, "0")
    return asked(some, domid, number, "blobs", request)


def break_the_rules(some: Some) -> bool:
    """As a tool gone mad: an index that no ring can hold. Whether the filter says so."""
    domid = some.backend._guests["filter"].domid
    assert domid is not None
    number, shape = number_of(some, f"{OPERATOR}.filter"), schema("filtering")
    line = meet(domid, number, shape.orders)
    some.until("nothing is offered", line.is_met)
    end = Endpoint(line.wire, Side.CLIENT, shape)
    some.until("no session", lambda: opened(end))
    assert end.send(FilteringRequest(totals=AskTotals(most=1)))
    line.wire.memory[: layout.GRANTS].cast("I")[layout.LEFT_PROD // 4] += 1 << 30
    line.wire.notify()
    peers = [link.peer for link in some.backend._plans["filter"].links]
    bit = 1 << peers.index(OPERATOR)
    some.until("it accuses nobody", lambda: some.backend.report("filter").untrusted_violations & bit)
    line.close()
    return True


def operate(some: Some, seen: dict[str, Any], folder: Path) -> None:
    code, said = some.command("rules", "--json")
    seen["rules"] = [code, said]
    rules = folder / "new.rules"
    rules.write_text(RULES)
    seen["apply"] = some.command("apply", str(rules), "--json")
    seen["counters"] = some.command("counters", "--json")
    seen["flows"] = some.command("flows", "--json")
    seen["explain"] = some.command("explain", "tcp 192.168.7.2:40000 > 192.0.2.1:4711", "--json")
    seen["log"] = list(some.lines)
    seen["accuses"] = break_the_rules(some)
    seen["after that"] = some.command("rules", "--json")
    some.destroy("filter")
    seen["while it is away"] = some.command("rules", "--json")
    seen["filter is back after s"] = round(some.run("filter"), 1)
    seen["rules of its next life"] = some.command("rules", "--json")


def keep(some: Some, seen: dict[str, Any]) -> None:
    blob = b"what was sealed" * 4000
    put = blobs(some, BlobRequest(name="floor", version=1, blob=blob))
    assert put.status == BLOB_OK, put.status
    seen["on dom0's disk"] = blob in os.pread(some.image, 1 << 20, 0)
    some.destroy("store")
    seen["store is back after s"] = round(some.run("store"), 1)
    found = blobs(some, BlobRequest(name="floor"))
    seen["outlives the guest"] = (found.version, bytes(found.blob)) == (1, blob)
    # Who keeps the disk ends: another one follows, and the store goes on
    life = some.disk._life
    assert life is not None
    seen["seal of who keeps it"] = seal_of(life.child.pid)
    os.kill(life.child.pid, signal.SIGKILL)
    some.until("nobody follows", lambda: some.disk._life not in (None, life))
    put = blobs(some, BlobRequest(name="floor", version=2, blob=b"two"))
    seen["goes on with another one"] = put.status == BLOB_OK
    seen["store lives"] = "store" in some.backend.living


def seal_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    found = {key: status[key].strip() for key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid")}
    found["root"] = os.readlink(f"/proc/{pid}/root")
    found["files"] = " ".join(sorted(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")))
    return found


def main(where: str) -> None:
    folder = Path(where)
    folder.mkdir(exist_ok=True)
    seen: dict[str, Any] = {}
    some = Some(assembly(folder), NAMES, folder)
    try:
        seen["both run after s"] = round(some.run(*NAMES), 1)
        keep(some, seen)
        operate(some, seen, folder)
    except (TimeoutError, AssertionError, OSError) as error:
        seen["error"] = f"{type(error).__name__}: {error}; {some.lines}"
        raise
    finally:
        print(json.dumps(seen), flush=True)
        some.close()
        shutil.rmtree(some.directory)


if __name__ == "__main__":
    main(*sys.argv[1:])
