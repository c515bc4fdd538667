"""Translations that get in each other's way. The first that matches holds, so a clash is never what was meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from appliance.rules.problems import Problem
from components.filter.model import Prefix, Range, Translation

_ALL_SIDES = 7


def clashes(translations: Sequence[tuple[Translation, Problem]]) -> Iterator[Problem]:
    """What is wrong with these, each given with a problem that says where it stands."""
    for (first, _), (second, place) in combinations(translations, 2):
        if (first.source is None) != (second.source is None):
            forward, nat = (first, second) if first.source is None else (second, first)
            yield from _crossed(forward, nat, place, first.line)
        elif _both_match(first, second) and _goes_to(first) != _goes_to(second):
            what = "nat" if first.source is not None else "forward"
            if not _within(second, first):
                continue  # an exception before the rule: what people mean
            yield place._replace(
                why=f"line {first.line} takes all that this {what} would, and sends it elsewhere",
                hint="put the narrower one first",
            )


def _crossed(forward: Translation, nat: Translation, place: Problem, line: int) -> Iterator[Problem]:
    """An address that packets leave with is one that answers come to: the answers must not be forwarded away."""
    assert nat.source is not None
    is_taken = any(prefix.has(nat.source.to_bytes(4, "big")) for prefix in forward.destinations)
    is_whole = not forward.destination_ports
    if is_taken and is_whole and _shared(forward.protocols, nat.protocols):
        yield place._replace(
            why="one line forwards every packet to an address, another (nat) sends packets from it: "
            f"their answers would be forwarded too (line {line})",
            hint="give the forward ports, or nat another address",
        )


def _goes_to(one: Translation) -> tuple[int | None, int | None, int]:
    return one.source, one.destination, one.port


def _shared(first: Sequence[int], second: Sequence[int]) -> bool:
    return not first or not second or bool(set(first) & set(second))


def _both_match(first: Translation, second: Translation) -> bool:
    """Whether some packet matches both."""
    return (
        bool((first.sides or _ALL_SIDES) & (second.sides or _ALL_SIDES))
        and bool((first.leaves or _ALL_SIDES) & (second.leaves or _ALL_SIDES))
        and _shared(first.protocols, second.protocols)
        and _overlap(first.sources, second.sources)
        and _overlap(first.destinations, second.destinations)
        and _meet(first.destination_ports, second.destination_ports)
    )


def _overlap(first: Sequence[Prefix], second: Sequence[Prefix]) -> bool:
    return not first or not second or any(_contains(a, b) or _contains(b, a) for a in first for b in second)


def _contains(outer: Prefix, inner: Prefix) -> bool:
    return (
        outer.width == inner.width
        and outer.mask & inner.mask == outer.mask
        and inner.network & outer.mask == outer.network
    )


def _meet(first: Sequence[Range], second: Sequence[Range]) -> bool:
    return not first or not second or any(a.first <= b.last and b.first <= a.last for a in first for b in second)


def _within(inner: Translation, outer: Translation) -> bool:
    """Whether all that matches ``inner`` matches ``outer`` (found for what single prefixes and ranges cover)."""
    return (
        not (inner.sides or _ALL_SIDES) & ~(outer.sides or _ALL_SIDES)
        and not (inner.leaves or _ALL_SIDES) & ~(outer.leaves or _ALL_SIDES)
        and (not outer.protocols or (bool(inner.protocols) and set(inner.protocols) <= set(outer.protocols)))
        and _covered(inner.sources, outer.sources)
        and _covered(inner.destinations, outer.destinations)
        and (
            not outer.destination_ports
            or (
                bool(inner.destination_ports)
                and all(
                    any(b.first <= a.first and a.last <= b.last for b in outer.destination_ports)
                    for a in inner.destination_ports
                )
            )
        )
    )


def _covered(inner: Sequence[Prefix], outer: Sequence[Prefix]) -> bool:
    return not outer or (bool(inner) and all(any(_contains(b, a) for b in outer) for a in inner))
