"""The machine that the other tests stand on is what they take it for: Xen, enforcing, with all of dom0 in its place."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.xen.machines import fit
from tests.xen.rig import Rig, RigError, RigTimeout

pytestmark = pytest.mark.timeout(900)  # the first test of a session builds and boots the machine


def test_dom0_runs_on_xen_and_its_tools_speak_to_it(rig: Rig) -> None:
    info = rig.run("xl info", check=True)[1]
    assert "xen_version            : 4.17" in info
    rows = [line.split() for line in rig.run("xl list", check=True)[1].splitlines()]
    assert [row[0] for row in rows[1:]] == ["Domain-0"]


def test_xen_enforces_a_policy(rig: Rig) -> None:
    assert rig.run("xl getenforce")[1].strip() == "Enforcing"  # its exit code is the mode: 1


def test_an_intruders_call_that_stops_the_enforcing_does_stop_it_where_dom0_may(rig: Rig) -> None:
    """The control of what no intruder, and under a box's policy not even dom0, gets (test_intruders.py)."""
    try:
        rig.python(
            "import sys; sys.path[:0] = ['/septum/tests/xen/intruder']; import probe; probe.Probe().stop_enforcing()"
        )
        assert rig.run("xl getenforce")[1].strip() == "Permissive"
    finally:
        rig.run("xl setenforce 1", check=True)
    assert rig.run("xl getenforce")[1].strip() == "Enforcing"


def test_septum_refuses_a_xen_under_another_policy_than_the_boxs(rig: Rig) -> None:
    assert fit(rig, "enforcing").startswith("Xen enforces another policy than this assembly's")


def test_nothing_went_wrong_while_dom0_started(rig: Rig) -> None:
    assert [line for line in rig.console().splitlines() if "RIG:" in line] == []


def test_every_module_that_a_monitor_needs_is_loaded(rig: Rig) -> None:
    loaded = rig.run("lsmod", check=True)[1]
    for name in ("xen_netback", "xen_gntdev", "xen_gntalloc", "xen_evtchn", "bridge", "tun"):
        assert name in loaded, name
    assert rig.run("ls /dev/xen", check=True)[1].split() == [
        "evtchn",
        "gntalloc",
        "gntdev",
        "hypercall",
        "privcmd",
        "xenbus",
        "xenbus_backend",
    ]


def test_both_cards_are_there_by_name_and_have_no_address(rig: Rig) -> None:
    for side in ("lan", "wan"):
        shown = json.loads(rig.run(f"ip -j addr show {side}", check=True)[1])[0]
        assert shown["addr_info"] == []


@pytest.mark.parametrize("side", ["lan", "wan"])
def test_a_card_leads_to_its_namespace(rig: Rig, side: str) -> None:
    space = getattr(rig, side)
    try:
        rig.run(f"ip addr add 192.0.2.1/24 dev {side} && ip link set {side} up", check=True)
        space.run("ip", "addr", "add", "192.0.2.2/24", "dev", "tap0")
        assert "192.0.2.1" in space.run("ping", "-c", "1", "-W", "5", "192.0.2.1")
    finally:
        rig.run(f"ip addr flush dev {side}; ip link set {side} down")
        space.run("ip", "addr", "flush", "dev", "tap0")


@pytest.mark.long
def test_septum_runs_in_dom0_from_this_checkout(rig: Rig) -> None:
    assert "septum" in rig.run("septum --help", check=True)[1]
    assert rig.python("import appliance.monitor.main as m, pyroute2, cryptography; print(m.__file__)").startswith(
        "/septum/"
    )


@pytest.mark.long
def test_a_command_gives_its_exact_output_and_exit_code(rig: Rig) -> None:
    assert rig.run("printf 'a\\n\\nb'; printf c >&2; exit 7") == (7, "a\n\nbc")
    assert rig.run(["printf", "%s", "$HOME '"]) == (0, "$HOME '")
    assert rig.run("kill -9 $$")[0] == -9
    with pytest.raises(RigError, match="exit 3"):
        rig.run("exit 3", check=True)
    with pytest.raises(RigError, match="No such file"):
        rig.run(["/nonexistent"])


@pytest.mark.long
def test_much_output_arrives_whole(rig: Rig) -> None:
    code, text = rig.run("seq 1 200000")
    assert code == 0
    assert text == "".join(f"{number}\n" for number in range(1, 200001))


@pytest.mark.long
def test_a_command_that_does_not_end_is_ended_and_the_next_one_runs(rig: Rig) -> None:
    before = time.monotonic()
    with pytest.raises(RigTimeout) as caught:
        rig.run("echo begun; sleep 600", timeout=5)
    assert caught.value.output == "begun\n"
    assert time.monotonic() - before < 20
    assert rig.run("grep -x sleep /proc/[0-9]*/comm")[0] == 1
    assert rig.run("echo next") == (0, "next\n")


@pytest.mark.long
def test_a_daemon_left_behind_does_not_hold_its_command_up(rig: Rig) -> None:
    code, text = rig.run("sleep 300 & echo $!", timeout=30)
    assert code == 0
    rig.run(f"kill {int(text)}", check=True)


@pytest.mark.long
def test_files_go_in_and_come_out_as_they_are(rig: Rig) -> None:
    data = os.urandom(8 << 20)
    begun = time.monotonic()
    rig.put("/tmp/of/the/rig", data, 0o750)
    put = time.monotonic()
    assert rig.get("/tmp/of/the/rig") == data
    got = time.monotonic()
    print(f"8 MiB in {put - begun:.2f} s, out {got - put:.2f} s")
    assert rig.run("stat -c %a /tmp/of/the/rig; rm -r /tmp/of")[1] == "750\n"
    with pytest.raises(RigError, match="No such file"):
        rig.get("/tmp/of/the/rig")
