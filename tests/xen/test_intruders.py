"""Every domain of a box is an attacker's: what it gets from the others, with Xen's policy and without.

Each check has its control in the same table: the same attempt where it is allowed, by the two ends of a channel, by
dom0, or on a Xen without XSM. What fails there as well would prove nothing here. tests/xen/intruder/ has what is tried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import pytest

from appliance.assembly.load import ASSEMBLIES, VPN, load
from tests.xen.intruder.crew import QUOTAS
from tests.xen.intruder.matrix import GRANTS, MAPPINGS, SHOUTED, WATCHES
from tests.xen.machines import Machines, fit, policy_of
from tests.xen.rig import Rig, guest
from tests.xen.rig.places import step

pytestmark = pytest.mark.timeout(2400)

BOX: Final = "/septum/assemblies/box.toml"  # beside the rules that it names
HERE: Final = Path(__file__).parent / "intruder"
STOCK: Final = ("keymgr", "rng", "red", "log")
"""Without labels one domain is like another: a few are enough."""
MANAGED: Final = ("admin", "config", "keymgr", "store", "log", "red")
"""Whom a gateway has not that is not managed, their peers, and one that is none."""


@dataclass(frozen=True)
class Found:
    """What was found (matrix.py) between the domains ``names``, and what Xen printed meanwhile.

    ``maps`` has (client, server) of each channel among them.
    """

    table: dict[str, Any]
    names: list[str]
    maps: set[tuple[str, str]]
    console: str

    def pairs(self) -> Iterator[tuple[str, str]]:
        return permutations(self.names, 2)

    @property
    def joined(self) -> set[tuple[str, str]]:
        return self.maps | {(server, client) for client, server in self.maps}


def _search(rig: Rig, file: Path, xsm: str, names: Sequence[str]) -> Found:
    rig.put(BOX, f'{file.read_text()}\n[xen]\nxsm = "{xsm}"\ntype = "pv"\n'.encode())
    init = (HERE / "init.py").read_bytes()
    image = guest.build(init, {name: (HERE / name).read_bytes() for name in ("xs.py", "probe.py")})
    rig.put("/root/guest/kernel", image.kernel.read_bytes())
    rig.put("/root/guest/ramdisk", image.ramdisk.read_bytes())
    command = ["/usr/bin/python3.11", "-m", "tests.xen.intruder.matrix", BOX, "/root/guest", *names]
    with step(f"{len(names)} intruders, XSM {xsm}"):
        text = rig.run(["/bin/sh", "-c", 'cd /septum && exec "$@"', "sh", *command], 1800, check=True, show=True)[1]
    channels = ((channel.client.domain, channel.server.domain) for channel in load(file).channels)
    maps = {ends for ends in channels if {*ends} <= {*names}}
    return Found(json.loads(text.splitlines()[-1]), [*names], maps, rig.console())


@pytest.fixture(scope="module")
def walled(gateway: Rig) -> Found:
    """Xen with XSM and the policy of the gateway."""
    return _search(gateway, VPN, "enforcing", [domain.name for domain in load(VPN).domains])


@pytest.fixture(scope="module")
def managed(machines: Machines) -> Found:
    """Xen with XSM and the policy of the managed gateway."""
    file = ASSEMBLIES / "vpn-managed.toml"
    rig = machines.lend("managed", lambda: Rig(policy=policy_of(load(file)), memory=2048))
    return _search(rig, file, "enforcing", MANAGED)


def _stock(machines: Machines) -> Rig:
    """Debian's own Xen."""
    return machines.lend("stock", lambda: Rig(xsm=False))


@pytest.fixture(scope="module")
def bare(machines: Machines) -> Found:
    """Debian's own Xen, which has no XSM."""
    return _search(_stock(machines), VPN, "absent", STOCK)


@pytest.fixture
def found(request: pytest.FixtureRequest) -> Found:
    """Of the machine that a test is for."""
    of: Found = request.getfixturevalue(request.param)
    return of


WALLED: Final = ("walled", pytest.param("managed", marks=pytest.mark.long))
ANY: Final = (*WALLED, "bare")


def test_without_xsm_any_two_domains_make_a_channel_of_their_own(bare: Found) -> None:
    for one, other in bare.pairs():
        seen = bare.table["collusion"][f"{one} {other}"]
        assert seen["map"] == {"ok": f"of {one} for {other}"}
        assert "ok" in seen["bind"]


def test_septum_refuses_a_xen_without_xsm_unless_the_assembly_says_so(bare: Found, machines: Machines) -> None:
    rig = _stock(machines)
    assert fit(rig, "enforcing").startswith("this Xen enforces no policy")
    assert fit(rig, "absent") == "fit"


@pytest.mark.parametrize("found", WALLED, indirect=True)
def test_every_domain_ran_under_its_own_label(found: Found) -> None:
    shown = {line.split()[0]: line.split()[-1] for line in found.table["labels"].splitlines()}
    assert {name: shown.get(f"crew-{name}") for name in found.names} == {
        name: f"system_u:system_r:septum_{name}_t" for name in found.names
    }


@pytest.mark.parametrize("found", WALLED, indirect=True)
def test_only_the_client_of_a_channel_maps_what_is_granted_to_it(found: Found) -> None:
    for server, client in found.pairs():
        seen = found.table["collusion"][f"{server} {client}"]["map"]
        if (client, server) in found.maps:
            assert seen == {"ok": f"of {server} for {client}"}
        else:
            assert "error" in seen, f"{client} mapped a page of {server}"
            assert _denied(found, client, server, "grant"), f"it was not the policy that kept {client} from {server}"


