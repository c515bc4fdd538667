"""Where nothing is compiled, and where the loop knows no short way, all goes the long way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from appliance.guest import shortly
from tests.unit.short import roles
from tests.unit.short.test_hostile import empty

ROOT: Final = Path(__file__).parents[3]
BLOCKED: Final = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("appliance.", "components.")) and name.endswith((".short", ".fast")):
            raise ImportError(name)

sys.meta_path.insert(0, Nowhere())

from appliance.vchan.reach import Indices
from appliance.vchan.ring import Vchan
from tests.unit.short.test_without import passes

assert Indices.__module__ == "appliance.vchan.reach"
passes(sys.argv[1])
"""


def passes(name: str) -> None:
    """Lone messages go through that role, and none of them shortly."""
    role = roles.ROLES[name]()
    for _ in range(5):
        (out,) = role.pair.run(role.inward, [next(role.messages)], [role.outward])
        for domain in role.pair.both:
            domain.settle()
        assert len(out) == 1 or sum(len(empty(device)) for device in role.devices) == 2
    assert role.pair.shortly(role.inward) == role.pair.shortly(role.outward) == 0
    assert role.pair.short._guest._shorter is None
    role.pair.check_statistics()


@pytest.mark.parametrize("name", roles.ROLES)
def test_nothing_is_compiled(name: str) -> None:
    command = [sys.executable, "-c", BLOCKED, name]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", roles.ROLES)
def test_there_are_no_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortly, "module", lambda name: None)
    monkeypatch.setattr(shortly, "_guest", None)
    monkeypatch.setattr(shortly, "_vchan", None)
    passes(name)
