"""What dom0 is to a running box: the operator's end of the filter, and who keeps the store's disk.

Two guests of the gateway, its own images and its own policy, the monitor's own back end (interop/operated.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from appliance.image.manifest import Image
from tests.xen.gateway import put_images
from tests.xen.rig import Rig
from tests.xen.rig.places import XEN

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]  # the first build of a kernel, and of the machine


@pytest.fixture(scope="module")
def seen(gateway: Rig, images: Mapping[str, Image], report: list[tuple[str, str]]) -> dict[str, Any]:
    put_images(gateway, XEN / "images", (images["filter"], images["store"]))
    command = "PYTHONPATH=/septum:/septum/proto /usr/bin/python3.11 -B /septum/tests/xen/interop/operated.py /root/some"
    _, said = gateway.run(command, 1800, check=True, env={"SEPTUM_PATIENCE": "10"})
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    report += [(f"xen: {what}", f"{found[what]} s") for what in found if what.endswith("after s")]
    return found


def answered(outcome: list[Any]) -> Any:
    code, said = outcome
    assert code == 0, said
    return json.loads(said[said.index("\n[" if "\n[" in said else "[" if said[:1] == "[" else "{") :])


def test_the_filter_is_asked_and_its_rules_replaced(seen: dict[str, Any]) -> None:
    assert len(answered(seen["rules"])) == 2  # assemblies/vpn.rules
    assert answered(seen["apply"])["applied"]
    assert any("settings.filter.ruleset is replaced" in line for line in seen["log"])
    assert answered(seen["flows"]) == []
    assert answered(seen["counters"])
    (told,) = answered(seen["explain"])
    assert "only this" in json.dumps(told)


def test_a_tool_that_breaks_the_protocol_is_accused_and_the_next_one_served(seen: dict[str, Any]) -> None:
    assert seen["accuses"]
    (rule,) = answered(seen["after that"])
    assert rule["name"] == "only this"


def test_what_was_replaced_outlives_the_filter(seen: dict[str, Any]) -> None:
    code, said = seen["while it is away"]
    assert code != 0 and "filter of some is not there" in " ".join(said.split())
    (rule,) = answered(seen["rules of its next life"])
    assert rule["name"] == "only this"


def test_blobs_outlive_the_guest_and_who_keeps_the_disk(seen: dict[str, Any]) -> None:
    assert seen["on dom0's disk"] and seen["outlives the guest"]
    assert seen["goes on with another one"] and seen["store lives"]


def test_who_keeps_the_disk_has_the_file_and_the_channel_and_nothing_else(seen: dict[str, Any]) -> None:
    seal = seen["seal of who keeps it"]
    assert int(seal["CapEff"], 16) == int(seal["CapBnd"], 16) == 0
    assert (seal["NoNewPrivs"], seal["Seccomp"]) == ("1", "2")
    assert "0" not in seal["Uid"].split()
    assert sorted({name.split(":")[0] for name in seal["files"].split()}) == [
        "/dev/xen/evtchn",
        "/root/some/store",
        "anon_inode",
        "pipe",
    ]
