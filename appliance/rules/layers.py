"""A rule set over all packets: a layer for each family, in which each entry has the box that it matches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from appliance.rules import space
from appliance.rules.intervals import Intervals
from appliance.rules.packets import Sample
from appliance.rules.space import LAN, NOBODY, Box, Entry, Family, Index
from appliance.rules.work import Work
from components.filter.model import Action, Rule, RuleSet, Translation

LEAVES = "leaves"
"""The axis of where a packet leaves the box; only for translations."""

DEFAULT = Entry(NOBODY, Action.DROP, ())
UNTRANSLATED = Entry(NOBODY, "as it came", ())


class Layer(NamedTuple):
    """One family: ``boxes`` go with the entries; None where an entry matches nothing of it."""

    family: Family
    boxes: list[Box | None]
    lookup: Index


class Layers(NamedTuple):
    """Entries are tried in order; ``default`` is for what none takes."""

    entries: list[Entry | None]
    layers: list[Layer]
    default: Entry

    def decide(self, layer: Layer, whole: Box, work: Work) -> Iterator[tuple[Box, tuple[Entry, ...]]]:
        """``whole`` in pieces, each with the entries that decide about all of it: any number of conditional ones, and
        one that is not. Errors: TooMuch.
        """
        waiting: list[tuple[Box, int, tuple[Entry, ...]]] = [(whole, 0, ())]
        while waiting:
            piece, start, trail = waiting.pop()
            for at in space.numbers(layer.lookup.meeting(piece) >> start << start):
                work.step()
                entry, taken = self.entries[at], layer.boxes[at]
                if entry is None or taken is None:
                    continue
                common = space.meet(piece, taken)
                if common is None:
                    continue
                waiting += [(rest, at + 1, trail) for rest in space.minus(piece, common)]
                if entry.when:
                    waiting.append((common, at + 1, (*trail, entry)))
                else:
                    yield common, (*trail, entry)
                break
            else:
                yield piece, (*trail, self.default)


def of_rules(ruleset: RuleSet, now: float, with_link: bool) -> Layers:
    """What is tried about a packet: ``lan`` first, as if it were a rule, then the rules that have not expired."""
    lan: list[Entry | None] = [Entry(LAN, Action.DROP, ())] * 2 if ruleset.lan else []
    entries = lan + [space.entry(number, rule, now) for number, rule in enumerate(ruleset.rules)]
    layers = []
    for family in space.families(with_link):
        boxes = space.lan_boxes(ruleset.lan, family)
        boxes += [
            space.box(rule, family) if entry is not None else None
            for rule, entry in zip(ruleset.rules, entries[len(lan) :], strict=True)
        ]
        layers.append(Layer(family, boxes, Index(boxes)))
    return Layers(entries, layers, DEFAULT)


def of_translations(translations: Sequence[Translation], of_source: bool) -> Layers:
    """What is done to a packet's source, or to its destination."""
    entries: list[Entry | None] = [
        Entry(number, target(one), ()) if (one.source is not None) == of_source else None
        for number, one in enumerate(translations)
    ]
    layers = []
    for family in space.families(with_link=False):
        if family.version == 4:
            with_leaves = family._replace(axes=(*family.axes, LEAVES))
            boxes = [_translated(one, with_leaves) if entries[n] else None for n, one in enumerate(translations)]
            layers.append(Layer(with_leaves, boxes, Index(boxes)))
    return Layers(entries, layers, UNTRANSLATED)


def target(one: Translation) -> str:
    """What becomes of a packet, in words."""
    address = one.source if one.source is not None else one.destination or 0
    text = ".".join(map(str, address.to_bytes(4, "big")))
    return f"-> {text}:{one.port}" if one.port else f"-> {text}"


def _translated(one: Translation, family: Family) -> Box | None:
    rule = Rule(
        action=Action.ALLOW,
        sides=one.sides,
        version=4,
        protocols=one.protocols,
        sources=one.sources,
        destinations=one.destinations,
        destination_ports=one.destination_ports,
        tracking=1,
    )
    made = space.box(rule, family)
    leaves: Intervals = tuple((bit, bit) for bit in range(3) if not one.leaves or one.leaves >> bit & 1)
    return (*made[:-1], leaves) if made else None


def point(made: Layers, sample: Sample, work: Work) -> tuple[Entry, ...]:
    """Who decides about one packet."""
    for layer in made.layers:
        if layer.family == sample.family:
            return next(trail for _, trail in made.decide(layer, sample.box(), work))
    raise KeyError(sample.family.name)
