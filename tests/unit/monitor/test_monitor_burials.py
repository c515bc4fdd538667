"""Guests are destroyed by xl, and an xl that hangs keeps nobody waiting: real programs, a xenstore of dictionaries."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from appliance.monitor.xen import burials as module
from appliance.monitor.xen import xl
from appliance.monitor.xen.burials import Burials, Remains, domid_of
from appliance.monitor.xen.xl import Xl, XlError
from tests.unit.monitor.fake_xen import FakeStore
from tests.unit.operated import until

# Notes who it is and hangs where it is told to; else it does what it is asked, as far as a file says so
XL = """#!/bin/sh
echo "$$ $*" >> {where}/asked
while [ -e {where}/hangs ]; do sleep 0.05; done
[ -e {where}/fails ] && {{ echo "libxl: error: it says no" >&2; exit 1; }}
touch {where}/gone-$2
"""


class Scene:
    """One guest, number 5, under the UUID u."""

    def __init__(self, where: Path) -> None:
        self.where = where
        program = where / "xl"
        program.write_text(XL.format(where=where))
        program.chmod(0o755)
        self.store = FakeStore()
        self.store.alive.add(5)
        self.store.write("/local/domain/5/vm", "/vm/u")
        self.store.write("/local/domain/5/name", "box-red")
        self.lines: list[str] = []
        self.xl = Xl(str(program))
        self.burials = Burials(
            self.xl.destroy, self.store, lambda fd: None, lambda priority, text: self.lines.append(text)
        )

    def asked(self) -> list[tuple[int, str]]:
        file = self.where / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(line.split()[0]), line.partition(" ")[2]) for line in lines]

    def turn(self, now: float = 0.0) -> bool:
        """Whether red is gone, as far as a look can tell that waits for nothing."""
        if (self.where / "gone-5").exists():
            self.store.alive.discard(5)
            self.store.remove("/local/domain/5")
        began = time.monotonic()
        self.burials.turn(now)
        assert time.monotonic() - began < 2.0, "it waited for xl"
        return "red" not in self.burials


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(xl, "_OTHER", 0.5)
    return Scene(tmp_path)


def lives(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_a_guest_is_destroyed_and_nobody_waits(scene: Scene) -> None:
    scene.burials.add("red", Remains("box-red", "u", 5), 0.0)
    until(scene.turn)
    assert [words for _, words in scene.asked()] == ["destroy 5"]
    assert scene.lines == []


def test_an_xl_that_hangs_is_ended_and_reported_and_another_one_follows(scene: Scene) -> None:
    (scene.where / "hangs").touch()
    scene.burials.add("red", Remains("box-red", "u", 5), 0.0)
    until(scene.asked)
    until(lambda: scene.turn() or scene.lines)
    ((first, _),) = scene.asked()
    assert not lives(first)
    assert "box-red cannot be destroyed yet" in scene.lines[0] and "hangs" in scene.lines[0]
    assert not scene.turn(0.5) and len(scene.asked()) == 1  # a rest first
    (scene.where / "hangs").unlink()
    until(lambda: scene.turn(1.5))
    assert [words for _, words in scene.asked()] == ["destroy 5"] * 2


def test_one_that_fails_is_tried_again_while_the_guest_is_there(scene: Scene) -> None:
    (scene.where / "fails").touch()
    scene.burials.add("red", Remains("box-red", "u", 5), 0.0)
    until(lambda: scene.turn() or scene.lines)
    assert "it says no" in scene.lines[0] and "red" in scene.burials
    scene.store.alive.discard(5)  # somebody else has destroyed it, and left its home
    until(lambda: scene.turn(1.5))
    assert "/local/domain/5" not in scene.store.nodes


def test_a_stranger_of_its_number_or_name_is_left_alone(scene: Scene) -> None:
    scene.burials.add("red", Remains("box-red", "another", None), 0.0)
    assert scene.turn() and scene.asked() == []
    assert scene.store.nodes["/local/domain/5/name"] == "box-red"
    assert (domid_of(scene.store, "u"), domid_of(scene.store, "another")) == (5, None)


def test_what_an_xl_has_made_that_was_ended_half_way_is_destroyed(scene: Scene) -> None:
    (scene.where / "hangs").touch()
    scene.store.alive.discard(5)  # it is in the xenstore, and not introduced yet
    scene.burials.add("red", Remains("box-red", "u", None, scene.xl.start("create", seconds=100)), 0.0)
    assert scene.burials.is_creating
    until(lambda: scene.turn() or scene.lines)  # it had a hundred seconds while somebody waited for it
    assert not scene.burials.is_creating
    (scene.where / "hangs").unlink()
    until(lambda: scene.turn(1.5))
    assert [words for _, words in scene.asked()] == ["create", "destroy 5"]


@pytest.mark.parametrize("hangs", [True, False])
def test_at_the_end_it_is_tried_a_few_times_and_said(
    scene: Scene, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_REST", 0.0)
    monkeypatch.setattr(xl, "_OTHER", 0.3)
    if hangs:
        (scene.where / "hangs").touch()
    scene.burials.add("red", Remains("box-red", "u", 5), 0.0)
    began = time.monotonic()
    assert scene.burials.close() is not hangs
    if hangs:
        assert len(scene.asked()) >= 3 and time.monotonic() - began < 20
        assert "box-red is left behind" in scene.lines[-1]
        until(lambda: not any(lives(pid) for pid, _ in scene.asked()))


def test_a_question_that_hangs_is_an_error(scene: Scene) -> None:
    (scene.where / "hangs").touch()
    with pytest.raises(XlError, match=r"`xl list` was not done after 0.5 s"):
        scene.xl.run("list")
