"""A box, an administrator's home, and `septumctl` as it is typed, with exit code, output and errors."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from appliance.ctl import contexts, main
from tests.unit.ctl.fakebox import FakeBox

RULES = 'allow established related\nallow "web" from red tcp port https  # the web\n'


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    def error(self) -> Any:
        return json.loads(self.err.strip().splitlines()[-1])


class Ctl:
    """`septumctl` in the home of one administrator."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self._patch = monkeypatch

    def here(self) -> None:
        self._patch.setenv("SEPTUM_CONFIG", str(self.home))

    def __call__(self, *words: str, code: int = 0, stdin: str = "") -> Said:
        self.here()
        self._patch.setattr(sys, "argv", ["septumctl", *words])
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main.main()
        done = Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())
        assert done.code == code, f"{words}: {done}"
        return done

    def said(self, *words: str, code: int = 0) -> Any:
        """What it prints for machines."""
        return json.loads(self(*words, "--json", code=code).out)

    def refused(self, *words: str, code: int) -> Any:
        """The error that it prints for machines."""
        return self(*words, "--json", code=code).error()

    @property
    def context(self) -> contexts.Context:
        self.here()
        return contexts.load()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[FakeBox]:
    folder = tmp_path / "box"
    folder.mkdir()
    made = FakeBox(folder)
    yield made
    made.close()


@pytest.fixture
def ctl_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Ctl]:
    """The home of somebody, empty at first."""
    monkeypatch.delenv("SEPTUM_CONTEXT", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda name: Ctl(tmp_path / "homes" / name, monkeypatch)


@pytest.fixture
def ctl(box: FakeBox, ctl_of: Callable[[str], Ctl]) -> Ctl:
    """The console's."""
    made = ctl_of("console")
    box.console(made.home)
    return made


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "vpn.rules"
    file.write_text(RULES)
    return file


@pytest.fixture
def invited(ctl: Ctl, ctl_of: Callable[[str], Ctl]) -> Callable[..., Ctl]:
    """Somebody who was invited and enrolled."""

    def enrolled(name: str, role: str) -> Ctl:
        token = ctl.said("admins", "invite", name, "--role", role)["token"]
        other = ctl_of(name)
        other("enroll", token)
        return other

    return enrolled
