"""`septum filter` as it is typed, with the filter in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli import filtering
from appliance.cli.running import RunningFilter
from components.filter.model import Side
from tests.unit.filter.test_operator import NAME, WEB, Scene, udp

STATUS: dict[str, Any] = {
    "name": "box",
    "domains": [{"component": "log", "role": "log"}, {"component": "filter", "role": "filter"}],
    "peers": [{"public_key": "a" * 43 + "=", "name": "alice"}, {"public_key": "b" * 43 + "="}],
}
OPEN = 'allow established related\nallow "out" from red\nallow "in" from peer alice udp to port 53\n'


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene(OPEN)
    made.send(WEB, WEB, NAME)
    made.send(udp("10.9.0.1", 4000, "192.168.1.1", 53), side=Side.TUNNEL, peer=1)

    @contextmanager
    def the_filter(box: str) -> Iterator[RunningFilter]:
        assert box in ("", "box")
        yield made.running

    monkeypatch.setattr(filtering, "the_filter", the_filter)
    monkeypatch.setattr(filtering, "_status", lambda box: STATUS)
    return made


def septum(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(filtering.app, list(words))
    assert done.exit_code == code, done.output
    return str(done.output)


def said(*words: str) -> Any:
    return json.loads(septum(*words, "--json"))


def test_rules(scene: Scene) -> None:
    found = said("rules")
    assert [row["packets"] for row in found] == [0, 3, 1]
    assert [row["name"] for row in found] == ["", "out", "in"]
    assert found[2]["rule"] == 'allow "in" from peer alice udp to port 53'
    assert (found[1]["file"], found[1]["line"], found[0]["last"]) == ("test.rules", 2, None)
    assert [row["number"] for row in said("rules", "--unused")] == [1]


def test_flows(scene: Scene) -> None:
    found = said("flows")
    assert [row["destination_port"] for row in found] == [443, 53, 53]
    assert {(row["opened_from"], row["peer"]) for row in found} == {("red", None), ("tunnel", "alice")}
    for words, ports in (
        (("--port", "443"), [443]),
        (("--protocol", "udp", "--from", "tunnel"), [53]),
        (("--peer", "alice"), [53]),
        (("--address", "192.0.2.0/24"), [443, 53]),
        (("--address", "10.9.0.1"), [53]),
        (("--protocol", "tcp"), []),
        (("--protocol", "17"), [443, 53, 53]),
    ):
        assert [row["destination_port"] for row in said("flows", *words)] == ports, words
    for words in (("--protocol", "x"), ("--from", "x"), ("--peer", "x"), ("--address", "x")):
        septum("flows", *words, code=1)


def test_top_and_counters(scene: Scene) -> None:
    assert said("top")[0]["address"] == "10.0.0.1"
    assert len(said("top", "--most", "1")) == 1
    scene.send(udp("10.9.0.2", 1, "192.168.1.1", 1), side=Side.TUNNEL, peer=2)
    counts = said("counters")["counts"]
    assert counts["all"]["passed"] == 4
    assert counts["tunnel"]["no rule"] == 1
    assert "no rule" in septum("counters")


def test_apply(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "new.rules"
    file.write_text("allow established\nallow from red udp to port 53\n")
    dry = said("apply", str(file), "--dry-run")
    assert (dry["applied"], scene.line.kept) == (False, [])
    assert any("out" in change["before"] or "test.rules:2" in change["before"] for change in dry["changes"])
    assert "2 rules; nothing was changed" in septum("apply", str(file), "--dry-run")
    done = said("apply", str(file))
    assert (done["applied"], done["flows_kept"], done["flows_ended"]) == (True, 1, 2)
    assert len(scene.line.kept) == 1
    shown = septum("apply", str(file)).replace("\n", " ")
    assert "No packet is treated otherwise." in shown
    assert f"box goes by {file}: 2 rules; 1 flow lives on, 0 ended" in shown
    assert f"septum up --rules {file}" in shown


def test_what_this_box_cannot_do_is_refused_where_it_is_written(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = STATUS | {"domains": [{"component": "filter", "role": "bridge"}]}
    monkeypatch.setattr(filtering, "_status", lambda box: bridge)
    file = tmp_path / "nat.rules"
    file.write_text("allow from red\nforward from black tcp to 192.0.2.1 port 80 -> 10.0.0.1\n")
    for words in (("apply", str(file)), ("apply", str(file), "--dry-run")):
        shown = septum(*words, code=1)
        assert f"{file}:2:1: a bridge translates nothing" in shown and "nothing was changed" in shown
    assert scene.line.kept == []
    file.write_text("allow from red\nallow from tunnel\n")
    assert f"{file}:2:1: this rule never matches" in septum("apply", str(file), "--dry-run")


def test_rules_that_are_misspelt_change_nothing(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "bad.rules"
    file.write_text("allow form red\n")
    before = scene.running.totals()
    septum("apply", str(file), code=1)
    assert scene.line.kept == []
    assert scene.running.totals() == before
