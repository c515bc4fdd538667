"""The gateway as nine Xen guests under their own policy, between a LAN host and a stock WireGuard peer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pytest

from appliance.image.manifest import Image
from tests.system.lab import MARKER, Keys, Site, Transfer, WireguardGo, pair, ping, reaches, wait_for
from tests.system.lab.capture import Capture
from tests.xen.gateway import BOX, XenBox, put_images, world
from tests.xen.rig import Rig
from tests.xen.rig.nets import TAP
from tests.xen.rig.places import XEN
from tests.xen.rig.qemu import MACS

pytestmark = pytest.mark.timeout(1800)

# keymgr first, for its next life begins a session, and then who leaves a session as it is, while that one grows old
BEFORE = ("keymgr", "rng", "log", "store", "filter", "red")
AFTER = ("encrypt", "decrypt", "black")
DOMAINS = BEFORE + AFTER
ANSWER = 60.0  # seconds for a first answer: the machine is emulated, and a retry of a handshake takes 5 s
RATE = 4e3  # bytes a second: a guest that starts has what the packets leave of two emulated processors
PACE = 2
REBUILT = 300.0
SILENT = 2 * REBUILT  # TCP waits twice as long each time: it may notice as late as that
REKEY_AFTER = 120.0
TYPE = os.environ.get("SEPTUM_XEN_TYPE", "pv")
ELSEWHERE = "192.0.2.77"  # an address of dom0's on an interface of neither side
LLDP = "01:80:c2:00:00:0e"  # IEEE 802.1D, table 7-10: not for bridges to forward


@dataclass
class Scene:
    rig: Rig
    left: Site
    right: Site
    box: XenBox
    stock: WireguardGo
    capture: Capture


class _Wan:
    """What a capture asks of a lab: where it is to listen."""

    plain_nic = True

    def __init__(self, site: Site) -> None:
        self.wan = site.gateway


@pytest.fixture(scope="module")
def scene(gateway: Rig, images: Mapping[str, Image]) -> Iterator[Scene]:
    rig = gateway
    with world(rig) as (left, right):
        put_images(rig, XEN / "images", images.values())
        own, stock = pair(left, right, psk=True)
        box = XenBox(rig, own, {"xsm": "enforcing", "type": TYPE, "cpus": "0-1"})
        try:
            with Capture(_Wan(right), interface=right.wan) as capture:  # type: ignore[arg-type]
                box.up(left)
                with WireguardGo(right, stock) as peer:
                    yield Scene(rig, left, right, box, peer, capture)
        finally:
            (rig.folder / "box.log").write_text(box.log())  # beside the console's, for who reads what happened
            box.down()


def answers(scene: Scene, seconds: float = ANSWER) -> bool:
    """The host on the other side does, through the tunnel: an emulated machine that is busy takes its time."""
    return reaches(scene.left.host, scene.right.host4, seconds, patience=3)


def test_the_box_is_up_and_every_guest_is_sealed(scene: Scene, report: list[tuple[str, str]]) -> None:
    status = scene.box.ask("status")
    report.append((f"xen: septum up, nine guests ({TYPE})", f"{scene.box.took:.0f} s"))
    steps = ", ".join(f"{step} {at / 1e3:.0f} s" for step, at in status["start_ms"].items())
    report.append(("xen: of that, in the monitor", steps))
    assert {domain["name"]: domain["state"] for domain in status["domains"]} == dict.fromkeys(DOMAINS, "running")
    for domain in status["domains"]:
        report.append((f"xen: create to running, {domain['name']}", f"{domain['start_ms'] / 1e3:.1f} s"))
    seals = json.loads(scene.box.septum("ps", "--seals", "--json"))
    kept = (*DOMAINS, "disk of store")  # and the process of dom0 that keeps it
    assert {seal["domain"]: seal["sealed"] for seal in seals} == dict.fromkeys(kept, True), seals


def test_dom0_has_no_address_on_either_side(scene: Scene) -> None:
    shown = scene.rig.run("ip addr show", check=True)[1]
    assert {line.split()[1] for line in shown.splitlines() if line.split()[0] in ("inet", "inet6")} <= {
        "127.0.0.1/8", "::1/128",
    }  # fmt: skip


def test_handshake_and_ping(scene: Scene) -> None:
    assert answers(scene)
    assert scene.stock.shaken()
    times = ping(scene.left.host, scene.right.host4, count=5, interval=1, patience=20)
    assert times.loss == 0


@pytest.mark.parametrize("reverse", [False, True], ids=["out", "in"])
def test_tcp(scene: Scene, reverse: bool, report: list[tuple[str, str]]) -> None:
    transfer = Transfer(scene.left.host, scene.right.host, scene.right.host4, total=1 << 20, reverse=reverse)
    with transfer:
        transfer.wait(180)
    assert transfer.intact and transfer.received >= 1 << 20
    report.append((f"xen: TCP {'in' if reverse else 'out'}", f"{transfer.mbit:.2f} Mbit/s on an emulated machine"))


def test_what_the_tunnel_opens_is_denied(scene: Scene) -> None:
    assert answers(scene)  # the same path, asked from the other end
    assert ping(scene.right.host, scene.left.host4, count=3, patience=3).loss == 1


def test_a_wrong_key_is_refused(scene: Scene) -> None:
    scene.stock.stop()
    rightful = scene.stock.conf
    stranger = replace(rightful, keys=Keys.generate()).with_peer(keepalive=1)
    try:
        with WireguardGo(scene.right, stranger) as peer:
            assert not answers(scene, 12)
            assert not peer.shaken()
    finally:
        scene.stock.start()
    assert answers(scene), "the rightful one no longer gets through"


def test_the_peer_roams(scene: Scene) -> None:
    with Transfer(scene.left.host, scene.right.host, scene.right.host4, rate=RATE, pace=PACE) as transfer:
        scene.stock.roam(4444)
        scene.stock.show("latest-handshakes")
        public = scene.stock.conf.keys.public
        reaches(scene.right.gateway, scene.left.tunnel4, 1)  # something authentic from the new port
        wait_for(
            "Septum to follow to another port",
            lambda: str(scene.box.peers()[public]["endpoint"]).endswith(":4444"),
            seconds=60,
            every=1,
        )
        so_far = transfer.received
        wait_for("bytes to arrive again", lambda: transfer.received > so_far + 2 * RATE, 60)
    assert transfer.intact
    scene.stock.roam(51820)


def destroy(scene: Scene, domain: str, report: list[tuple[str, str]]) -> None:
    """It is rebuilt under a running connection, alone."""
    others = {name: row["domid"] for name, row in scene.box.domains().items() if name != domain}
    with Transfer(
        scene.left.host, scene.right.host, scene.right.host4, rate=RATE, pace=PACE, patience=SILENT
    ) as transfer:
        time.sleep(1)
        killed = time.monotonic()
        dead = scene.box.destroy(domain)
        rebuilt = scene.box.wait_for_another(domain, dead, REBUILT)["rebuild_ms"]
        so_far = transfer.received
        wait_for("bytes to arrive again", lambda: transfer.received > so_far + 2 * RATE, SILENT)
    silence = transfer.longest_silence(since=killed)
    report.append((f"xen: xl destroy {domain}", f"rebuilt {rebuilt / 1e3:.1f} s, silence {silence:.1f} s"))
    assert transfer.intact
    after = {name: row["domid"] for name, row in scene.box.domains().items() if name != domain}
    assert after == others, "another guest went down with it"


@pytest.mark.parametrize("domain", BEFORE)
def test_a_destroyed_guest_is_rebuilt_under_a_running_connection(
    scene: Scene, domain: str, report: list[tuple[str, str]]
) -> None:
    destroy(scene, domain, report)


def test_what_up_looks_for_can_be_asked_alone(scene: Scene) -> None:
    words = f"septum check /root/{BOX}.conf --assembly /septum/assemblies/box.toml --backend xen --json"
    said = json.loads(scene.rig.run(words, 300, env={"SEPTUM_PATIENCE": "10"}, check=True)[1])["xen"]
    assert (said["guests"], said["type"], said["xsm"]) == (len(DOMAINS), TYPE, "enforcing")


def test_what_was_changed_of_a_seal_shows(scene: Scene) -> None:
    """Asked of Xen itself, and not of what xl wrote down when it made the guest."""
    domid = scene.box.domains()["rng"]["domid"]
    scene.rig.run(f"xl vcpu-pin {domid} 0 1", check=True)
    try:
        code, said = scene.rig.run("septum ps --seals --json", 300)
    finally:
        scene.rig.run(f"xl vcpu-pin {domid} 0 0-1", check=True)
    seals = {seal["domain"]: seal for seal in json.loads(said)}
    amiss = [row for row in seals["rng"]["attributes"] if not row["ok"]]
    assert [(row["attribute"], row["wanted"], row["seen"]) for row in amiss] == [("cpus", "0-1", "1")]
    assert code == 1 and [name for name, seal in seals.items() if not seal["sealed"]] == ["rng"]


@pytest.mark.parametrize("side", ["red", "black"])
def test_dom0_hears_nothing_of_either_side(scene: Scene, side: str) -> None:
    """Linux takes a packet for any of its addresses by any of its interfaces. Not from a neighbour of red's or black's
    who knows such an address and the card's, nor by an address that every bridge hands up; and the same pings do arrive
    once the bridge is an ordinary one.
    """
    rig, card = scene.rig, {"red": "lan", "black": "wan"}[side]
    host = scene.left.host if side == "red" else scene.right.gateway

    def heard(mac: str) -> int:
        host.run("ip", "neigh", "replace", ELSEWHERE, "lladdr", mac, "dev", TAP)
        before = _pings_of(rig)
        host.run("ping", "-c", "3", "-i", "0.2", "-W", "1", ELSEWHERE, check=False)
        return _pings_of(rig) - before

    def switch(filtering: int, forwarded: str) -> None:
        rig.run(f"echo {filtering} > /sys/class/net/{BOX}.{side}/bridge/vlan_filtering", check=True)
        rig.run(f"echo {forwarded} > /sys/class/net/{card}/brport/group_fwd_mask", check=True)

    host.run("ip", "route", "replace", ELSEWHERE, "dev", TAP)
    rig.run(f"ip address replace {ELSEWHERE}/32 dev lo", check=True)
    try:
        assert [heard(MACS[card]), heard(LLDP)] == [0, 0]
        switch(0, "0")
        assert heard(MACS[card]) > 0 and heard(LLDP) > 0
        switch(1, "0xfffd")
        assert [heard(MACS[card]), heard(LLDP)] == [0, 0]
    finally:
        switch(1, "0xfffd")
        rig.run(f"ip address del {ELSEWHERE}/32 dev lo", check=True)
        host.run("ip", "route", "del", ELSEWHERE, "dev", TAP)


def _pings_of(rig: Rig) -> int:
    """How many dom0 has got so far, by whatever interface."""
    names, values = (line.split() for line in rig.run("grep ^Icmp: /proc/net/snmp", check=True)[1].splitlines())
    return int(values[names.index("InEchos")])


def test_no_guest_is_saved_to_a_disk(scene: Scene) -> None:
    """The policy refuses `xl save`: its file then has the guest's configuration and no more, and the guest runs on."""
    before = scene.box.domains()["rng"]
    printed = len(scene.rig.console())
    code, said = scene.rig.run(["xl", "save", str(before["domid"]), "/root/saved"], 120)
    assert code != 0, said
    denials = [line for line in scene.rig.console()[printed:].splitlines() if "denied" in line]
    assert any("dom0_t" in line and "septum_rng_t" in line for line in denials), denials
    assert int(scene.rig.run("stat -c %s /root/saved && rm /root/saved", check=True)[1]) < 4096
    after = scene.box.domains()["rng"]
    assert (after["domid"], after["state"]) == (before["domid"], "running")
    assert scene.rig.run(f"xl vcpu-list {after['domid']}", check=True)[1].splitlines()[-1].split()[4][-1] != "p"


