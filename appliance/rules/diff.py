"""Which packets two rule sets treat differently, each with an example: exact, for every packet there is.

A packet that no changed rule matches is matched by the same rules in the same order in both sets, and so treated the
same. Only what changed rules match is looked at: in pieces in which either set decides everything the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import product
from typing import NamedTuple

from appliance.rules import layers, packets, space
from appliance.rules.layers import Layers
from appliance.rules.packets import Sample
from appliance.rules.space import Entry
from appliance.rules.work import TooMuch, Work
from components.filter.model import Rule, RuleSet, Translation

VERDICT, SOURCE, DESTINATION = "verdict", "source", "destination"


class Change(NamedTuple):
    """Packets that ``before`` decided about and ``after`` does now, otherwise: entries tried under conditions (rate,
    hours, ...), and the one that decides at last. ``what`` is their verdict, or what their source or destination
    becomes.
    """

    what: str
    before: tuple[Entry, ...]
    after: tuple[Entry, ...]
    example: str


class Diff(NamedTuple):
    """``gave_up``: rules (is it one of the new set, and its number) about whose packets not everything is known."""

    changes: list[Change]
    gave_up: list[tuple[bool, int]]


def diff(
    old: RuleSet,
    new: RuleSet,
    now: float,
    peers: Mapping[int, str] | None = None,
    progress: Callable[[float], None] | None = None,
    work: Work | None = None,
) -> Diff:
    """Every change there is at the time ``now``, by the rules that decide. Peers of both sets are numbered alike."""
    work = work or Work(progress)
    found = Diff([], [])
    with_link = space.has_link(old, new)
    before, after = layers.of_rules(old, now, with_link), layers.of_rules(new, now, with_link)
    removed, added = _changed([_bare(rule) for rule in old.rules], [_bare(rule) for rule in new.rules])
    if old.lan != new.lan:
        removed += [space.LAN] if old.lan else []
        added += [space.LAN] if new.lan else []
    _compare(VERDICT, before, after, (removed, added), peers or {}, work, found)
    for what, is_source in ((SOURCE, True), (DESTINATION, False)):
        ours, theirs = [_plain(one) for one in old.translations], [_plain(one) for one in new.translations]
        if ours != theirs:
            before = layers.of_translations(old.translations, is_source)
            after = layers.of_translations(new.translations, is_source)
            _compare(what, before, after, _changed(ours, theirs), peers or {}, work, found)
    return found


def _bare(rule: Rule) -> Rule:
    """What of a rule makes a verdict."""
    return rule._replace(name="", file=0, line=0, comment="", log=False)


def _plain(one: Translation) -> Translation:
    return one._replace(name="", file=0, line=0)


def _changed(old: Sequence[object], new: Sequence[object]) -> tuple[list[int], list[int]]:
    """The numbers of those that are only in one of the two, or in another order."""
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    removed, added = list[int](), list[int]()
    for tag, from_old, to_old, from_new, to_new in matcher.get_opcodes():
        if tag != "equal":
            removed += range(from_old, to_old)
            added += range(from_new, to_new)
    return removed, added


def _compare(
    what: str,
    before: Layers,
    after: Layers,
    changed: tuple[list[int], list[int]],
    peers: Mapping[int, str],
    work: Work,
    found: Diff,
) -> None:
    examples: dict[tuple[tuple[Entry, ...], tuple[Entry, ...]], tuple[int, Sample]] = {}
    every = [(is_new, number) for is_new, numbers in enumerate(changed) for number in numbers]
    for count, (is_new, number) in enumerate(every):
        work.begin(count / len(every))
        side = after if is_new else before
        # None for a rule that has expired; two for lan
        ats = [i for i, entry in enumerate(side.entries) if entry is not None and entry.number == number]
        try:
            for at, (one, other, own) in product(ats, zip(before.layers, after.layers, side.layers, strict=True)):
                if (whole := own.boxes[at]) is None:
                    continue
                for piece, old_trail in before.decide(one, whole, work):
                    for part, new_trail in after.decide(other, piece, work):
                        if _outcome(old_trail) != _outcome(new_trail):
                            _keep(examples, (old_trail, new_trail), packets.sample(one.family, part))
        except TooMuch:
            found.gave_up.append((bool(is_new), number))
    for (old_trail, new_trail), (_, sample) in examples.items():
        found.changes.append(Change(what, old_trail, new_trail, packets.say(sample, peers)))


def _keep(
    examples: dict[tuple[tuple[Entry, ...], tuple[Entry, ...]], tuple[int, Sample]],
    key: tuple[tuple[Entry, ...], tuple[Entry, ...]],
    sample: Sample,
) -> None:
    """The most ordinary example of each change: a packet that opens something, if there is one."""
    is_new, is_syn = sample.on(space.STATE) == space.NEW, sample.on(space.FLAGS) in (None, 2)
    rank = 2 * is_new + is_syn
    if key not in examples or rank > examples[key][0]:
        examples[key] = rank, sample


def _outcome(trail: tuple[Entry, ...]) -> tuple[object, ...]:
    """What happens, whoever decides it: a condition that changes nothing is none."""
    *conditional, last = trail
    said: list[object] = [last.action]
    for entry in reversed(conditional):
        if len(said) > 1 or entry.action != last.action:
            said.append((entry.when, entry.action))
    return tuple(said)
