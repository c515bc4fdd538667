"""What a packet costs each domain, counted, is what budgets.json says. `make budgets` writes it anew, for the diff to
be looked at.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.budgets.count import (
    FOREIGN_TOLERANCE,
    TOLERANCE,
    Work,
    budgets,
    complaints,
    count,
    interpreter,
)

COUNTED_WITH, BUDGETS = budgets()
BUDGET = Work(129, 1000, {"write": 3})


@pytest.fixture(scope="module")
def counted() -> dict[str, Work]:
    return count()


def test_every_piece_of_work_has_a_budget(counted: dict[str, Work]) -> None:
    assert list(counted) == list(BUDGETS)


@pytest.mark.parametrize("name", BUDGETS)
def test_a_packet_costs_what_was_budgeted(counted: dict[str, Work], name: str) -> None:
    tolerance = TOLERANCE if interpreter() == COUNTED_WITH else FOREIGN_TOLERANCE
    assert not complaints(counted[name], BUDGETS[name], tolerance), "if it is meant to be so: make budgets"


@pytest.mark.parametrize("found", [
    replace(BUDGET, instructions=1100),
    replace(BUDGET, instructions=900),
    replace(BUDGET, calls={"write": 4}),
    replace(BUDGET, calls={"write": 3, "epoll_wait": 1}),
])  # fmt: skip
def test_a_tenth_more_or_one_call_more_is_told(found: Work) -> None:
    assert complaints(found, BUDGET, TOLERANCE)


def test_within_the_tolerance_nothing_is_told() -> None:
    assert not complaints(replace(BUDGET, instructions=1020), BUDGET, TOLERANCE)
