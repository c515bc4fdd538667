"""The Xen back end without Xen: what it asks of xl and writes into the xenstore, and in which order."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.assembly.load import ASSEMBLIES, VPN, load
from appliance.assembly.model import Network, ValidatedAssembly, Xen
from appliance.assembly.wgquick import from_wgquick
from appliance.cli.septum import plain_up
from appliance.guest import boxpage
from appliance.guest.boot import described
from appliance.guest.outside import OUTSIDE
from appliance.monitor.backend import Away
from appliance.monitor.links import LinkError
from appliance.monitor.network import NetworkError
from appliance.monitor.telling import Telling
from appliance.monitor.xen import backend as module
from appliance.monitor.xen import bridges, burials, config, pages, ramdisk, seals, wiring
from appliance.monitor.xen.backend import XenBackend
from appliance.monitor.xen.bridges import Bridges
from appliance.monitor.xen.disk import NOWHERE, Place
from appliance.monitor.xen.fit import XenError, see_fit, see_free
from appliance.monitor.xen.images import INDEX, Boot, boots_of
from appliance.monitor.xen.pages import references
from appliance.monitor.xen.plan import Plan, Side, plans_of, with_sides
from appliance.monitor.xen.ramdisk import ImageError
from appliance.monitor.xen.told import Told
from appliance.xen.xswire import Event
from tests.unit.monitor.fake_xen import FakeStore, FakeXl

ROOT = Path(__file__).resolve().parents[3]
PRIVATE = "QEJOrY0UzBWGZ0bIcDmEnYxFu4DWN7sWAIvdPm4bYnw="
CONF = f"""[Interface]
PrivateKey = {PRIVATE}
ListenPort = 51820
Address = 10.9.0.1/24
[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 10.9.0.0/24, 192.168.7.0/24
"""
SIDES = {side: Side(side, f"wg0.{side}", bridges.mac("wg0", side), {"interface": "eth0"}) for side in ("red", "black")}


@pytest.fixture
def assembly(tmp_path: Path) -> ValidatedAssembly:
    file = tmp_path / "wg0.conf"
    file.write_text(CONF)
    file.chmod(0o600)
    return from_wgquick(file, lan="eth1", wan="eth2")


@pytest.fixture
def plans(assembly: ValidatedAssembly) -> dict[str, Plan]:
    return with_sides(plans_of(assembly, "wg0"), SIDES)


def images(assembly: ValidatedAssembly, where: Path) -> dict[str, Boot]:
    kernel, image = where / "kernel", where / "image"
    kernel.write_bytes(b"a kernel")
    image.write_bytes(b"an image")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (kernel, image)]
    boot = Boot(kernel, digests[0], image, digests[1], "console=hvc0", 48)
    return {domain.name: boot for domain in assembly.domains}


class Machine:
    """A back end on a fake Xen."""

    def __init__(
        self,
        assembly: ValidatedAssembly,
        where: Path,
        held: dict[str, int] | None = None,
    ) -> None:
        self.store = FakeStore()
        self.pty = os.openpty()
        self.terminal = os.ttyname(self.pty[1])
        self.xl = FakeXl(self.store, self.terminal)
        self.journal = os.memfd_create("journal")
        arguments: Any = (assembly, "wg0", where, images(assembly, where), SIDES, self.journal, self.xl, self.store)
        self.disk = FakeDisk()
        self.lines: list[str] = []
        self.backend = XenBackend(
            *arguments,
            disk=self.disk,
            devices=held,
            log=lambda priority, text: self.lines.append(text),
        )

    def up(self) -> None:
        for name in self.backend.neighbours:
            self.backend.start(name)
        for _ in range(2 * len(self.backend.neighbours)):
            self.backend.turn()

    def close(self) -> None:
        self.backend.close()
        for fd in (*self.pty, self.journal):
            os.close(fd)


@pytest.fixture
def machine(assembly: ValidatedAssembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(module.gntdev, "open_device", lambda: os.open(os.devnull, os.O_RDWR))
    monkeypatch.setattr(module.bridges, "join", lambda bridge, domid: None)
    made = Machine(assembly, tmp_path)
    yield made
    made.close()


# what a guest is given -----------------------------------------------------------------------------------------------


def made(plan: Plan) -> dict[str, Any]:
    return config.of(plan, uuid="u", kernel="/k", ramdisk="/r", extra="console=hvc0", memory_mib=48)


def test_nothing_in_a_guest_that_it_does_not_need(plans: dict[str, Plan]) -> None:
    for name, plan in plans.items():
        said = made(plan)
        assert (said["vcpus"], said["nomigrate"], said["passthrough"]) == (1, 1, "disabled")
        assert {said[f"on_{event}"] for event in ("poweroff", "reboot", "crash", "watchdog")} == {"destroy"}
        assert not any(said[kind] for kind in ("vfb", "disk", "pci", "usbctrl", "usbdev")), name
        assert said["maxmem"] == said["memory"] == 48
        assert said["seclabel"] == f"system_u:system_r:septum_{name}_t"
        assert said["init_seclabel"] == said["seclabel"] + "_building"


@pytest.mark.parametrize(("table", "line"), [('[xen]\ncpus = "2-3"\n', b'cpus = "2-3"'), ("[xen]\n", None), ("", None)])
def test_all_guests_are_pinned_or_none(table: str, line: bytes | None, tmp_path: Path) -> None:
    shutil.copy(VPN.parent / "vpn.rules", tmp_path)
    file = tmp_path / "box.toml"
    file.write_text(f"{VPN.read_text()}\n{table}")
    pinned = plans_of(load(file), "wg0")
    assert len(pinned) == 9
    for name, plan in pinned.items():
        lines = config.render(made(plan)).splitlines()
        assert [said for said in lines if re.match(rb"cpus\b", said)] == ([line] if line else []), name
        assert seals.wanted(plan, 48).get("cpus") == ("2-3" if line else None)


def test_only_the_two_faces_have_an_interface(plans: dict[str, Plan]) -> None:
    assert {name for name, plan in plans.items() if made(plan)["vif"]} == {"red", "black"}
    assert "bridge=wg0.red" in made(plans["red"])["vif"][0] and "bridge=wg0.black" in made(plans["black"])["vif"][0]
    assert all("script=/bin/true" in made(plans[name])["vif"][0] for name in ("red", "black"))


def test_grants_and_events_are_counted(plans: dict[str, Plan]) -> None:
    packets, records = 1 + 128 + 1, 1 + 4  # pages: header and a ring of 512 KiB (2 KiB back are in the header page)
    red, filter_ = plans["red"], plans["filter"]
    ring = next(link.pages for link in red.links if link.port == "plain_in")
    assert ring in (packets, packets - 1)
    assert red.granted == 1 + ring  # it serves plain_in, and has its status page
    assert red.mapped == ring + next(link.pages for link in red.links if link.port == "log")
    asked = next(link.pages for link in filter_.links if link.peer == "operator")
    assert filter_.granted == 1 + 2 * ring + asked  # what the operator calls is granted and counted as all else
    assert plans["log"].mapped == 0 and made(plans["log"])["max_maptrack_frames"] == 0
    assert plans["log"].granted == 1 + 8 * next(link.pages for link in plans["log"].links)
    assert next(link.pages for link in plans["log"].links) in (records, records + 1)
    # 512 entries of the grant table a frame; 256 of the maptrack table, of which a PV guest takes two a page
    for plan in plans.values():
        assert plan.max_grant_frames * 512 >= 8 + plan.granted + (514 if plan.side else 0)
        assert plan.max_maptrack_frames * 256 >= 2 * plan.mapped
        assert 16 < plan.max_event_channels - len(plan.links) + 1 <= 19
    assert plans["rng"].max_grant_frames < plans["black"].max_grant_frames


def test_a_board_has_room_for_the_configured_peers_only(assembly: ValidatedAssembly, plans: dict[str, Plan]) -> None:
    assert plans["keymgr"].status_pages == 2 and plans["rng"].status_pages == 1


def test_no_text_breaks_out_of_xls_syntax() -> None:
    assert config.render({"a": 1, "b": ["x", "y"], "c": "d e"}) == b'a = 1\nb = ["x", "y"]\nc = "d e"\n'
    for text in ('a"', "a'", "a\\", "a\nb", "é"):
        with pytest.raises(ValueError, match="cannot be said"):
            config.render({"a": text})


def test_the_description_stands_before_the_image(assembly: ValidatedAssembly, machine: Machine) -> None:
    machine.up()
    whole = machine.xl.ramdisks["wg0-keymgr"]
    assert whole.endswith(b"an image") and whole.startswith(b"070701")
    assert len(whole.removesuffix(b"an image")) % 4 == 0
    assert whole[110:].startswith(b"description.json\0") and int(whole[14:22], 16) == 0o100400
    description = ramdisk_description(whole)
    assert description["settings"]["private_key"] == PRIVATE and description["status_pages"] == 2
    assert {port["channel"] for port in description["ports"]} == {
        n for n, c in enumerate(assembly.channels) if "keymgr" in (c.client.domain, c.server.domain)
    }
    assert PRIVATE.encode() not in b"".join(
        ramdisk for title, ramdisk in machine.xl.ramdisks.items() if title != "wg0-keymgr"
    )


# who may read and write what -----------------------------------------------------------------------------------------


def test_a_guest_writes_its_offers_and_its_status_and_owns_nothing(plans: dict[str, Plan]) -> None:
    domids = {name: number for number, name in enumerate(plans, 1)}
    for name, plan in plans.items():
        own = domids[name]
        nodes = wiring.home(plan, own, {other: d for other, d in domids.items() if other != name})
        assert all(node.permissions[0] == "n0" for node in nodes)
        written = {node.path for node in nodes if f"b{own}" in node.permissions}
        served = [link for link in plan.links if link.is_server]
        assert written == {"data/status"} | {path for link in served for path in wiring.offers(link.number)}
        more = len(wiring.NETFRONT) if name in ("red", "black") else 0
        assert seals.writable(plan) == f"dom0's; writes {len(written) + more} leaves"
        for link in served:
            for path in wiring.offers(link.number):
                (node,) = (node for node in nodes if node.path == path)
                reader = () if link.peer in OUTSIDE else (f"r{domids[link.peer]}",)
                assert node.permissions == ("n0", f"b{own}", *reader)
        told = {node.path: node.value for node in nodes if node.path.endswith("/peer")}
        peers = {**domids, "operator": 0, "dom0": 0}
        assert told == {wiring.peer_path(link.number): str(peers[link.peer]) for link in plan.links}


def test_a_guest_that_is_back_may_read_what_is_offered_before_the_server_is_told(plans: dict[str, Plan]) -> None:
    domids = {name: number for number, name in enumerate(plans, 1)}
    changes = wiring.arrival(plans["red"], 99, plans, domids)
    (n,) = (link.number for link in plans["red"].links if link.port == "plain_out")
    steps = [(domid, node.path) for domid, node in changes if domid == domids["filter"]]
    offers = [(domids["filter"], path) for path in wiring.offers(n)]
    assert steps.index(offers[1]) < steps.index((domids["filter"], wiring.peer_path(n)))
    granted = [node.permissions for domid, node in changes if (domid, node.path) in offers]
    assert granted == [("n0", f"b{domids['filter']}", "r99")] * 2
    # what red itself serves is in red's own home
    assert not any(
        "data" in node.path for domid, node in changes if domid == domids["filter"] and "r99" not in node.permissions
    )


def test_what_was_offered_to_a_dead_guest_is_withdrawn(plans: dict[str, Plan]) -> None:
    domids = {name: number for number, name in enumerate(plans, 1)}
    del domids["red"]
    changes = {(domid, node.path): node for domid, node in wiring.departure(plans["red"], domids)}
    (n,) = (link.number for link in plans["red"].links if link.port == "plain_out")
    for path in (wiring.peer_path(n), *wiring.offers(n)):
        assert changes[domids["filter"], path].value == ""
        assert "r0" not in changes[domids["filter"], path].permissions
    assert all(len(changes[domids["filter"], path].permissions) == 2 for path in wiring.offers(n))


# a life --------------------------------------------------------------------------------------------------------------


def test_each_is_created_and_wired_before_it_runs_and_none_reads_input(machine: Machine) -> None:
    machine.up()
    ids = {name: str(machine.xl.domid(f"wg0-{name}")) for name in machine.backend.neighbours}
    assert [words for words in machine.xl.asked if words[0] == "create"] == [("create", f"wg0-{name}") for name in ids]
    assert [words for words in machine.xl.asked if words[0] == "unpause"] == [("unpause", ids[name]) for name in ids]
    for name, domid in ids.items():
        assert machine.xl.asked.index(("create", f"wg0-{name}")) < machine.xl.asked.index(("unpause", domid))
    assert not any(value for path, value in machine.store.done if path.endswith(wiring.GO))
    for name in machine.backend.neighbours:
        domid = machine.xl.domid(f"wg0-{name}")
        home = f"/local/domain/{domid}"
        assert machine.store.owners[f"{home}/data"] == ["n0", f"r{domid}"]
        peers = [value for path, value in machine.store.nodes.items() if re.fullmatch(f"{home}/septum/.*/peer", path)]
        assert len(peers) == len(machine.backend.neighbours[name]) and all(peers)
        assert machine.store.nodes[f"{home}/septum/go"] == ""
    vif = machine.xl.domid("wg0-red")
    front = f"/local/domain/{vif}/device/vif/0"
    assert machine.store.owners[front] == ["n0", f"r{vif}"]
    assert machine.store.owners[f"{front}/state"] == ["n0", f"b{vif}"] and machine.store.nodes[f"{front}/state"] == "1"
    assert machine.store.owners[f"{front}/tx-ring-ref"] == ["n0", f"b{vif}"]
    assert machine.store.nodes[f"/local/domain/0/backend/vif/{vif}/0/hotplug-status"] == "connected"


def test_one_that_dies_is_built_anew_alone_and_its_peers_are_told(machine: Machine) -> None:
    machine.up()
    old, peer = machine.xl.domid("wg0-filter"), machine.xl.domid("wg0-red")
    machine.xl.asked.clear()
    machine.store.done.clear()
    machine.xl.vanish(old)
    machine.backend.turn()
    assert "filter" not in machine.backend.living and len(machine.backend.living) == 8
    assert machine.backend.bury("filter").startswith("is gone")
    machine.backend.reset("filter")
    told = [(path, value) for path, value in machine.store.done if path.startswith(f"/local/domain/{peer}/")]
    assert told and all(value == "" for _, value in told)
    assert machine.backend.all_wait("filter", ("red",))
    machine.backend.start("filter")
    machine.backend.turn()
    machine.backend.turn()
    new = machine.xl.domid("wg0-filter")
    assert new != old
    assert machine.xl.asked == [("create", "wg0-filter"), ("unpause", str(new))]
    told = [value for path, value in machine.store.done if re.fullmatch(f"/local/domain/{peer}/septum/.*/peer", path)]
    assert told[-2:] == [str(new)] * 2 and str(old) not in told


def test_one_that_has_shut_down_is_destroyed_by_the_monitor(machine: Machine) -> None:
    machine.up()
    domid = machine.xl.domid("wg0-log")
    machine.xl.shut_down.add(domid)
    machine.store.events.append(machine.store.events[0] if machine.store.events else ("@releaseDomain", "death"))
    machine.backend.turn()
    assert "log" not in machine.backend.living
    assert machine.backend.bury("log").startswith("has ended")
    assert ("destroy", str(domid)) in machine.xl.asked


def test_an_xl_that_fails_ends_nothing_and_hides_no_death(machine: Machine) -> None:
    machine.up()
    machine.xl.shut_down.add(machine.xl.domid("wg0-log"))
    machine.store.events.append(Event("@releaseDomain", "death"))
    machine.xl.fails = 2
    for _ in range(2):
        machine.backend.turn()
        assert len(machine.backend.living) == 9
    machine.backend.turn()
    assert "log" not in machine.backend.living


def test_while_an_xl_hangs_the_others_are_watched_and_built_anew(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burials, "_FIRST_REST", 0.0)
    machine.up()
    domid = machine.xl.domid("wg0-filter")
    machine.xl.hangs.add("destroy")
    machine.backend.kill("filter")
    machine.backend.bury("filter")
    assert ("pause", str(domid)) in machine.xl.asked  # it does nothing more, whatever xl does
    machine.backend.reset("filter")
    machine.backend.start("filter")
    machine.xl.hangs.clear()
    machine.xl.vanish(machine.xl.domid("wg0-red"))
    machine.backend.turn()
    assert "red" not in machine.backend.living
    machine.backend.bury("red")
    machine.backend.start("red")
    for _ in range(3):
        machine.backend.turn()
    assert machine.xl.domid("wg0-red") > domid and machine.xl.domid("wg0-filter") == domid  # its next life waits
    machine.backend.kill("filter")  # for too long, says the supervisor
    machine.backend.bury("filter")
    machine.backend.reset("filter")
    machine.backend.start("filter")
    machine.backend.turn()
    assert machine.xl.domid("wg0-filter") == domid
    (hung,) = machine.xl.hung
    hung.is_late = True
    for _ in range(4):
        machine.backend.turn()
    assert [line for line in machine.lines if "wg0-filter cannot be destroyed yet" in line]
    assert machine.xl.domid("wg0-filter") > domid


def test_an_xl_that_hangs_at_making_a_guest_is_ended_with_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burials, "_FIRST_REST", 0.0)
    machine.xl.hangs.add("create")
    machine.backend.start("rng")
    machine.backend.start("log")
    machine.backend.turn()
    machine.xl.hangs.clear()
    machine.backend.kill("rng")
    machine.backend.bury("rng")
    machine.backend.turn()
    assert machine.xl.titles == []  # it makes one at a time
    (hung,) = machine.xl.hung
    hung.is_late = True
    for _ in range(2):
        machine.backend.turn()
    assert machine.xl.titles == ["wg0-log"]


def test_an_xl_that_hangs_when_asked_who_has_ended_is_ended_and_asked_again(machine: Machine) -> None:
    machine.up()
    machine.xl.shut_down.add(machine.xl.domid("wg0-log"))
    machine.xl.hangs.add("list")
    machine.store.events.append(Event("@releaseDomain", "death"))
    machine.backend.turn()
    machine.xl.vanish(machine.xl.domid("wg0-red"))  # that the xenstore itself knows
    machine.xl.hung[0].is_late = True
    machine.xl.hangs.clear()
    machine.backend.turn()
    assert "log" in machine.backend.living and any("`xl list` hangs" in line for line in machine.lines)
    machine.backend.turn()
    assert {"log", "red"} & set(machine.backend.living) == set()


def test_a_console_that_comes_late_is_waited_for(machine: Machine) -> None:
    machine.xl.has_consoles = False
    machine.backend.start("rng")
    for _ in range(3):
        machine.backend.turn()
    assert machine.backend.living == ("rng",)
    home = f"/local/domain/{machine.xl.domid('wg0-rng')}"
    assert f"{home}/septum/go" not in machine.store.nodes  # not before all of it is there
    machine.store.nodes[f"{home}/console/tty"] = machine.terminal
    machine.backend.turn()
    assert machine.store.nodes[f"{home}/septum/go"] == ""
    assert machine.backend.living == ("rng",)


def test_what_a_guest_prints_does_nothing_to_a_terminal_or_the_journal(machine: Machine) -> None:
    machine.backend.start("log")
    machine.backend.turn()
    tty.setraw(machine.pty[0])
    os.write(machine.pty[0], b"so \x1b[31mangry\x07\r\n\xff\x9b more\n")
    select.select([machine.pty[1]], [], [], 20)
    machine.backend.turn()
    assert os.pread(machine.journal, 100, 0) == b"so ?[31mangry?\n?? more\n"
    assert machine.backend.bury("log").splitlines()[-2:] == ["  so ?[31mangry?", "  ?? more"]


def test_what_was_written_to_one_that_was_just_going_is_not_left_behind(machine: Machine) -> None:
    machine.up()
    red, filter_ = machine.xl.domid("wg0-red"), machine.xl.domid("wg0-filter")
    machine.xl.vanish(filter_)
    machine.backend.turn()
    machine.backend.bury("filter")
    machine.xl.vanish(red)  # and the monitor has not heard of it
    machine.backend.reset("filter")
    assert f"/local/domain/{red}" in machine.store.nodes
    machine.backend.turn()
    machine.backend.bury("red")
    assert f"/local/domain/{red}" not in machine.store.nodes


def test_one_whose_interface_is_gone_before_it_is_plugged_ends_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def join(bridge: str, domid: int) -> None:
        raise NetworkError(f"there is no vif{domid}.0")

    monkeypatch.setattr(module.bridges, "join", join)
    machine.up()
    assert set(machine.backend.neighbours) - set(machine.backend.living) == {"red", "black"}
    assert "could not be built: there is no vif" in machine.backend.bury("red")


def test_a_guest_of_somebody_elses_that_has_our_name_is_left_alone(machine: Machine) -> None:
    machine.xl._names[77] = "wg0-log"
    with pytest.raises(XenError, match=r"there is a guest wg0-log already.* xl destroy wg0-log"):
        see_free(["wg0-rng", "wg0-log"], machine.xl)  # type: ignore[arg-type]
    assert machine.xl.domid("wg0-log") == 77
    see_free(["wg0-rng"], machine.xl)  # type: ignore[arg-type]
    del machine.xl._names[77]


# who is outside ------------------------------------------------------------------------------------------------------


def test_dom0_is_told_where_to_meet_the_filter_and_is_its_peer_from_the_start(
    assembly: ValidatedAssembly, machine: Machine
) -> None:
    machine.up()
    number = next(n for n, one in enumerate(assembly.channels) if one.client.domain == "operator")
    domid = machine.xl.domid("wg0-filter")
    assert machine.backend.lend("filter") == ("filter", "filtering", (), (domid, number))
    assert machine.store.nodes[f"/local/domain/{domid}/{wiring.peer_path(number)}"] == "0"
    assert machine.backend.lend("red") is None
    assert not any(path.startswith("/local/domain/0/septum") for path in machine.store.nodes)


def test_nobody_is_met_while_the_filter_is_built(machine: Machine) -> None:
    with pytest.raises(Away, match="filter is being built"):
        machine.backend.lend("filter")
    machine.up()
    machine.xl.vanish(machine.xl.domid("wg0-filter"))
    machine.backend.turn()
    with pytest.raises(Away, match="filter is being built"):
        machine.backend.lend("filter")
    machine.backend.bury("filter")
    machine.backend.reset("filter")
    machine.backend.start("filter")
    machine.backend.turn()
    machine.backend.turn()
    assert machine.backend.lend("filter") is not None


class FakeDisk:
    def __init__(self) -> None:
        self.places: list[Place] = []
        self.is_closed = False

    def tell(self, place: Place) -> None:
        if [place] != self.places[-1:]:
            self.places.append(place)

    def turn(self, now: float) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {"pid": 7, "seal": {}}

    def close(self) -> None:
        self.is_closed = True


def test_the_stores_disk_is_a_channel_of_dom0s(assembly: ValidatedAssembly, plans: dict[str, Plan]) -> None:
    link = plans["store"].links[-1]
    number = len(assembly.channels)
    assert (link.peer, link.port, link.is_server, link.number) == ("dom0", "disk", True, number)
    assert all(one.peer != "dom0" for name, plan in plans.items() if name != "store" for one in plan.links)
    nodes = {node.path: node for node in wiring.home(plans["store"], 5, {})}
    assert nodes[wiring.peer_path(number)].value == "0"
    assert all(nodes[path].permissions == ("n0", "b5") for path in wiring.offers(number))
    assert plans["store"].granted >= link.pages


def test_who_keeps_the_disk_is_told_where_the_store_is(assembly: ValidatedAssembly, machine: Machine) -> None:
    disk = machine.disk
    machine.up()
    assert disk.places == [NOWHERE]
    home = f"/local/domain/{machine.xl.domid('wg0-store')}"
    ring_ref, port = wiring.offers(len(assembly.channels))
    machine.store.write(f"{home}/{port}", "9")
    machine.store.write(f"{home}/{ring_ref}", "x")  # its own word
    machine.backend.turn()
    assert disk.places == [NOWHERE]
    machine.store.write(f"{home}/{ring_ref}", "44")
    machine.backend.turn()
    domid = machine.xl.domid("wg0-store")
    assert disk.places == [NOWHERE, (domid, 44, 9)]
    machine.xl.vanish(domid)
    machine.backend.turn()
    assert disk.places[-1] == NOWHERE
    machine.backend.bury("store")
    machine.backend.reset("store")
    machine.backend.start("store")
    machine.backend.turn()
    machine.backend.turn()
    assert disk.places[-1] == NOWHERE  # it has offered nothing yet


def memory(content: bytes, seals: int = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE) -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def test_what_the_operator_replaced_is_in_the_next_life(machine: Machine) -> None:
    machine.up()
    fd = memory(b'{"rules": ["new"]}')
    machine.backend.replace_setting("filter", "ruleset", fd)
    os.close(fd)
    machine.xl.vanish(machine.xl.domid("wg0-filter"))
    machine.backend.turn()
    machine.backend.bury("filter")
    before = ramdisk_description(machine.xl.ramdisks["wg0-filter"])
    machine.backend.start("filter")
    machine.backend.turn()
    after = ramdisk_description(machine.xl.ramdisks["wg0-filter"])
    assert before["settings"]["ruleset"] != {"rules": ["new"]} == after["settings"]["ruleset"]
    assert {**after, "settings": {}} == {**before, "settings": {}}


def ramdisk_description(whole: bytes) -> dict[str, Any]:
    """The description that stands before an image, as a guest reads it."""
    name_size, size = int(whole[94:102], 16), int(whole[54:62], 16)
    start = -(-(110 + name_size) // 4) * 4
    return dict(described(whole[start : start + size]))


@pytest.mark.parametrize(
    ("content", "seals", "why"), [(b"{}", 0, "could still change"), (b"x" * (3 << 20 | 1), 7 << 1, "has 3145729 bytes")]
)
def test_what_is_no_setting_is_not_kept(machine: Machine, content: bytes, seals: int, why: str) -> None:
    fd = memory(content, seals)
    with pytest.raises(ValueError, match=why):
        machine.backend.replace_setting("filter", "ruleset", fd)
    os.close(fd)


def test_one_that_writes_nonsense_for_its_status_page_is_ended(machine: Machine) -> None:
    machine.up()
    machine.store.nodes[f"/local/domain/{machine.xl.domid('wg0-rng')}/data/status"] = "1,2,3"
    machine.backend.report("rng")
    assert "rng" not in machine.backend.living
    assert "status" in machine.backend.bury("rng")


@pytest.mark.parametrize("text", ["x", "1,", "-1", "1,2", "1" * 30, "1 ", "١"])
def test_references_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="grant"):
        references(text, 1)


def test_references() -> None:
    assert references("", 2) is None and references("8,9", 2) == [8, 9]


def test_nothing_is_left_behind(assembly: ValidatedAssembly, tmp_path: Path, machine: Machine) -> None:
    machine.up()
    assert (tmp_path / "xen.json").exists()
    machine.backend.close()
    assert machine.xl.titles == [] and not (tmp_path / "xen.json").exists()
    machine.backend = Machine(assembly, tmp_path).backend  # for the fixture to close


JOIN = """
import json, subprocess
from appliance.monitor.network import NetworkError
from appliance.monitor.xen import bridges

def link(*words):
    return subprocess.run(["ip", "-j", "link", *words], check=True, capture_output=True).stdout

link("add", "box.red", "type", "bridge")
link("add", "vif7.0", "type", "veth", "peer", "eth0")
subprocess.run(["mount", "-t", "sysfs", "sys", "/sys"], check=True)
bridges.join("box.red", 7)
(found,) = json.loads(link("show", "vif7.0"))
assert found["master"] == "box.red" and "UP" in found["flags"], found
try:
    bridges.join("box.red", 8)
except NetworkError as error:
    print(error)
"""


BARE = """
import os, subprocess, sys
from pathlib import Path
from appliance.monitor.links import LinkError
from appliance.monitor.xen import bridging

def link(*words):
    subprocess.run(["ip", "link", *words], check=True)

for name, kind in (("lan", "veth"), ("wan", "veth")):
    link("add", name, "type", kind, "peer", "name", f"{name}-peer")
link("add", "link", "lan", "name", "lan.10", "type", "macvlan")
subprocess.run(["mount", "-t", "sysfs", "sys", "/sys"], check=True)
sides = {"red": "lan", "black": "wan"}, {"red": "box.red", "black": "box.black"}
home = os.open("/proc/self/ns/net", os.O_RDONLY)
record = Path(sys.argv[1]) / "record"
try:
    bridging.make(*sides, record, home)
except LinkError as error:
    print(error)
assert not record.exists() and not Path("/sys/class/net/box.red").exists()
link("del", "lan.10")
for name in sides[0].values():
    bridging._see_bare(name)
"""


@pytest.mark.root
def test_no_interface_is_bridged_that_dom0_has_another_one_on(tmp_path: Path) -> None:
    command = ["unshare", "-n", "-m", sys.executable, "-c", BARE, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert "dom0 has lan.10 on lan" in done.stdout and "ip link del lan.10" in done.stdout


@pytest.mark.root
def test_the_other_end_of_an_interface_goes_into_its_bridge() -> None:
    done = subprocess.run(
        ["unshare", "-n", "-m", sys.executable, "-c", JOIN], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert "there is no vif8.0" in done.stdout


# refusals ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dom0(tmp_path: Path) -> Path:
    """The root of a dom0 that has what it needs."""
    root = tmp_path / "dom0"
    for place in ("dev/xen/gntdev", "dev/xen/evtchn", "sys/bus/xen-backend/drivers/vif", "sys/hypervisor/type"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text("xen\n")
    return root


def fits(assembly: ValidatedAssembly, root: Path, mode: str = "Enforcing", *amiss: str) -> None:
    xl: Any = SimpleNamespace(enforces=lambda: mode == "Enforcing", machine_cpus=lambda: 4)
    see_fit(assembly, xl, lambda _: list(amiss), root)


@pytest.mark.parametrize("mode", ["Permissive", "Disabled", ""])
def test_a_xen_that_enforces_nothing_is_refused(assembly: ValidatedAssembly, dom0: Path, mode: str) -> None:
    fits(assembly, dom0)
    with pytest.raises(XenError, match='xsm = "absent"'):
        fits(assembly, dom0, mode)


def test_a_xen_that_enforces_another_policy_is_refused(assembly: ValidatedAssembly, dom0: Path) -> None:
    with pytest.raises(XenError, match="another policy than this assembly's: red may too much"):
        fits(assembly, dom0, "Enforcing", "red may too much")


@pytest.mark.parametrize(
    ("named", "fit"), [("", True), ("2-3", True), ("0-3", True), ("2-4", False), ("4", False), ("3-2", False)]
)
def test_cpus_that_the_machine_has_not_are_refused(
    assembly: ValidatedAssembly, dom0: Path, named: str, fit: bool
) -> None:
    from appliance.assembly.model import _PROOF

    said = replace(assembly, xen=replace(assembly.xen, cpus=named), proof=_PROOF)
    if fit:
        fits(said, dom0)
    else:
        with pytest.raises(XenError, match=f'cpus = "{named}" .* has 0-3: name some of these'):
            fits(said, dom0)


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        ("sys/hypervisor/type", "does not run on Xen"),
        ("dev/xen/gntdev", "modprobe xen-gntdev"),
        ("dev/xen/evtchn", "modprobe xen-evtchn"),
        ("sys/bus/xen-backend/drivers/vif", "modprobe xen-netback"),
    ],
)
def test_a_dom0_that_lacks_something_is_told_what(
    assembly: ValidatedAssembly, dom0: Path, missing: str, what: str
) -> None:
    (dom0 / missing).unlink()
    with pytest.raises(XenError, match=what):
        fits(assembly, dom0)


def test_unless_the_assembly_says_so(assembly: ValidatedAssembly, tmp_path: Path, machine: Machine, dom0: Path) -> None:
    from appliance.assembly.model import _PROOF

    said = replace(assembly, xen=Xen(xsm="absent"), proof=_PROOF)
    fits(said, dom0, "Disabled", "red may too much")
    other = Machine(said, tmp_path)
    other.up()
    assert "seclabel" not in other.xl.configurations["wg0-keymgr"]
    other.close()


def test_an_image_that_was_changed_does_not_boot(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"an imagE")
    gone = machine.backend.start("rng")
    machine.backend.turn()
    assert os.eventfd_read(gone) == 1 and machine.backend.living == ()
    assert "is not what was built" in machine.backend.bury("rng")
    assert machine.xl.asked == []


def test_what_was_hashed_of_a_kernel_boots_every_later_life(machine: Machine, tmp_path: Path) -> None:
    machine.up()
    (tmp_path / "kernel").write_bytes(b"another")
    machine.xl.vanish(machine.xl.domid("wg0-log"))
    machine.backend.turn()
    machine.backend.bury("log")
    machine.backend.start("log")
    machine.backend.turn()
    assert len(machine.xl.kernels) == 10 and len(set(machine.xl.kernels)) == 1
    kernel = machine.xl.kernels[0]
    assert os.pread(kernel, 100, 0) == b"a kernel"
    with pytest.raises(PermissionError):
        os.write(kernel, b"x")


def test_one_question_for_all_guests_and_none_that_xl_is_not_done_with() -> None:
    asked: list[tuple[str, ...]] = []
    configured = {"c_info": {"type": "pv"}, "b_info": {"max_memkb": 49152, "disable_migrate": "True"}}

    class Tool:
        def run(self, *words: str) -> str:
            asked.append(words)
            if words[1] == "-l":
                known = {1: configured, 2: configured, 3: {}}
                return json.dumps([{"domid": 0}, *({"domid": n, "config": said} for n, said in known.items())])
            return "Name ID Mem VCPUs State Time(s) Security Label\nmy 1 vm 48 1 -b---- 0.1 a:b\n" + "".join(
                f"wg0-{n} {n} {16 * (1 + n)} {1 + n // 3} -b---- 0.1 system_u:system_r:d{n}_t\n" for n in (1, 2, 3)
            )

        def cpus(self, domid: int) -> frozenset[int]:
            return frozenset({0, 2, 3, 5} if domid == 1 else {1})

    survey, store = seals.Survey(Tool()), FakeStore()  # type: ignore[arg-type]
    for domid in (1, 2):
        found = survey.seen(domid, store, {1, 2})
        assert (found["label"], found["memory"]) == (f"system_u:system_r:d{domid}_t", "48 MiB")
        assert found["cpus"] == ("0,2-3,5" if domid == 1 else "1")
    assert asked == [("list", "-l"), ("list", "-Z")]
    found = survey.seen(3, store, {1, 2, 3})  # it was being built before; xl does not say of what type
    assert (found["type"], found["memory"], found["vcpus"]) == ("None", "64 MiB", "2")  # but Xen, what it has
    assert len(asked) == 4
    home = store.home(1)
    store.write(f"{home}/data/status", "")
    for entries, shown in (
        (["n0", "b1", "r7"], "dom0's; writes 1 leaves"),
        (["n0", "r1", "b7"], "1 nodes are another guest's to write"),
        (["r0", "b1"], "1 nodes are open to everybody"),
        (["n1"], "1 nodes are the guest's own"),
    ):
        store.set_permissions(f"{home}/data/status", entries)
        assert survey.seen(1, store)["xenstore"] == shown
    with pytest.raises(OSError, match="does not know"):
        survey.seen(4, store)
    store.close()


def test_a_box_on_xen_is_inline(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="--wan"):
        Bridges(Network("wg0", lan="eth1"), "wg0", tmp_path, ())


def test_a_managed_box_on_xen_says_where_administrators_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Network("wg0", lan="eth1", wan="eth2")
    with pytest.raises(NetworkError, match=r"not dom0.*--admin"):
        Bridges(net, "wg0", tmp_path, {"management"})
    seen = {side: {"addresses": [], "gateways": [], "largest_group": 1} for side in ("red", "black", "admin")}
    monkeypatch.setattr(bridges, "Helper", lambda work: SimpleNamespace(result=lambda: seen))
    for wanted, sides in (((), {"red", "black"}), (("management",), {"red", "black", "admin"})):
        place = Bridges(replace(net, admin=("192.0.2.9", 50051)), "wg0", tmp_path, wanted)
        place.open()
        assert place.sides.keys() == sides  # no interface is taken for whom nobody of this box serves
        place.close()


def test_an_index_of_images(assembly: ValidatedAssembly, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="septum image build"):
        boots_of(assembly, tmp_path)
    entry = {"kernel": "k", "kernel_sha256": "0" * 64, "ramdisk": "r", "ramdisk_sha256": "1" * 64}
    entry |= {"kernel_args": "console=hvc0", "memory_mib": 48}  # type: ignore[dict-item]
    index = {f"{d.role.component}/{d.role.name}": entry for d in assembly.domains}
    (tmp_path / INDEX).write_text(json.dumps(index))
    found = boots_of(assembly, tmp_path)
    assert found["red"] == Boot(tmp_path / "k", "0" * 64, tmp_path / "r", "1" * 64, "console=hvc0", 48)
    for change in ({"ramdisk_sha256": "x"}, {"kernel_args": 'a"'}, {"memory_mib": "48"}):
        (tmp_path / INDEX).write_text(json.dumps({**index, "net/red": {**entry, **change}}))
        with pytest.raises(ImageError, match="net/red"):
            boots_of(assembly, tmp_path)
    (tmp_path / INDEX).write_text(json.dumps(index))
    for what, mode in ((tmp_path, 0o777), (tmp_path / INDEX, 0o666)):
        boots_of(assembly, tmp_path)
        what.chmod(mode)
        with pytest.raises(ImageError, match=f"{what} can be written by others"):
            boots_of(assembly, tmp_path)
        what.chmod(0o700)


def test_up_on_xen_needs_no_library_that_reads_command_lines() -> None:
    assert plain_up(["wg0.conf", "--backend", "xen"]) == {"file": Path("wg0.conf"), "backend": "xen"}
    assert plain_up(["wg0.conf", "--backend", "kvm"]) is None


def test_an_archive_is_read_by_the_kernels_rules() -> None:
    made = ramdisk.archive("a", b"12345")
    assert len(made) % 4 == 0 and made.count(b"070701") == 2 and b"TRAILER!!!\0" in made


# a box that is administered from elsewhere ---------------------------------------------------------------------------


@pytest.fixture
def managed(tmp_path: Path) -> ValidatedAssembly:
    file = tmp_path / "wg1.conf"
    file.write_text(CONF.partition("[Peer]")[0])
    file.chmod(0o600)
    built = from_wgquick(file, lan="eth1", wan="eth2", base=ASSEMBLIES / "vpn-managed.toml")
    return built.called_at(("192.0.2.9", 50051))


def test_admin_has_an_interface_of_its_own_and_pages_to_be_told_by(managed: ValidatedAssembly) -> None:
    side = Side("admin", "wg1.admin", bridges.mac("wg1", "admin"), {"interface": "eth0"})
    plans = with_sides(plans_of(managed, "wg1"), {**SIDES, "admin": side})
    assert {name for name, plan in plans.items() if plan.side} == {"red", "black", "admin"}
    assert made(plans["admin"])["vif"] == [f"mac={side.mac},bridge=wg1.admin,script=/bin/true"]
    assert {name for name, plan in plans.items() if plan.told_pages} == {"admin"}
    assert plans["admin"].granted >= plans["admin"].told_pages == 65
    nodes = {node.path: node.permissions for node in wiring.home(plans["admin"], 5, {})}
    assert nodes["data/told"] == ("n0", "b5") and "data/told" not in {
        node.path for node in wiring.home(plans["red"], 5, {})
    }
    served = [link for link in plans["admin"].links if link.is_server]
    leaves = 2 + 2 * len(served) + len(wiring.NETFRONT)
    assert seals.writable(plans["admin"]) == f"dom0's; writes {leaves} leaves"


def test_what_admin_is_known_by_is_told_nobody_else(managed: ValidatedAssembly) -> None:
    plans = plans_of(managed, "wg1")
    described_ = {name: module.describe(plan, "a certificate") for name, plan in plans.items()}
    assert [name for name, text in described_.items() if b"a certificate" in text] == ["admin"]
    assert json.loads(described_["admin"])["seal"]["descriptors"] == 512


@pytest.fixture
def telling() -> Iterator[Telling]:
    made_ = Telling(["a", "b"], lambda: {"name": "wg1"})
    yield made_
    made_.close()


def test_what_is_told_is_copied_to_the_guest_and_what_it_orders_from_it(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    given_back: list[Any] = []
    monkeypatch.setattr(pages.gntdev, "borrow", lambda device, domid, found: pages.gntdev.Borrowed(0, len(found)))
    monkeypatch.setattr(pages.gntdev, "give_back", lambda device, borrowed: given_back.append(borrowed))
    monkeypatch.setattr(pages.Window, "show", lambda self, fd, offset, is_writable=True: shown.append(is_writable))
    told = Told(9, telling.devices)
    telling.turn(0.0)
    told.turn()
    assert boxpage.read(told.pages.memory[: boxpage.BOX_BYTES]) is None  # nobody has lent anything yet
    told.map(5, list(range(65)))
    told.turn()
    box, orders = told.pages.memory[: boxpage.BOX_BYTES], told.pages.memory[boxpage.BOX_BYTES :]
    found = boxpage.read(box)
    assert found is not None and json.loads(found[1]) == {"name": "wg1"} and shown == [True]
    box[:64] = b"\x07" * 64  # whatever the guest makes of it: the next time it is told anew
    told.turn()
    telling.turn(2.0)
    told.turn()
    found = boxpage.read(box)
    assert found is not None and json.loads(found[1]) == {"name": "wg1"}
    boxpage.order(orders, 1)
    told.turn()
    assert telling.turn(3.0) == "b" and telling.turn(4.0) is None
    told.close()
    assert len(given_back) == 1 and not told.pages.is_mapped and not any(told.pages.memory)
    told.map(6, list(range(65)))  # its next life, whose pages know of no order yet
    told.turn()
    assert telling.turn(5.0) is None
    boxpage.order(orders, 0)
    told.turn()
    assert telling.turn(6.0) == "a"


def test_a_guest_that_writes_nonsense_for_what_it_is_told_by_is_ended(
    managed: ValidatedAssembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, telling: Telling
) -> None:
    monkeypatch.setattr(module.gntdev, "open_device", lambda: os.open(os.devnull, os.O_RDWR))
    monkeypatch.setattr(module.bridges, "join", lambda bridge, domid: None)
    identity = memory(b"{}")
    box = Machine(managed, tmp_path, held={**telling.devices, "identity": identity})
    box.up()
    box.store.nodes[f"/local/domain/{box.xl.domid('wg0-admin')}/data/told"] = "1,2"
    box.backend.turn()
    assert "admin" not in box.backend.living
    assert "what it is told" in box.backend.bury("admin")
    box.close()
    os.close(identity)


@pytest.mark.parametrize(
    ("address", "why"), [("127.0.0.1", "loopback"), ("192.0.2.77", "no interface of dom0 has the address 192.0.2.77")]
)
def test_administrators_call_an_address_that_only_they_use(address: str, why: str) -> None:
    from appliance.monitor.xen.bridging import holder

    with pytest.raises(LinkError, match=why):
        holder(address, {})
