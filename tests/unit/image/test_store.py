"""The store: built once for the same inputs, however many ask, and nothing is left of what failed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from appliance.image import store


def test_where_one_input_ends_counts() -> None:
    assert store.key("ab", "c") != store.key("a", "bc") != store.key("abc")
    assert store.key("a", "b") == store.key("a", "b")


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(new: Path) -> None:
        made.append(new)
        (new / "it").write_text("1")

    for _ in range(2):
        assert (store.get(tmp_path / "out", "name", make) / "it").read_text() == "1"
    assert len(made) == 1


def test_four_who_ask_at_once_get_one_build(tmp_path: Path) -> None:
    made: list[Path] = []
    together = Barrier(4)

    def ask(_: int) -> Path:
        together.wait()
        return store.get(tmp_path, "name", made.append)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1
    assert len(made) == 1


def test_what_failed_leaves_no_entry_and_is_tried_again(tmp_path: Path) -> None:
    def fail(new: Path) -> None:
        (new / "half").write_text("")
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        store.get(tmp_path, "name", fail)
    assert not (tmp_path / "name").exists()
    entry = store.get(tmp_path, "name", lambda new: None)
    assert list(entry.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_folder_that_others_write_to_is_no_store(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match="can be written by others"):
        store.get(tmp_path, "name", lambda new: None)
