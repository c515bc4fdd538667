"""``--assembly``: what a wg-quick file is laid over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.assembly.load import ASSEMBLIES
from appliance.cli.commands import app

CONF = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"


@pytest.fixture
def conf(tmp_path: Path) -> str:
    file = tmp_path / "wg0.conf"
    file.touch(0o600)
    file.write_text(CONF)
    return str(file)


def domains(*arguments: str) -> set[str]:
    result = CliRunner().invoke(app, ["check", "--json", *arguments])
    assert result.exit_code == 0, result.output
    return set(json.loads(result.stdout)["domains"])


@pytest.mark.parametrize("said", ["vpn-2", str(ASSEMBLIES / "vpn-2.toml")])
def test_a_ready_made_one_by_its_name_or_any_by_its_file(conf: str, said: str) -> None:
    two = domains(conf, "--assembly", said)
    assert two - domains(conf) == {"encrypt1", "encrypt2", "decrypt1", "decrypt2"}
    assert domains(conf) == domains(conf, "--assembly", "vpn")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--assembly", "vpn-3"], "there is no assembly 'vpn-3'"),
        (["--assembly", "../wg0"], "there is no assembly '../wg0'"),
    ],
)
def test_one_that_is_not_there(conf: str, arguments: list[str], why: str) -> None:
    result = CliRunner().invoke(app, ["check", conf, *arguments])
    assert result.exit_code == 1
    assert why in result.output and "vpn, vpn-2" in result.output


def test_an_assembly_is_laid_over_nothing() -> None:
    result = CliRunner().invoke(app, ["check", str(ASSEMBLIES / "vpn.toml"), "--assembly", "vpn-2"])
    assert result.exit_code == 1
    assert "is an assembly itself" in result.output.replace("\n", " ")


def test_the_graph_of_a_ready_made_one() -> None:
    result = CliRunner().invoke(app, ["graph", "--dot", "--assembly", "vpn-2"])
    assert result.exit_code == 0
    assert '"filter" -> "encrypt2"' in result.output
