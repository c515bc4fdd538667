"""The gateway as Xen guests, and the world on both sides of it: a stock peer and the hosts that speak through the
tunnel.

rig.lan: the LAN host ── tap0 ── [lan] red │ dom0 │ black [wan] ── tap0 ── rig.wan: the peer's gateway ── its LAN's host
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from appliance.image import manifest
from appliance.image.manifest import Image
from tests.system.lab import Conf, LabError, Namespace, Site
from tests.system.lab.namespace import run
from tests.system.lab.topology import switch_offloads_off

from .rig import Rig
from .rig.nets import TAP

ROOT: Final = Path(__file__).resolve().parents[2]
BOX: Final = "wg0"
IMAGES: Final = "/var/lib/septum/images"

# What asks the monitor: the standard library alone, since to import the command line takes an emulated machine seconds
_ASK: Final = """
import json, socket, sys, time

def ask(operation):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(f"/run/septum/{sys.argv[1]}/control")
        s.sendall(b'{"op": "' + operation.encode() + b'"}\\n')
        data = b""
        while piece := s.recv(1 << 16):
            data += piece
    return data.decode()
"""
_ASK_ONCE: Final = _ASK + "sys.stdout.write(ask(sys.argv[2]))"
# One program that looks for as long as it takes: each start of one would take the guest that starts its processor
_WAIT: Final = (
    _ASK
    + """
domain, dead, over = sys.argv[2], int(sys.argv[3]), time.monotonic() + float(sys.argv[4])
while True:
    (row,) = [row for row in json.loads(ask("status"))["domains"] if row["name"] == domain]
    is_back = row["state"] == "running" and row["domid"] != dead
    if is_back or time.monotonic() > over:
        break
    time.sleep(1)
