"""Both twins of the loops: the compiled one is there wherever tests run, since `make test` sees to a compiler."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator
from importlib import import_module

import pytest

from components.net import twin


@pytest.fixture(scope="module", params=["fast", "loops"])
def loops(request: pytest.FixtureRequest) -> Iterator[str]:
    """The twin that runs in a module which uses this."""
    names = {"fast": ["fast"], "loops": ["loops", "runs"]}[request.param]
    chosen = ChainMap(*(vars(import_module(f"components.net.{name}")) for name in names))
    with pytest.MonkeyPatch.context() as patch:
        for name in set(twin.__all__) - {"COMPILED"}:
            patch.setattr(twin, name, chosen[name])
        patch.setattr(twin, "COMPILED", request.param == "fast")
        yield request.param
