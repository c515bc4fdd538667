"""Sets of whole numbers as intervals: sorted, apart from each other, both ends included. The algebra is exact."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

Intervals = tuple[tuple[int, int], ...]

_FAR: Final = 1 << 200  # beyond every number there is


def of(pairs: Iterable[tuple[int, int]]) -> Intervals:
    """The set of all numbers in ``pairs``, which may overlap and touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = merged[-1][0], last
        else:
            merged.append((first, last))
    return tuple(merged)


def meet(one: Intervals, other: Intervals) -> Intervals:
    """What is in both."""
    if one is other or one == other:
        return one
    if len(one) > len(other):
        one, other = other, one
    found: list[tuple[int, int]] = []
    for first, last in one:
        at = max(0, bisect_right(other, (first, _FAR)) - 1)
        while at < len(other) and other[at][0] <= last:
            low, high = other[at]
            if high >= first:
                found.append((low if low > first else first, high if high < last else last))
            at += 1
    return tuple(found)


def minus(one: Intervals, other: Intervals) -> Intervals:
    """What is in ``one`` and not in ``other``."""
    if one == other:
        return ()
    found: list[tuple[int, int]] = []
    for first, last in one:
        at = max(0, bisect_right(other, (first, _FAR)) - 1)
        begin = first
        while at < len(other) and other[at][0] <= last:
            low, high = other[at]
            at += 1
            if high < begin:
                continue
            if low > begin:
                found.append((begin, low - 1))
            begin = high + 1
        if begin <= last:
            found.append((begin, last))
    return tuple(found)


def within(inner: Intervals, outer: Intervals) -> bool:
    """Whether all of ``inner`` is in ``outer``."""
    if inner == outer:
        return True
    for first, last in inner:
        at = bisect_right(outer, (first, _FAR)) - 1
        if at < 0 or outer[at][1] < last:
            return False
    return True


def has(one: Intervals, number: int) -> bool:
    """Whether ``number`` is in it."""
    return any(first <= number <= last for first, last in one)


def count(one: Intervals) -> int:
    """How many numbers are in it."""
    return sum(last - first + 1 for first, last in one)
