"""A rule set as plain data: what goes in comes out, and nonsense is refused with its place."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given

from appliance.guest.settings import SettingsError
from components.filter.model import Action, Prefix, Rule, RuleSet
from components.filter.ruleset import MOST_RULES, decode, encode, from_json
from tests.unit.filter.making import rule_sets


@given(rule_sets())
def test_what_is_encoded_is_decoded(rules: RuleSet) -> None:
    text = json.dumps(encode(rules)).encode()
    assert from_json(text) == rules
    assert encode(from_json(text)) == encode(rules)


def test_ten_thousand_rules_about_one_set_carry_it_once() -> None:
    many = tuple(Prefix(4, 10 << 24 | i << 8, 0xFFFFFF00) for i in range(5000))
    text = json.dumps(encode(RuleSet(tuple(Rule(Action.ALLOW, sources=many, line=i) for i in range(10_000))))).encode()
    assert len(text) < 2 << 20
    began = time.monotonic()
    rules = from_json(text)
    assert time.monotonic() - began < 20
    assert rules.rules[0].sources is rules.rules[-1].sources


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({}, "action"),
        ({"action": 4}, "action"),
        ({"action": True}, "action"),
        ({"action": 1, "sides": 8}, "sides"),
        ({"action": 1, "version": 5}, "version"),
        ({"action": 1, "file": 1}, "file"),
        ({"action": 1, "tracking": 16}, "tracking"),
        ({"action": 1, "peers": [0]}, "peers[0]"),
        ({"action": 1, "peers": [1], "sides": 3}, "peers"),
        ({"action": 1, "protocols": [256]}, "protocols[0]"),
        ({"action": 1, "protocols": ["tcp"]}, "protocols[0]"),
        ({"action": 1, "sources": 1}, "sources"),
        ({"action": 1, "version": 6, "sources": 0}, "sources"),
        ({"action": 1, "destination_ports": [[80, 80]]}, "destination_ports"),
        ({"action": 1, "protocols": [1], "source_ports": [[80, 80]]}, "source_ports"),
        ({"action": 1, "protocols": [6], "source_ports": [[80]]}, "source_ports[0]"),
        ({"action": 1, "protocols": [6], "source_ports": [80]}, "source_ports[0]"),
        ({"action": 1, "protocols": [6], "source_ports": [[81, 80]]}, "source_ports[0]"),
        ({"action": 1, "protocols": [6], "source_ports": [[80, 65536]]}, "source_ports[0][1]"),
        ({"action": 1, "protocols": [6], "icmp": [[8]]}, "icmp"),
        ({"action": 1, "protocols": [1], "icmp": [[]]}, "icmp[0]"),
        ({"action": 1, "protocols": [17], "flags": [2, 2]}, "flags"),
        ({"action": 1, "protocols": [6], "flags": [2, 3]}, "flags"),
        ({"action": 1, "protocols": [6], "flags": [2]}, "flags"),
        ({"action": 1, "limit": [1, 1, 1, 1]}, "limit"),
        ({"action": 1, "limit": [1, 0, 0, 1]}, "limit[2]"),
        ({"action": 1, "quota": [0, 0]}, "quota"),
        ({"action": 1, "expires": -1}, "expires"),
        ({"action": 1, "hours": [[127, 60, 60]]}, "hours[0]"),
        ({"action": 1, "hours": [[0, 0, 60]]}, "hours[0][0]"),
        ({"action": 1, "link": {"source": ["02:00"]}}, "link.source[0]"),
        ({"action": 1, "link": {"mac": []}}, "link.mac"),
        ({"action": 1, "log": 1}, "log"),
        ({"action": 1, "name": "n" * 129}, "name"),
        ({"action": 1, "ports": []}, "ports"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_with_its_place(rule: dict[str, Any], path: str) -> None:
    table = {"rules": [{"action": 1}, rule], "prefixes": [["10.0.0.0/8"]], "files": ["vpn.rules"]}
    with pytest.raises(SettingsError) as error:
        decode(table, "ruleset")
    assert error.value.path == f"ruleset.rules[1].{path}"


@pytest.mark.parametrize(
    ("one", "path"),
    [
        ({"sides": 1}, "to_source"),
        ({"sides": 1, "to_source": 1 << 24, "to_destination": 1 << 24}, "to_source"),
        ({"sides": 0, "to_source": 1 << 24}, "sides"),
        ({"sides": 1, "to_source": 1 << 24, "port": 80}, "port"),
        ({"sides": 1, "to_source": 255 << 24}, "to_source"),
        ({"sides": 1, "to_destination": 1 << 24, "leaves": 1}, "leaves"),
        ({"sides": 1, "to_destination": 1 << 24, "port": 80}, "protocols"),
        ({"sides": 1, "to_destination": 1 << 24, "destinations": 0}, "destinations"),
    ],
)
def test_a_translation_that_cannot_be_meant_is_refused(one: dict[str, Any], path: str) -> None:
    with pytest.raises(SettingsError) as error:
        decode({"translations": [one], "prefixes": [["fd00::/8"]]})
    assert error.value.path == f"translations[0].{path}"


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"prefixes": [["10.0.0.1/8"]]}, "prefixes[0][0]"),
        ({"prefixes": [[]]}, "prefixes[0]"),
        ({"prefixes": [["10.0.0.0/8"] * 40_000] * 2}, "prefixes[1]"),
        ({"rules": [{"action": 1}] * (MOST_RULES + 1)}, "rules"),
        ({"lan": ["lan"]}, "lan[0]"),
        ({"rule": []}, "rule"),
    ],
)
def test_lists_have_their_bounds(table: dict[str, Any], path: str) -> None:
    with pytest.raises(SettingsError) as error:
        decode(table)
    assert error.value.path == path


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b" " * (9 << 20)])
def test_what_is_no_rule_set_is_refused(text: bytes) -> None:
    with pytest.raises(SettingsError):
        from_json(text)
