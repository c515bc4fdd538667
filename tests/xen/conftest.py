"""One machine at a time: booted for the first test that asks for it, ended for the first that needs another.

The rest of `make test` does not look in here.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `pytest` as well as `python -m pytest`

from appliance.assembly.load import VPN, load
from appliance.image.build import underway
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

LEFT = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--short",
        action="store_true",
        help="Xen: leave what is marked long to who changes what it is about, and name it at the end",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[LEFT] = []
    config.stash[SECONDS] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--short"):
        left = [item for item in items if item.get_closest_marker("long")]
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


class Images(Mapping[str, Image]):
    """The image of each domain of the gateway: who asks for one waits for it, and for no other."""

    def __init__(self, coming: Mapping[str, Future[Image]]) -> None:
        self._coming = coming

    def __getitem__(self, name: str) -> Image:
        coming = self._coming[name]
        if coming.done():
            return coming.result()
        with step(f"waiting for the image of {name} and its kernel (two kernels take ten minutes on two cores, once)"):
            return coming.result()

    def __iter__(self) -> Iterator[str]:
        return iter(self._coming)

    def __len__(self) -> int:
        return len(self._coming)


@pytest.fixture(scope="session", autouse=True)
def building(request: pytest.FixtureRequest) -> Iterator[Images]:
    """Xen, and kernels and images if a test needs them, begun with the first test: there is a processor to spare.

    Whoever needs Xen asks for it, waits for this one, and is told what went wrong with it.
    """
    used = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    began = time.monotonic()

    def progress(name: str, doing: str, share: float) -> None:
        if name == "kernels" and share == 1:
            TOOK["two kernels, beside other work"] = time.monotonic() - began

    wanted = load(VPN).domains if "images" in used else ()
    with ThreadPoolExecutor(1) as bench:
        bench.submit(hypervisor.with_xsm)
        if not wanted:
            yield Images({})
            return
        with underway((domain.role for domain in wanted), XEN / "images", progress) as coming:
            yield Images({domain.name: coming[domain.role.name] for domain in wanted})


@pytest.fixture(scope="session")
def images(building: Images) -> Images:
    """Of each domain of the gateway."""
    return building
