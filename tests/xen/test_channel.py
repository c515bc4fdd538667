"""Channels inside Xen: the suites of tests/channel over grants, a peer that is libxenvchan."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.xen import suite
from tests.xen.rig import Rig
from tests.xen.rig.places import ROOT, step

INTEROP = ROOT / "tests/xen/interop"
LIBRARIES = ("xenvchan", "xengnttab", "xenevtchn", "xenstore", "xentoollog", "xentoolcore", "pthread")
OURS = "PYTHONPATH=/septum:/septum/proto /usr/bin/python3.11 -B /septum/tests/xen/interop/peer.py"
THEIRS = "/peer"
ENDS = {"ours": OURS, "libxenvchan": THEIRS}


pytestmark = pytest.mark.timeout(1800)


SUITES = {
    "conformance": "tests/channel/test_conformance.py",
    "hostile peers": "tests/channel/test_hostile.py",
    "what is the grants' own": "tests/channel/xen_grants.py",
}


@pytest.fixture(scope="module")
def passed(rig: Rig) -> dict[str, int]:
    """How many of each suite, run by pytest in dom0."""
    suite.put(rig)
    with step("the channel's suites in dom0"):
        return suite.run(rig, list(SUITES.values()))


@pytest.mark.parametrize("name", SUITES)
def test_the_suites_of_the_channel_over_grants(
    passed: dict[str, int], name: str, report: list[tuple[str, str]]
) -> None:
    """The same test code as over memfd, but for what is the grants' own."""
    assert passed[SUITES[name]] > 0
    report.append((f"xen: over grants, {name}", f"{passed[SUITES[name]]} tests"))


# libxenvchan --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """The machine, with /peer in dom0."""
    program: Path = tmp_path_factory.mktemp("peer") / "peer"
    libraries = [f"-l{name}" for name in LIBRARIES]
    subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", program, INTEROP / "peer.c", *libraries], check=True)
    rig.put("/peer", program.read_bytes(), 0o755)
    return rig


ANSWERS = {"ping": "echo", "echo": "ping", "source": "sink", "sink": "source"}


def talk(rig: Rig, server: str, client: str, does: Sequence[str], count: int, size: int, ring: int) -> list[float]:
    """``does`` is what the client does, one meeting after the other; returns the number that one of them prints at
    each."""
    path = "/vchan-test"
    ends = {}
    for side, end, words in (("server", server, [ANSWERS[what] for what in does]), ("client", client, does)):
        ends[side] = f"{end} {side} 0 {path} {ring} {ring} {count} {size} {' '.join(words)}"
    script = (
        f"rm -f /s /c; xenstore-rm {path} 2>/dev/null; ({ends['server']} > /s 2>&1) & server=$!; "
        f"({ends['client']} > /c 2>&1); client=$?; wait $server; code=$?; cat /s /c; exit $((client + code))"
    )
    _, output = rig.run(script, 240, check=True)
    return [float(number) for number in output.split()]


@pytest.mark.parametrize("size", [16, 30000])
@pytest.mark.parametrize(("server", "client"), [("ours", "libxenvchan"), ("libxenvchan", "ours")])
@pytest.mark.parametrize("ring", [1024, 65536])
def test_both_roles_against_libxenvchan(peer: Rig, server: str, client: str, size: int, ring: int) -> None:
    """What is sent comes back, and what is poured in arrives in order, whichever end is C's."""
    size = min(size, ring // 2)
    numbers = talk(peer, ENDS[server], ENDS[client], [*ANSWERS], 200, size, ring)
    assert len(numbers) == len(ANSWERS) and all(number > 0 for number in numbers)


def test_round_trip_and_throughput_beside_libxenvchan(peer: Rig, report: list[tuple[str, str]]) -> None:
    """Both in one run on one emulated processor: only the ratio means anything."""
    rows = {}
    for name, (server, client) in {"libxenvchan": (THEIRS, THEIRS), "ours": (OURS, OURS)}.items():
        trips = talk(peer, server, client, ["ping"] * 3, 200, 16, 65536)
        flows = talk(peer, server, client, ["source"] * 3, 400, 32768, 524288)
        rows[name] = (statistics.median(trips), statistics.median(flows))
    (their_trip, their_flow), (our_trip, our_flow) = rows["libxenvchan"], rows["ours"]
    trip = f"{our_trip:.0f} us, {our_trip / their_trip:.2f} times libxenvchan's"
    flow = f"{our_flow:.1f} MiB/s, {our_flow / their_flow:.2f} times libxenvchan's"
    report += [("xen: round trip of 16 bytes", trip), ("xen: one way, pieces of 32 KiB", flow)]
    assert our_trip < 20 * their_trip
    assert our_flow > their_flow / 20
