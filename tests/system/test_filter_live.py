"""The rules of a running box, replaced while it works: by the command, under traffic, through deaths and bad tools."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from septum.v1.filtering import Replaced

from appliance.cli.asking import Call
from appliance.cli.running import Rejected, RunningFilter
from appliance.rules.read import from_text
from components.filter.model import Hours
from tests.system.lab import Lab, LabError, Septum, Transfer, WireguardGo, pair, reaches, wait_for

pytestmark = pytest.mark.root

OPEN = "allow established related\nallow from red\n"
NO_TCP = "allow established related\nallow from red udp\nallow from red icmp\n"
LONGEST = 3.0  # seconds of silence that a user would not forgive


@dataclass
class Scene:
    lab: Lab
    septum: Septum

    def filter(self, *words: str, timeout: float = 30) -> Any:
        """What `septum filter` says to a machine."""
        return json.loads(self.septum.septum("filter", *words, "--box", self.septum.name, "--json", timeout=timeout))

    def refused(self, *words: str) -> str:
        """What it says on its way out."""
        with pytest.raises(LabError) as error:
            self.septum.septum("filter", *words, "--box", self.septum.name)
        return str(error.value)

    @contextmanager
    def operator(self) -> Iterator[RunningFilter]:
        """The same from this process, where a second of starting a program is too much."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEPTUM_RUN_DIR", self.septum.environment["SEPTUM_RUN_DIR"])
            with Call(self.septum.name, "filter") as call:
                yield RunningFilter(call)

    def apply(self, text: str) -> Replaced:
        with self.operator() as running:
            return running.apply(from_text(text, "test.rules").ruleset)

    def in_force(self) -> bytes:
        with self.operator() as running:
            return bytes(running.totals().digest)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab() as lab:
        own, stock = pair(lab.left, lab.right)
        with WireguardGo(lab.right, stock), Septum(lab.left, own, rules=OPEN) as septum:
            assert reaches(lab.left.host, lab.right.host4, 15)
            yield Scene(lab, septum)


@pytest.fixture(autouse=True)
def open_rules(scene: Scene) -> None:
    """Each begins with the same."""
    scene.apply(OPEN)


def test_a_transfer_that_is_allowed_does_not_notice(scene: Scene, report: list[tuple[str, str]]) -> None:
    lab = scene.lab
    with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=4e6) as transfer:
        time.sleep(0.5)
        began = time.monotonic()
        for number in range(50):
            done = scene.apply(f'{OPEN}allow "round {number}" from tunnel tcp to port {1000 + number}\n')
            assert done.kept >= 1
        ended = time.monotonic()
        time.sleep(0.2)
        silence = transfer.longest_silence(since=began, until=ended)
    assert transfer.intact
    assert silence < 0.5
    each = (ended - began) / 50
    report.append(("rules replaced 50 times under TCP", f"{each * 1000:.0f} ms each, silence {silence * 1000:.0f} ms"))


def test_what_the_new_rules_forbid_ends_at_once_and_nothing_else(scene: Scene, report: list[tuple[str, str]]) -> None:
    lab = scene.lab
    with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=2e6) as forbidden:
        with Transfer(lab.left.host, lab.right.host, lab.right.host4, rate=2e6) as allowed:
            port = allowed._receiver.getsockname()[1]
            time.sleep(0.5)
            done = scene.apply(f"allow established related\nallow from red tcp to port {port}\nallow from red icmp\n")
            at = time.monotonic()
            assert done.ended >= 1
            time.sleep(1)
            late = [arrival for arrival in forbidden.arrivals if arrival > at + 0.05]
            assert late == []
            assert allowed.longest_silence(since=at - 0.5) < LONGEST
            with scene.operator() as running:
                (flow,) = (row for row in running.flows() if row.protocol == 6)
            assert flow.destination_port == port
        scene.apply(OPEN)  # TCP is patient: the one that was ended is picked up again, from the red side
    assert forbidden.intact
    last = max((arrival for arrival in forbidden.arrivals if arrival <= at + 0.05), default=at) - at
    report.append(("a forbidden flow, last byte after the answer", f"{last * 1000:.0f} ms"))


def test_rules_that_are_refused_change_nothing(scene: Scene) -> None:
    before = scene.in_force()
    file = scene.septum.directory / "bad.rules"
    file.write_text("allow from red\nallow form tunnel\n")
    said = scene.refused("apply", str(file))
    assert "bad.rules:2:7" in said
    assert "nothing was changed" in said
    with scene.operator() as running, pytest.raises(Rejected, match="hours"):
        ruleset = from_text(OPEN, "test.rules").ruleset
        rule = ruleset.rules[0]._replace(hours=(Hours(127, 60, 30),))
        running.apply(ruleset._replace(rules=(rule,)))
    assert scene.in_force() == before
    assert reaches(scene.lab.left.host, scene.lab.right.host4)


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    file = scene.septum.directory / "dry.rules"
    file.write_text(NO_TCP)
    before = scene.in_force()
    said = scene.filter("apply", str(file), "--dry-run")
    assert not said["applied"]
    assert said["changes"]
    assert scene.in_force() == before


def test_the_running_box_explains_itself_and_is_looked_over(scene: Scene) -> None:
    scene.apply(f"{OPEN}drop from tunnel tcp to port 23\nallow from tunnel tcp\ndrop from tunnel tcp to port 25\n")
    web, inward = scene.filter(
        "explain", "udp 10.1.0.5:4000 > 10.2.0.7:53", "from tunnel tcp 10.2.0.7:4000 > 10.1.0.5:80"
    )
    assert (web["verdict"], web["at"], web["leaves"]) == ("allow", "test.rules:2", "tunnel")
    assert (inward["verdict"], inward["at"], inward["leaves"]) == ("allow", "test.rules:4", "red")
    # Its findings make it end with 1
    said = scene.refused("lint")
    assert "test.rules:5: shadowed: line 4 matches all that it would, and does allow" in said
    assert "test.rules:3: never-hit: has matched no packet since the counters began" in said
    assert reaches(scene.lab.left.host, scene.lab.right.host4)


def test_the_rules_survive_the_filter(scene: Scene, report: list[tuple[str, str]]) -> None:
    lab, septum = scene.lab, scene.septum
    scene.apply(NO_TCP + 'allow "after death" from tunnel tcp to port 7\n')
    applied = scene.in_force()
    for _ in range(2):
        pid = septum.kill("filter")
        wait_for("filter to be rebuilt", lambda p=pid: _is_back(septum, p), seconds=20)
        with scene.operator() as running:
            totals = running.totals()
        assert (totals.digest, totals.replaced) == (applied, 0)
    assert reaches(lab.left.host, lab.right.host4)
    with pytest.raises(OSError):
        _knock(scene)
    seal = septum.seals()["filter"]
    assert seal["sealed"]


def _is_back(septum: Septum, dead: int) -> bool:
    row = septum.domains()["filter"]
    return row["state"] == "running" and row["pid"] != dead


def _knock(scene: Scene) -> None:
    """A TCP connection through the tunnel, or OSError."""
    lab = scene.lab
    with lab.right.host.socket() as listener, lab.left.host.socket() as near:
        listener.bind((lab.right.host4, 0))
        listener.listen(1)
        near.settimeout(1)
        near.connect(listener.getsockname())
