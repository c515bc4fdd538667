"""What `septum` prints: a table that does not fit is not cut into pieces of words."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.text import Text

from appliance.cli import screen

COLUMNS = ("domain", "seal", "user id", "")
ROWS = [("keymgr", Text("sealed", "green"), 1880000003, "13 calls"), ("rng", Text("broken", "red"), 1880000000, "")]


def shown(width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    console = Console(width=width, highlight=False)
    monkeypatch.setattr(screen, "out", console)
    with console.capture() as captured:
        screen.table("Seals", COLUMNS, ROWS)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_table_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(60, monkeypatch) == [
        "Seals",
        "domain  seal       user id",
        "keymgr  sealed  1880000003  13 calls",
        "rng     broken  1880000000",
    ]


def test_one_that_fits_once_its_cells_are_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "keymgr  sealed  1880000003  13" in shown(33, monkeypatch)


def test_one_that_does_not_has_its_rows_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(30, monkeypatch) == [
        "Seals",
        "keymgr",
        "  seal     sealed",
        "  user id  1880000003",
        "           13 calls",
        "rng",
        "  seal     broken",
        "  user id  1880000000",
    ]