def test_a_session_is_replaced_under_a_running_connection(scene: Scene, report: list[tuple[str, str]]) -> None:
    assert answers(scene)
    before = max(scene.stock.handshakes().values())
    with Transfer(scene.left.host, scene.right.host, scene.right.host4, rate=RATE, pace=PACE) as transfer:
        wait_for("another handshake", lambda: scene.stock.shaken(before + 1), REKEY_AFTER + 60, every=1)
        so_far = transfer.received
        wait_for("bytes to arrive after it", lambda: transfer.received > so_far + 2 * RATE, 60)
    assert transfer.intact
    report.append(("xen: rekey, longest silence", f"{transfer.longest_silence() * 1e3:.0f} ms"))


@pytest.mark.parametrize("domain", AFTER)
def test_a_destroyed_guest_is_rebuilt_under_a_renewed_session(
    scene: Scene, domain: str, report: list[tuple[str, str]]
) -> None:
    destroy(scene, domain, report)


def test_the_world_saw_only_wireguard(scene: Scene) -> None:
    scene.capture.stop()
    assert scene.capture.contains(MARKER) == 0
    assert not scene.capture.repeated_nonces()
    assert len(scene.capture.datagrams()) > 1000, "an empty capture holds no plaintext either"


def test_down_leaves_nothing_behind(scene: Scene) -> None:
    scene.box.down()
    rig = scene.rig
    assert [line.split()[0] for line in rig.run("xl list", check=True)[1].splitlines()[1:]] == ["Domain-0"]
    assert rig.run("xenstore-list /local/domain", check=True)[1].split() == ["0"]
    assert rig.run("ls /run/septum 2>/dev/null")[1].split() == []
    shown = rig.run("ip addr show", check=True)[1]
    assert f"{scene.left.lan4}/24" in shown and f"{scene.left.wan4}/24" in shown
    assert "wg0.red" not in shown and "vif" not in shown
