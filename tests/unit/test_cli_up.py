"""`septum up` goes straight to work with what it understands at once, and hands all else to those who explain."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli import building
from appliance.cli.septum import plain_up


def test_words_that_are_plain() -> None:
    assert plain_up(["a.conf", "--assembly", "vpn-2"]) == {"file": Path("a.conf"), "assembly": "vpn-2"}
    assert plain_up(["a.conf", "--rules", "x"]) == {"file": Path("a.conf"), "rules": Path("x")}
    assert plain_up(["wg0.conf"]) == {"file": Path("wg0.conf")}
    assert plain_up(["--lan", "eth1", "wg0.conf", "--wan", "eth0", "--name", "a", "--foreground"]) == {
        "file": Path("wg0.conf"),
        "lan": "eth1",
        "wan": "eth0",
        "name": "a",
        "foreground": True,
    }


@pytest.mark.parametrize(
    "words", [[], ["-h"], ["a", "b"], ["a", "--lan"], ["a", "--lan", "--wan"], ["a", "--lan=x"], ["a", "--x"], [""]]
)
def test_words_that_want_more_than_that(words: list[str]) -> None:
    assert plain_up(words) is None


def test_a_name_that_means_nothing_is_told_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        building.load(Path("nothere.toml"))
    assert "ready-made ones by its name: filter, vpn" in " ".join(capsys.readouterr().err.split())


def test_who_may_not_look_where_a_name_may_lead_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Path.is_file

    def refuse(path: Path) -> bool:
        if path.is_relative_to("/etc/wireguard"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(SystemExit):
        building.load(Path("filter"))
    assert "cannot be looked at by this user" in " ".join(capsys.readouterr().err.split())
