"""Settings of the filter: a rule set, and nothing that it does not know."""

from __future__ import annotations

import pytest

from appliance.guest.settings import SettingsError
from components.filter.ruleset import encode
from components.filter.settings import parse
from tests.unit.filter.talk import ruleset


def test_nothing_is_allowed_unless_it_says_so() -> None:
    assert parse("filter", {}).ruleset.rules == ()
    assert parse("filter", {"ruleset": {}}).ruleset.rules == ()


def test_a_rule_set() -> None:
    said = ruleset("allow from tunnel tcp to 192.168.1.10 port 80, 8000-8010")
    assert parse("filter", {"ruleset": encode(said)}).ruleset == said


def test_other_keys_and_roles_are_refused() -> None:
    with pytest.raises(SettingsError):
        parse("filter", {"allow": []})
    with pytest.raises(SettingsError):
        parse("red", {})
