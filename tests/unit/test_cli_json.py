"""``--json``: machines are told in JSON of what went wrong, too, and nobody else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli.commands import app

MISSPELT = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nListenProt = 1\n"


@pytest.fixture(autouse=True)
def _no_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("SEPTUM_RUN_DIR", "SEPTUM_STATE_DIR", "HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / "bad.conf").write_text(MISSPELT)
    (tmp_path / "bad.rules").write_text("alow from red\n")


def failed(code: int, *words: str) -> dict[str, Any]:
    """What ``words`` fail with."""
    ended = CliRunner().invoke(app, [*words, "--json"])
    assert ended.exit_code == code and ended.stdout == ""
    told: dict[str, Any] = json.loads(ended.stderr)
    assert told["code"] == code
    return told


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ("check absent.conf", 1, "absent.conf: there is no such file"),
        ("ps", 1, "no box is up"),
        ("ps wg9", 1, "no box named 'wg9' is up"),
        ("status", 1, "no box is up"),
        ("filter rules", 1, "no box is up"),
        ("filter explain nonsense --rules bad.rules", 2, "bad.rules: refused, 1 problem"),
        ("filter lint absent.rules", 2, "absent.rules: refused, 1 problem"),
        ("init wg9 --address 1.2.3", 1, "'1.2.3' is not an address: 192.0.2.1:50051, box.example or"),
        ("image list --store absent", 1, "there is no image in absent"),
    ],
)
def test_what_went_wrong(words: str, code: int, why: str) -> None:
    assert failed(code, *words.split())["error"].startswith(why)


def test_all_that_is_wrong_with_a_file() -> None:
    assert failed(1, "check", "bad.conf")["findings"] == [
        "bad.conf:3: there is no key 'ListenProt' in [Interface]; did you mean 'ListenPort'? [wg-quick]"
    ]
    (found,) = failed(2, "filter", "lint", "bad.rules")["findings"]
    assert found.startswith("bad.rules:1:1: ")


def test_people_are_told_in_words() -> None:
    failed(1, "ps")
    ended = CliRunner().invoke(app, ["ps"])
    assert ended.stderr == "septum: no box is up\n  try: septum up wg0.conf\n"
