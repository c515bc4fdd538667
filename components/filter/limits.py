"""Conditions of a rule that depend on time and on what matched before: limits, quotas, hours, an end.

Asking changes nothing; what a rule that decided has used up is taken afterwards (nftables' ``limit`` and ``quota``, as
the last conditions of a rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from components.filter.model import Hours, Limit, Quota, Rule

_DAY: Final = 86_400
_THURSDAY: Final = 3  # the first day of 1970, counted from Monday


class Bucket:
    """A token bucket: ``rate`` tokens a second, ``burst`` at the most, which are there at first."""

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._tokens = float(burst)
        self._filled = 0.0

    def has(self, tokens: float, now: float) -> bool:
        """Whether so many could be taken now."""
        return self._at(now) >= tokens

    def take(self, tokens: float, now: float) -> bool:
        """Takes so many, if they are there."""
        there = self._at(now)
        if there < tokens:
            return False
        self._tokens, self._filled = there - tokens, max(now, self._filled)
        return True

    def _at(self, now: float) -> float:
        return min(self._burst, self._tokens + max(0.0, now - self._filled) * self._rate)


class _Budget:
    """What one rule has left."""

    __slots__ = ("bucket", "is_in_octets", "octets", "packets")

    def __init__(self, limit: Limit | None) -> None:
        self.bucket: Bucket | None = None
        self.is_in_octets = False
        if limit is not None:
            self.is_in_octets = bool(limit.octets)
            self.bucket = Bucket((limit.octets or limit.packets) / limit.seconds, limit.burst)
        self.packets = self.octets = 0


class Conditions:
    """The time-bound conditions of a list of rules, by the number of the rule."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._budgets = {
            index: _Budget(rule.limit) for index, rule in enumerate(rules) if rule.limit is not None or rule.quota
        }

    def refusal(self, index: int, octets: int, now: float, wall: float) -> str:
        """Which of a rule's conditions does not hold for a packet of ``octets`` bytes; empty if all do."""
        rule = self._rules[index]
        if rule.expires and wall >= rule.expires:
            return "expired"
        if rule.hours and not any(_within(hours, wall) for hours in rule.hours):
            return "hours"
        budget = self._budgets.get(index)
        if budget is None:
            return ""
        if rule.quota is not None and _is_used_up(rule.quota, budget, octets):
            return "quota"
        if budget.bucket is not None and not budget.bucket.has(octets if budget.is_in_octets else 1, now):
            return "limit"
        return ""

    def take(self, index: int, octets: int, now: float) -> None:
        """A packet of ``octets`` bytes went by that rule."""
        budget = self._budgets.get(index)
        if budget is None:
            return
        budget.packets += 1
        budget.octets += octets
        if budget.bucket is not None:
            budget.bucket.take(octets if budget.is_in_octets else 1, now)


def _within(hours: Hours, wall: float) -> bool:
    day, second = divmod(int(wall), _DAY)
    return bool(hours.days >> (day + _THURSDAY) % 7 & 1) and hours.first <= second // 60 < hours.last


def _is_used_up(quota: Quota, budget: _Budget, octets: int) -> bool:
    if quota.packets and budget.packets >= quota.packets:
        return True
    return bool(quota.octets) and budget.octets + octets > quota.octets
