"""One machine at a time: booted for the first test that asks for it, ended for the first that needs another.

The rest of `make test` does not look in here.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `pytest` as well as `python -m pytest`

from appliance.assembly.load import VPN, load
from appliance.image import kernel
from appliance.image.build import build
from appliance.image.manifest import Image
from tests.xen.machines import Machines
from tests.xen.rig import Rig
from tests.xen.rig.places import TOOK, XEN, step

ROWS = pytest.StashKey[list[tuple[str, str]]]()
SECONDS = pytest.StashKey[Counter[str]]()

# Files that share a machine are neighbours, and what fails quickly comes first
ORDER = ("test_policy", "test_rig", "test_channel", "test_images", "test_gateway", "test_intruders")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[SECONDS] = Counter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    began = time.monotonic()
    try:
        return (yield)
    finally:
        item.config.stash[SECONDS][item.path.stem] += time.monotonic() - began


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """(what, figure) rows appended here are printed as a table when the run ends, passed or not."""
    return request.config.stash[ROWS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash[ROWS]:
        terminalreporter.section("measured")
        _table(terminalreporter, rows)
    terminalreporter.section("where the time went")
    files = [(f"{name}.py, all in all", f"{seconds:6.0f} s") for name, seconds in config.stash[SECONDS].items()]
    _table(terminalreporter, files + [(f"of that: {what}", f"{seconds:6.0f} s") for what, seconds in TOOK.items()])


def _table(reporter: pytest.TerminalReporter, rows: list[tuple[str, str]]) -> None:
    width = max((len(what) for what, _ in rows), default=0)
    for what, figure in rows:
        reporter.write_line(f"{what:{width}}  {figure}")


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    if os.geteuid():
        pytest.fail(
            "the machine's network needs namespaces and taps of the host: run make xen-test as root", pytrace=False
        )
    machines = Machines()
    yield machines
    machines.end()


@pytest.fixture(scope="module")
def rig(machines: Machines) -> Rig:
    """Xen with XSM, under Xen's own example policy until a test loads another."""
    return machines.lend("example", Rig)


@pytest.fixture(scope="session")
def images() -> dict[str, Image]:
    """Of each domain of the gateway, built now if they are not there."""
    with step("the two kernels (five to ten minutes on two cores, once)"):
        kernel.get("plain", XEN / "images", lambda doing, share: None)
    with step("nine images"):
        return build(load(VPN), XEN / "images")
