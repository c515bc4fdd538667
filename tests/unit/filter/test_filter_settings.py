"""Rules as a user writes them."""

from __future__ import annotations

import pytest

from appliance.guest.settings import SettingsError
from components.filter.model import Action, Icmp, Prefix, Rule, Side, Tracking
from components.filter.settings import parse

ALWAYS = (Rule(Action.ALLOW, tracking=6), Rule(Action.ALLOW, sides=Side.RED))


def rules(*tables: object) -> tuple[Rule, ...]:
    made = parse("filter", {"allow_from_tunnel": list(tables)}).ruleset.rules
    assert made[:2] == ALWAYS
    return made[2:]


def test_nothing_is_allowed_unless_it_says_so() -> None:
    assert parse("filter", {}).ruleset.rules == ALWAYS
    assert parse("filter", {"ruleset": {}}).ruleset.rules == ()


def test_a_whole_rule() -> None:
    source, destination = Prefix(4, 10 << 24, 0xFF << 24), Prefix(4, 0xC0A8010A, 0xFFFFFFFF)
    table = {
        "protocol": "tcp",
        "source": "10.0.0.0/8",
        "destination": "192.168.1.10/32",
        "ports": "80, 8000-8010",
        "peer": 3,
    }
    new = Rule(Action.ALLOW, sides=Side.TUNNEL, tracking=Tracking.NEW)
    assert rules(table) == (
        new._replace(
            peers=(3,),
            protocols=(6,),
            sources=(source,),
            destinations=(destination,),
            destination_ports=((80, 80), (8000, 8010)),  # type: ignore[arg-type]
        ),
    )
    assert rules({"protocol": "any"}) == (new,)
    six = rules({"protocol": "icmpv6", "source": "fd00::/8"})[0]
    assert six.sources == (Prefix(16, 0xFD << 120, 0xFF << 120),) and six.icmp == (Icmp(128, None),)


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({}, "protocol"),
        ({"protocol": "sctp"}, "protocol"),
        ({"protocol": "any", "ports": "80"}, "ports"),
        ({"protocol": "icmp", "ports": "80"}, "ports"),
        ({"protocol": "tcp", "ports": "80-"}, "ports"),
        ({"protocol": "tcp", "ports": "-80"}, "ports"),
        ({"protocol": "tcp", "ports": "80-79"}, "ports"),
        ({"protocol": "tcp", "ports": "0"}, "ports"),
        ({"protocol": "tcp", "ports": "65536"}, "ports"),
        ({"protocol": "tcp", "ports": "http"}, "ports"),
        ({"protocol": "tcp", "ports": "80,"}, "ports"),
        ({"protocol": "tcp", "ports": "²"}, "ports"),
        ({"protocol": "tcp", "ports": ",".join(map(str, range(1, 66)))}, "ports"),
        ({"protocol": "tcp", "source": "10.0.0.1/8"}, "source"),
        ({"protocol": "tcp", "source": "ten"}, "source"),
        ({"protocol": "tcp", "source": "10.0.0.0/8", "destination": "fd00::/8"}, "destination"),
        ({"protocol": "icmp", "source": "fd00::/8"}, "protocol"),
        ({"protocol": "icmpv6", "destination": "10.0.0.0/8"}, "protocol"),
        ({"protocol": "tcp", "peer": 65536}, "peer"),
        ({"protocol": "tcp", "port": "80"}, "port"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_with_its_place(table: dict[str, object], path: str) -> None:
    with pytest.raises(SettingsError) as error:
        rules({"protocol": "any"}, table)
    assert error.value.path == f"allow_from_tunnel[1].{path}"


def test_other_keys_and_roles_are_refused() -> None:
    with pytest.raises(SettingsError):
        parse("filter", {"allow": []})
    with pytest.raises(SettingsError):
        parse("red", {})
