"""Domains of one process share its descriptors, and the short way has room for as many as a domain has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.budgets.domain import Domain


@pytest.fixture(autouse=True)
def nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes all domains that a test made."""
    made: list[Domain] = []
    begin = Domain.__init__

    def begun(domain: Domain, *arguments: Any, **more: Any) -> None:
        begin(domain, *arguments, **more)
        made.append(domain)

    monkeypatch.setattr(Domain, "__init__", begun)
    yield
    for domain in made:
        domain.close()
