"""What every test may need, once."""

from __future__ import annotations

import pytest

from appliance.rules.read import from_text


@pytest.fixture(scope="session", autouse=True)
def parser() -> None:
    """Rules are read by children of who loads an assembly: they inherit the parser that is built here."""
    from_text("", "nothing.rules")
