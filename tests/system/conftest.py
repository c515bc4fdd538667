"""What the system tests share: the laboratory, and a table of measured gaps at the end of the run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `pytest` as well as `python -m pytest`

from tests.system.lab import Lab

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
ROWS = pytest.StashKey[list[tuple[str, str]]]()


def _may_build_networks() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    return all(effective >> bit & 1 for bit in (CAP_NET_ADMIN, CAP_SYS_ADMIN))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and not _may_build_networks():
        pytest.fail(
            "this test builds network namespaces and needs root, of the machine or of namespaces of its own: "
            "run it by `make test`, which sees to that (ARGS='-k ...' chooses)",
            pytrace=False,
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A transfer that must outlive its keys begins first and is looked at last: the two minutes pass meanwhile."""
    order = {"test_a_long_transfer_begins": 0, "test_the_long_transfer_outlived_its_keys": 2}
    items.sort(key=lambda item: order.get(item.name.split("[")[0], 1))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """(what, figure) rows appended here are printed as a table when the run ends, passed or not."""
    return request.config.stash[ROWS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash[ROWS]:
        terminalreporter.section("measured")
        width = max(len(what) for what, _ in rows)
        for what, figure in rows:
            terminalreporter.write_line(f"{what:{width}}  {figure}")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A world of two sites."""
    with Lab() as world:
        yield world


@pytest.fixture
def plain_lab() -> Iterator[Lab]:
    """The same, its WAN without offloads: a capture shows every datagram."""
    with Lab(plain_nic=True) as world:
        yield world