@pytest.mark.parametrize("found", WALLED, indirect=True)
def test_only_the_ends_of_a_channel_share_events(found: Found) -> None:
    for one, other in found.pairs():
        seen = found.table["collusion"][f"{one} {other}"]["bind"]
        if (one, other) in found.joined:
            assert "ok" in seen, f"{other} has a channel with {one}: {seen}"
        else:
            assert seen == {"error": "EACCES"}, f"{other} bound an event channel of {one}"


@pytest.mark.parametrize("found", ANY, indirect=True)
def test_guessing_finds_what_was_meant_for_the_guesser_and_nothing_else(found: Found) -> None:
    for guesser, other in found.pairs():
        offered = found.table["collusion"][f"{other} {guesser}"]
        guessed = found.table["guesses"][f"{guesser} {other}"]["ok"]
        assert guessed["refs"] == ([offered["offer"]["ok"]["ref"]] if "ok" in offered["map"] else [])
        assert guessed["ports"] == ([offered["offer"]["ok"]["port"]["ok"]] if "ok" in offered["bind"] else [])
    assert any(found.table["guesses"][f"{client} {server}"]["ok"]["refs"] for client, server in found.maps)


@pytest.mark.parametrize("found", ANY, indirect=True)
def test_no_domain_sees_or_changes_anothers_home_in_the_xenstore(found: Found) -> None:
    for one, victim in found.pairs():
        seen = found.table["store"][f"{one} {victim}"]
        assert {what: came for what, came in seen.items() if came != {"error": "EACCES"}} == {}, (
            f"{one} in the home of {victim}"
        )
        assert set(seen) == set(found.table["store"][f"dom0 {victim}"])
    for name in found.names:
        for who in (f"dom0 {name}", f"{name} itself"):
            assert {what: came for what, came in found.table["store"][who].items() if "ok" not in came} == {}, who


@pytest.mark.parametrize("found", ANY, indirect=True)
def test_a_guest_heaps_up_next_to_nothing(found: Found) -> None:
    """Its home is dom0's, the xenstore counts its watches, Xen its event channels, grants and mappings, and of what it
    prints so much is kept and no more."""
    seen = found.table["flood"]
    assert seen["node in its own home"] == {"error": "EACCES"}
    assert 0 < seen["watches"] <= WATCHES
    assert 0 < seen["event channels"] < QUOTAS["max_event_channels"]
    assert GRANTS / 2 < seen["grants"] <= GRANTS
    assert MAPPINGS / 2 < seen["mappings"] <= MAPPINGS
    assert seen["shouted"] >= SHOUTED
    assert 0 < seen["longest look"] <= 4096 and 0 < seen["kept"] <= 4096
    assert seen["xenconsoled grew by"] < 2 << 20


@pytest.mark.parametrize("found", ANY, indirect=True)
def test_no_guest_that_makes_hypercalls_administers_anything(found: Found) -> None:
    powers = found.table["powers"]
    ours = powers["dom0"]
    for name in found.names:
        assert set(powers[name]) == {*ours}
        worked = {what: came for what, came in powers[name].items() if "ok" in came}
        assert worked == {"ask for Xen's version": {"ok": 4 << 16 | 17}}, name
        refused = {came["error"] for what, came in powers[name].items() if what not in (*worked, "stop enforcing")}
        assert refused <= {"EPERM", "EACCES"}, powers[name]
        assert f"(intruder) {name}" not in found.console
    control = {what for what, came in ours.items() if "ok" in came}
    # Who does stop the enforcing, by the same call: dom0 under another policy (test_rig.py)
    never = {"stop enforcing"} | ({"map another's memory"} if found.table["labels"] else set())
    assert control == {*ours} - never
    assert "(intruder) dom0" in found.console


@pytest.mark.parametrize("found", WALLED, indirect=True)
def test_it_is_the_policy_that_refuses_the_memory_of_others(found: Found) -> None:
    for one, victim in zip(found.names, [*found.names[1:], found.names[0]], strict=True):
        assert _denied(found, one, victim, "mmu"), (one, victim)


@pytest.mark.parametrize("found", WALLED, indirect=True)
def test_dom0_itself_has_no_access_to_the_memory_of_a_running_domain(found: Found, bare: Found) -> None:
    assert {*found.table["dump"]} == {*found.names}
    for came in found.table["dump"].values():
        assert came["code"] != 0
        assert came["size"] == 0
    (came,) = bare.table["dump"].values()
    assert came["code"] == 0, came
    assert came["size"] > 16 << 20
    assert "error" in found.table["powers"]["dom0"]["map another's memory"]


@pytest.mark.parametrize("found", ANY, indirect=True)
def test_every_domain_is_still_there(found: Found) -> None:
    assert {name for name, came in found.table["alive"].items() if "ok" in came} == {*found.names}


def _denied(found: Found, source: str, target: str, kind: str) -> bool:
    """Xen has printed that its policy refused ``source`` something on ``target``."""
    wanted = (f"septum_{source}_t ", f"septum_{target}_t ", f"tclass={kind}")
    return any("denied" in line and all(word in line + " " for word in wanted) for line in found.console.splitlines())
