"""Both twins of the loops: the compiled one is there wherever tests run, since `make test` sees to a compiler."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest

from components.net import twin


@pytest.fixture(scope="module", params=["fast", "loops"])
def loops(request: pytest.FixtureRequest) -> Iterator[str]:
    """The twin that runs in a module which uses this."""
    chosen = import_module(f"components.net.{request.param}")
    with pytest.MonkeyPatch.context() as patch:
        for name in set(twin.__all__) - {"COMPILED"}:
            patch.setattr(twin, name, getattr(chosen, name))
        patch.setattr(twin, "COMPILED", request.param == "fast")
        yield request.param
