"""What was done to a set of rules to make another of it: which were added, removed, changed, moved.

The rules that both have and that stand in the same order, as many as there can be, have stayed; the others that both
have were moved. What is left between two that stayed was removed on one side and added on the other; where two of those
are the same in at least half of their fields, one was changed into the other.

That says nothing about packets: a rule may be moved and decide as before. Which packets are treated otherwise is found
out where the language is known (appliance/rules/diff.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from components.admin.rulebook import Item, Rulebook

_AHEAD: Final = 8  # so many added ones are looked at to find what a removed one was changed into


class How(IntEnum):
    """As enum RuleChangeKind."""

    ADDED = 1
    REMOVED = 2
    CHANGED = 3
    MOVED = 4


class Change(NamedTuple):
    """``fields`` are the names of those that differ."""

    how: How
    list: str
    before: Item | None
    after: Item | None
    fields: tuple[str, ...] = ()


class Difference(NamedTuple):
    """``changes`` in the order of what came of them; ``same`` rules and translations stayed where they were."""

    changes: tuple[Change, ...]
    same: int


def diff(before: Rulebook, after: Rulebook) -> Difference:
    """What was done to ``before``. Takes n log n of the number of rules."""
    changes: list[Change] = []
    same = 0
    for name in ("rules", "translations"):
        found, stayed = _compare(name, before.items[name], after.items[name])
        changes += found
        same += stayed
    old, new = ({item.key: item for item in book.items["lan"]} for book in (before, after))
    changes += [Change(How.REMOVED, "lan", old[key], None) for key in old if key not in new]
    changes += [Change(How.ADDED, "lan", None, new[key]) for key in new if key not in old]
    return Difference(tuple(changes), same)


def _compare(name: str, before: Sequence[Item], after: Sequence[Item]) -> tuple[list[Change], int]:
    places: defaultdict[bytes, deque[int]] = defaultdict(deque)
    for i, item in enumerate(before):
        places[item.key].append(i)
    # Place before, of each that both have; those of the same form in their order
    was = {j: places[item.key].popleft() for j, item in enumerate(after) if places[item.key]}
    stayed = _longest_rising(was)
    known = set(was.values())
    changes: list[Change] = []
    i = j = 0
    for last_i, last_j in [*stayed, (len(before), len(after))]:
        gone = [before[n] for n in range(i, last_i) if n not in known]
        come = [after[n] for n in range(j, last_j) if n not in was]
        moved = [Change(How.MOVED, name, before[was[n]], after[n]) for n in range(j, last_j) if n in was]
        changes += sorted([*_between(name, gone, come), *moved], key=_place)
        i, j = last_i + 1, last_j + 1
    return changes, len(stayed)


def _place(change: Change) -> tuple[int, int]:
    return (change.after.number, 1) if change.after is not None else (0, 0)


def _longest_rising(was: dict[int, int]) -> list[tuple[int, int]]:
    """Of pairs (after, before), in the order of the first, as many as rise in the second too, as (before, after)."""
    ends: list[int] = []  # the least place before with which a chain of that length ends
    heads: list[int] = []  # ... and the place after that it belongs to
    previous: dict[int, int] = {}
    for j, i in was.items():
        length = bisect_left(ends, i)
        if length:
            previous[j] = heads[length - 1]
        if length == len(ends):
            ends.append(i)
            heads.append(j)
        else:
            ends[length], heads[length] = i, j
    chain = []
    at = heads[-1] if heads else None
    while at is not None:
        chain.append((was[at], at))
        at = previous.get(at)
    return chain[::-1]


def _between(name: str, gone: Sequence[Item], come: Sequence[Item]) -> Iterator[Change]:
    at = 0
    for one in gone:
        found = next((n for n in range(at, min(at + _AHEAD, len(come))) if _is_alike(one, come[n])), None)
        if found is None:
            yield Change(How.REMOVED, name, one, None)
            continue
        yield from (Change(How.ADDED, name, None, item) for item in come[at:found])
        yield Change(How.CHANGED, name, one, come[found], _differing(one, come[found]))
        at = found + 1
    yield from (Change(How.ADDED, name, None, item) for item in come[at:])


def _differing(one: Item, other: Item) -> tuple[str, ...]:
    return tuple(
        name
        for name in sorted(one.fields.keys() | other.fields.keys())
        if name not in one.fields or name not in other.fields or one.fields[name] != other.fields[name]
    )


def _is_alike(one: Item, other: Item) -> bool:
    return 2 * len(_differing(one, other)) <= len(one.fields.keys() | other.fields.keys())
