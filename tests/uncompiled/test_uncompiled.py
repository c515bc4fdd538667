"""The data path and its hostile components where nothing is compiled; `make test-uncompiled` has all system tests."""

from __future__ import annotations

import re
import subprocess
from typing import Final

import pytest

from tests.uncompiled import tree

# What tells the twins apart: every way that packets go, through rebuilt domains too, and those who would misuse it
CHOSEN: Final = ("tests/system/test_peers.py", "tests/system/test_hostile_components.py")
NAMES: Final = "septum_calls or septum_is_called or twin or hostile_component and (encrypt or decrypt or red or black)"
FOUND: Final = """
from appliance.vchan.reach import IS_SHORT
from components.crypto import twin as crypto
from components.net import twin as net
print(IS_SHORT, crypto.COMPILED, net.COMPILED, crypto.__file__)
"""


@pytest.fixture(scope="module")
def uncompiled() -> None:
    tree.make()


@pytest.mark.usefixtures("uncompiled")
def test_nothing_is_compiled_there() -> None:
    said = subprocess.run([tree.PYTHON, "-c", FOUND], cwd="/", capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "False", "False", str(tree.INTO / "components/crypto/twin.py")]


@pytest.mark.root
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("uncompiled")
def test_the_box_does_its_work_and_holds_its_walls() -> None:
    command = [str(tree.PYTHON), "-m", "pytest", "-k", NAMES, *CHOSEN]
    done = subprocess.run(command, cwd=tree.INTO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert re.search(r"= \d\d+ passed", done.stdout) and "pure Python" in done.stdout