print(json.dumps(row | {"is_back": is_back}))
"""
)
_STATE: Final = """
cat /var/lib/septum/{box}/log | tail -n 60; xl list; xl vcpu-list; uptime; top -b -n 1 | head -n 20
for n in $(xenstore-list /local/domain); do echo "$n: $(xenstore-read /local/domain/$n/name)"; done
xenstore-ls -p /local/domain | grep -E 'septum|channel|peer|go =|status|ring-ref|event-channel' | head -n 200
xl dmesg | tail -n 30
"""


@contextmanager
def world(rig: Rig) -> Iterator[tuple[Site, Site]]:
    """(the side of the box, the side of the stock peer), with every address set."""
    far = Namespace(f"{rig.wan.name}-host")
    run("ip", "netns", "add", far.name)
    try:
        left = Site("left", 1, rig.wan, rig.lan)
        right = Site("right", 2, rig.wan, far, "lan0", TAP)
        far.run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", right.lan, "netns", rig.wan.name, "type", "veth", "peer", "eth0", "netns", far.name)
        rig.wan.sysctl(ipv4__ip_forward=1)
        _face(rig.lan, TAP, f"{left.host4}/24")
        _face(rig.wan, TAP, f"{right.wan4}/24")
        _face(rig.wan, right.lan, f"{right.lan4}/24")
        _face(far, "eth0", f"{right.host4}/24")
        switch_offloads_off(rig.wan, TAP)  # a capture there shall show datagrams
        rig.lan.run("ip", "route", "replace", "default", "via", left.lan4)
        far.run("ip", "route", "replace", "default", "via", right.lan4)
        yield left, right
    finally:
        rig.wan.run("ip", "link", "del", "lan0", check=False)
        for space in (rig.lan, rig.wan):
            space.run("ip", "address", "flush", "dev", TAP, check=False)
        run("ip", "netns", "del", far.name, check=False)


def _face(space: Namespace, interface: str, address: str) -> None:
    space.run("ip", "link", "set", interface, "up")
    space.run("ip", "address", "replace", address, "dev", interface)


def assembly_text(xen: Mapping[str, str]) -> str:
    """The ready-made gateway with a table for Xen."""
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in xen.items())
    return (ROOT / "assemblies/vpn.toml").read_text() + f"\n[xen]\n{table}"


def put_images(rig: Rig, store: Path, images: Iterable[Image]) -> None:
    """The ``images``, which lie in ``store``, and the index that a monitor looks them up in, into dom0."""
    index = {}
    for image in images:
        contents = image.contents()
        index[f"{contents['component']}/{contents['role']}"] = manifest.entry(store.absolute(), image)
    rig.put(f"{IMAGES}/images.json", json.dumps(index).encode(), 0o644)
    there = set()
    for entry in index.values():
        for digest, name in ((entry["kernel_sha256"], entry["kernel"]), (entry["ramdisk_sha256"], entry["ramdisk"])):
            if digest in there:  # one kernel for many: a link will do
                rig.run(["mkdir", "-p", f"{IMAGES}/{Path(name).parent}"], check=True)
                rig.run(["ln", "-sf", f"{IMAGES}/by/{digest}", f"{IMAGES}/{name}"], check=True)
                continue
            there.add(digest)
            rig.put(f"{IMAGES}/by/{digest}", (store / name).read_bytes())
            rig.run(["mkdir", "-p", f"{IMAGES}/{Path(name).parent}"], check=True)
            rig.run(["ln", "-sf", f"{IMAGES}/by/{digest}", f"{IMAGES}/{name}"], check=True)


class XenBox:
    """`septum up --backend xen` in dom0. Errors: LabError with the box's log."""

    def __init__(self, rig: Rig, conf: Conf, xen: Mapping[str, str]) -> None:
        self.rig = rig
        self.conf = conf
        self._xen = xen
        self.took = 0.0
        self._is_up = False

    def up(self, left: Site, timeout: float = 900) -> None:
        rig = self.rig
        rig.put(f"/root/{BOX}.conf", self.conf.wg_quick().encode(), 0o600)
        rig.put("/septum/assemblies/box.toml", assembly_text(self._xen).encode())
        for name, address in (("lan", f"{left.lan4}/24"), ("wan", f"{left.wan4}/24")):
            rig.run(f"ip addr add {address} dev {name} 2>/dev/null; ip link set {name} up", check=True)
        begun = time.monotonic()
        patience = {"SEPTUM_PATIENCE": "10"}  # the machine is emulated
        words = f"septum up /root/{BOX}.conf --assembly /septum/assemblies/box.toml --lan lan --wan wan --backend xen"
        code, said = rig.run(words, timeout=timeout, env=patience)
        self.took = time.monotonic() - begun
        if code:
            raise LabError(f"{words}: {code}\n{said}\n{self.log()}")
        self._is_up = True

    def ask(self, operation: str) -> dict[str, Any]:
        answer = self.rig.python(_ASK_ONCE, 120, BOX, operation)
        return dict(json.loads(answer))

    def domains(self) -> dict[str, dict[str, Any]]:
        return {domain["name"]: domain for domain in self.ask("status")["domains"]}

    def wait_for_another(self, domain: str, dead: int, seconds: float) -> dict[str, Any]:
        """The row of ``domain`` once it runs as another guest than ``dead``.

        Errors: LabError, with what the monitor and Xen say, if it does not in time.
        """
        words = (BOX, domain, str(dead), str(seconds))
        row: dict[str, Any] = json.loads(self.rig.python(_WAIT, seconds + 120, *words))
        if not row.pop("is_back"):
            raise LabError(f"{domain} is not back after {seconds:g} s: {row}\n{self.state()}")
        return row

    def peers(self) -> dict[str, dict[str, Any]]:
        return {peer["public_key"]: peer for peer in self.ask("status")["peers"]}

    def septum(self, *words: str, timeout: float = 300) -> str:
        return self.rig.run(shlex.join(["septum", *words]), timeout=timeout, check=True)[1]

    def destroy(self, domain: str) -> int:
        """`xl destroy`, as a crash would be. Returns the number of the guest that died."""
        domid = int(self.domains()[domain]["domid"])
        self.rig.run(["xl", "destroy", str(domid)], timeout=120, check=True)
        return domid

    def log(self) -> str:
        return self.rig.run(f"cat /var/lib/septum/{BOX}/log 2>/dev/null")[1]

    def state(self) -> str:
        """What there is to read when something is amiss."""
        return self.rig.run(_STATE.format(box=BOX), 180)[1]

    def down(self) -> None:
        """Takes it down, unless it is down already."""
        if self._is_up:
            self._is_up = False
            self.septum("down", BOX)
