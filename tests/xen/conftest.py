"""One machine a session: booted for the first test that asks for it. The rest of `make test` does not look in here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `pytest` as well as `python -m pytest`

from tests.xen.rig import Rig

ROWS = pytest.StashKey[list[tuple[str, str]]]()


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


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    """Xen with XSM, under Xen's own example policy until a test loads another."""
    if os.geteuid():
        pytest.fail(
            "the machine's network needs namespaces and taps of the host: run make xen-test as root", pytrace=False
        )
    with Rig() as machine:
        yield machine
