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


@pytest.mark.parametrize(
    ("said", "why", "then"),
    [
        (".", ". is a directory", "a file in it"),
        ("filter", "filter does not say where in the network the box stands", "septum up filter --lan eth1 --wan eth2"),
        ("vpn", "vpn does not say where in the network the box stands", "septum up wg0.conf"),
    ],
)
def test_what_is_no_file_of_a_tunnel_is_told_what_to_say_instead(
    said: str, why: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        building.up(Path(said))
    assert ended.value.code == 1
    first, second = capsys.readouterr().err.splitlines()
    assert why in first and then in second


def test_a_state_directory_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wg0.conf"
    file.write_text("[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n")
    file.chmod(0o600)
    monkeypatch.setenv("SEPTUM_STATE_DIR", str(file / "state"))
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(tmp_path / "run"))
    with pytest.raises(SystemExit):
        building.up(file)
    said = capsys.readouterr().err
    assert f"{file}/state: Not a directory: run as root, or set " in said and "Errno" not in said
