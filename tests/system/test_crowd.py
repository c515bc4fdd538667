"""Two hundred who watch and fifty who commit, at one box, at once: nothing is lost, nobody starves, nothing grows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.lab import Lab, Managed, own_kib, pair

pytestmark = pytest.mark.root

WATCHERS = 200
WRITERS = 50
SECONDS = 20.0
WARM = 5  # times that they come before memory is looked at: by then it has stopped growing, by less each time
GROWTH = 3 << 20  # bytes: what an interpreter's memory goes up and down by


@pytest.fixture
def box() -> Iterator[Managed]:
    with Lab() as lab:
        ours, _ = pair(lab.left, lab.right)
        with Managed(lab.left, ours, inline=False) as box:
            yield box


def memory(box: Managed) -> dict[str, int]:
    domains = box.domains()
    return {name: own_kib(int(domains[name]["pid"])) << 10 for name in ("admin", "config")}


def crowd(box: Managed, seconds: float, homes: list[Path], viewer: Path) -> Any:
    told = {
        "seconds": seconds,
        "watchers": WATCHERS,
        "writers": WRITERS,
        "writers_homes": list(map(str, homes)),
        "viewer_home": str(viewer),
    }
    said = box.site.gateway.run(
        sys.executable, "-m", "tests.system.crowd", stdin=json.dumps(told), timeout=seconds + 300
    )
    return json.loads(said)


def test_a_crowd_of_administrators(box: Managed) -> None:
    names = [f"operator-{n}" for n in range(5)]
    for name, role in (("viewer", "viewer"), *((name, "operator") for name in names)):
        box.enroll(name, role)
    homes, viewer = [box.directory / name for name in names], box.directory / "viewer"
    rounds = [crowd(box, SECONDS / 4, homes, viewer) for _ in range(WARM)]
    begin = memory(box)
    before = {one["name"]: one["restarts"] for one in box.ctl("status")["domains"]}
    found = crowd(box, SECONDS, homes, viewer)
    end = memory(box)

    rounds.append(found)
    for one in rounds:
        assert not one["broken"] and not one["stuck"], one
    # Nobody starves: each watcher has seen the box again and again
    assert min(found["seen"]) >= SECONDS / 4, sorted(found["seen"])[:10]
    # No update is lost: each acknowledged commit is a revision of its own, and what is in force has everybody's last
    accepted = [revision for one in rounds for each in one["accepted"].values() for revision in each]
    head = box.ctl("config", "show")
    assert len(accepted) == len(set(accepted))
    assert set(accepted) == set(range(1, head["revision"] + 1))
    keepalives = {peer["number"]: peer["keepalive"] for peer in box.ctl("peers", "list")}
    last: dict[int, int] = {}
    for one in rounds:
        last |= {int(number): value for number, value in one["last"].items() if value}
    assert keepalives == last
    took = sorted(found["took"])
    rate = sum(map(len, found["accepted"].values())) / SECONDS
    print(
        f"{len(accepted)} commits of {WRITERS} writers, {rate:.1f} a second; {WATCHERS} watchers had "
        f"{min(found['seen'])} to {max(found['seen'])} statuses each in {SECONDS:g} s; status: "
        f"{took[len(took) // 2] * 1e3:.0f} ms in the median, p99 {took[int(len(took) * 0.99)] * 1e3:.0f} ms; "
        f"refused and tried again: {found['refused']}; memory {begin} -> {end}"
    )
    # Nothing grows, nothing died
    assert {one["name"]: one["restarts"] for one in box.ctl("status")["domains"]} == before
    assert all(end[name] - begin[name] < GROWTH for name in end), (begin, end)
