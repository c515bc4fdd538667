"""Budgets: every role has one, what is said twice or unknown is refused, and an image above its budget is none."""

from __future__ import annotations

import pytest

from appliance.assembly.load import VPN, load
from appliance.image import budgets, build, vouch
from appliance.image.tree import Part


def test_every_role_of_the_vpn_has_a_budget_and_those_of_the_issue_hold() -> None:
    found = {domain.role.name: budgets.of(domain.role.name) for domain in load(VPN).domains}
    for role in ("rng", "filter", "store", "log"):
        assert found[role].bytes <= 6_000_000
        assert found[role].memory_mib <= 48
    for role in ("keymgr", "encrypt", "decrypt"):
        assert found[role].bytes <= 12_000_000
        assert found[role].memory_mib <= 64


def test_a_role_without_a_budget_is_refused() -> None:
    with pytest.raises(budgets.BudgetError, match="whatever has no budget"):
        budgets.of("whatever")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[a]\nroles = ["x"]\nbytes = 1\n', "must have roles, bytes and memory_mib"),
        ('[a]\nroles = ["x"]\nbytes = 1\nmemory_mib = 1\nmore = 1\n', "and nothing else"),
        (
            '[a]\nroles = ["x"]\nbytes = 1\nmemory_mib = 1\n[b]\nroles = ["x"]\nbytes = 1\nmemory_mib = 1\n',
            r"x has the budget \[a\] already",
        ),
    ],
)
def test_files_that_leave_a_doubt_are_refused(text: str, why: str) -> None:
    with pytest.raises(budgets.BudgetError, match=why):
        budgets.read(text)


@pytest.mark.parametrize("over", [0, 1])
def test_one_byte_above_the_budget_fails_and_says_what_is_large(over: int) -> None:
    role = next(domain.role for domain in load(VPN).domains if domain.name == "rng")
    parts = [Part("large", bytes(500), 0o444, vouch.Package("deb", "x", "1"))]
    budget = budgets.Budget("small", 100, 48)
    if over:
        with pytest.raises(budgets.BudgetError, match=r"rng: 101 bytes, and \[small\].* large 500"):
            build._within(budget, role, 100 + over, parts)
    else:
        build._within(budget, role, 100 + over, parts)
