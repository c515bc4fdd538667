"""One machine at a time: booted for the first test that asks for it, ended for the first that needs another.

The rest of `make test` does not look in here.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `pytest` as well as `python -m pytest`

from appliance.assembly.load import VPN, load
from appliance.image.build import build
from appliance.image.manifest import Image
from tests.xen.machines import Machines, policy_of
from tests.xen.rig import Rig, hypervisor
from tests.xen.rig.places import TOOK, XEN, step

ROWS = pytest.StashKey[list[tuple[str, str]]]()
SECONDS = pytest.StashKey[Counter[str]]()

# What needs least comes first: Debian's Xen, then ours, which is built meanwhile, then the images. Files that share a
# machine are neighbours
ORDER = (
    *("test_intruders", "test_policy", "test_rig", "test_channel", "test_guests", "test_images"),
    "test_managed",
    *("test_operator", "test_gateway"),
)

LONG = ("test_operator.py", "test_managed.py")
"""What --short leaves out: boxes beyond the gateway."""
LEFT = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--short",
        action="store_true",
        help="Xen: leave the longest tests to who changes what they are about, and name them at the end",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[LEFT] = []
    config.stash[SECONDS] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--short"):
        left = [item for item in items if item.path.name in LONG]
        config.stash[LEFT] = [item.nodeid.removeprefix("tests/xen/") for item in left]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    began = time.monotonic()
    try:
        return (yield)
    finally:
        item.config.stash[SECONDS][item.path.stem] += time.monotonic() - began


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """(what, figure) rows appended here are printed as a table when the run ends, passed or not."""
    return request.config.stash[ROWS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash[ROWS]:
        terminalreporter.section("measured")
        _table(terminalreporter, rows)
    if left := config.stash[LEFT]:
        terminalreporter.section(f"NOT run with --short: {len(left)} tests; make xen-test runs them too")
        for name in left:
            terminalreporter.write_line(name)
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


@pytest.fixture(scope="module")
def gateway(machines: Machines) -> Rig:
    """Xen under the gateway's own policy."""
    return machines.lend("gateway", lambda: Rig(policy=policy_of(load(VPN)), memory=3072))


@pytest.fixture(scope="session", autouse=True)
def building(request: pytest.FixtureRequest) -> Iterator[Future[dict[str, Image]] | None]:
    """Xen, and kernels and images if a test needs them, begun with the first test: there is a processor to spare.

    Whoever needs Xen asks for it, waits for this one, and is told what went wrong with it.
    """
    used = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    began = time.monotonic()

    def progress(name: str, doing: str, share: float) -> None:
        if name == "kernels" and share == 1:
            TOOK["two kernels, beside other work"] = time.monotonic() - began

    with ThreadPoolExecutor(2) as bench:
        bench.submit(hypervisor.with_xsm)
        yield bench.submit(build, load(VPN), XEN / "images", progress) if "images" in used else None


@pytest.fixture(scope="session")
def images(building: Future[dict[str, Image]]) -> dict[str, Image]:
    """Of each domain of the gateway."""
    with step("waiting for kernels and images (they take ten minutes on two cores, once)"):
        return building.result()
