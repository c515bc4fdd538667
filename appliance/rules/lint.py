"""Rules that do not do what they seem to: found by exact algebra over all packets, not by trying some.

| kind | what is meant |
| --- | --- |
| `empty` | no packet can match: its own conditions exclude each other |
| `expired` | its date is over |
| `duplicate` | an earlier rule matches the same packets and does the same |
| `redundant` | an earlier rule matches all that this one would, and does the same |
| `shadowed` | an earlier rule matches all that this one would, and does something else |
| `unreachable` | several earlier rules together leave nothing for it |
| `overlap` | it and an earlier rule match some packets in common, neither all of the other's, and do different things |
| `never-hit` | it has matched nothing since the counters began |
| `unused` | a set of addresses or ports that no rule uses |
| `gave-up` | too much work to say: nothing is known about whether this rule can be reached |

A rule with a rate, a quota, hours or a date still to come takes nothing away from later rules for certain, and is
never what shadows another. Overlaps of rules for established or related packets alone are left out: letting answers
through first is what everybody means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from appliance.rules import packets, space
from appliance.rules.layers import Layer, of_rules
from appliance.rules.space import LAN, Box
from appliance.rules.work import TooMuch, Work
from components.filter.model import Action, Rule, RuleSet, Tracking

_POINTS: Final = 32  # packets tried before the proof that there is none
_MOST_TOLD: Final = 3  # rules named as the reason for one finding

KINDS: Final = "empty expired duplicate redundant shadowed unreachable overlap never-hit unused gave-up".split()


class Lint(NamedTuple):
    """One finding about rule ``number`` (from 0). ``others`` are the rules that are to blame, ``example`` a packet."""

    kind: str
    number: int
    others: tuple[int, ...]
    why: str
    example: str = ""


def lint(
    ruleset: RuleSet,
    now: float,
    peers: Mapping[int, str] | None = None,
    hits: Sequence[int] | None = None,
    progress: Callable[[float], None] | None = None,
    work: Work | None = None,
) -> list[Lint]:
    """Everything there is to say about ``ruleset`` at the time ``now``, in the order of the rules.

    ``hits`` are packets counted a rule, if a running box was asked; ``peers`` are names by number, for examples.
    """
    return _Linter(ruleset, now, peers or {}, work or Work(progress)).run(hits)


class _Linter:
    def __init__(self, ruleset: RuleSet, now: float, peers: Mapping[int, str], work: Work) -> None:
        self._rules = ruleset.rules
        self._lines = {number: f"line {rule.line}" for number, rule in enumerate(ruleset.rules)} | {LAN: "lan"}
        self._peers = peers
        self._work = work
        self._others: dict[Action, int] = {}
        built = of_rules(ruleset, now, space.has_link(ruleset))
        self._entries, self._layers = built.entries, built.layers
        self._before = len(built.entries) - len(ruleset.rules)
        self._certain = space.bits(at for at, one in enumerate(self._entries) if one is not None and not one.when)

    def run(self, hits: Sequence[int] | None) -> list[Lint]:
        found: list[Lint] = []
        for number, rule in enumerate(self._rules):
            at = number + self._before
            self._work.begin(number / len(self._rules))
            try:
                dead = self._dead(number, at, rule)
                found += [dead] if dead else self._overlaps(number, at, rule)
            except TooMuch:
                dead = Lint("gave-up", number, (), "too much work to say whether anything reaches this rule")
                found.append(dead)
            if dead is None and hits is not None and number < len(hits) and not hits[number]:
                found.append(Lint("never-hit", number, (), "has matched no packet since the counters began"))
        return found

    # What never matches -----------------------------------------------------------------------------------------------

    def _dead(self, number: int, at: int, rule: Rule) -> Lint | None:
        if self._entries[at] is None:
            return Lint("expired", number, (), "its date is over: it matches nothing any more")
        layers = [layer for layer in self._layers if layer.boxes[at] is not None]
        if not layers:
            return Lint("empty", number, (), "no packet can match: its conditions exclude each other")
        earlier = self._certain & ((1 << at) - 1)
        whole = self._holders(layers, at, earlier)
        if whole is not None:
            return self._held(number, whole, rule, layers, at)
        takers: set[int] = set()
        for layer in layers:
            taken = self._taken(layer, at, earlier)
            if taken is None:
                return None
            takers |= taken
        blamed = tuple(sorted(taker - self._before for taker in takers))
        named = ", ".join(self._line(other) for other in blamed[:_MOST_TOLD])
        more = f" and {len(blamed) - _MOST_TOLD} more" if len(blamed) > _MOST_TOLD else ""
        return Lint("unreachable", number, blamed, f"{named}{more} together take all that it would match")

    def _holders(self, layers: Sequence[Layer], at: int, earlier: int) -> int | None:
        """The first earlier rule that alone matches all that this one does."""
        bits = earlier
        for layer in layers:
            one = layer.boxes[at]
            assert one is not None
            bits &= layer.lookup.holding(one)
        for other in space.numbers(bits):
            self._work.step()
            if all(_within(layer, at, other) for layer in layers):
                return other
        return None

    def _held(self, number: int, whole: int, rule: Rule, layers: Sequence[Layer], at: int) -> Lint:
        other = whole - self._before
        blamed = (other,)
        if other < 0:
            return Lint(
                "shadowed", number, blamed, "lan drops all that it would match: no such source comes from there"
            )
        line = self._line(other)
        if self._rules[other].action != rule.action:
            does = self._rules[other].action.name.lower()
            return Lint("shadowed", number, blamed, f"{line} matches all that it would, and does {does}")
        if all(layer.boxes[at] == layer.boxes[whole] for layer in self._layers):
            return Lint("duplicate", number, blamed, f"{line} matches the same packets and does the same")
        return Lint("redundant", number, blamed, f"{line} matches all that it would and does the same")

    def _taken(self, layer: Layer, at: int, earlier: int) -> set[int] | None:
        """Who takes all of the rule's packets of a family from it; None if some are left."""
        one = layer.boxes[at]
        assert one is not None
        takers: set[int] = set()
        return None if self._left(layer, one, earlier, takers) else takers

    def _left(self, layer: Layer, whole: Box, earlier: int, takers: set[int] | None = None) -> Box | None:
        """Some of what ``earlier`` entries leave of a box; None for nothing."""
        bits = layer.lookup.meeting(whole) & earlier
        if not bits:
            return whole
        if (point := self._free(layer, whole, earlier)) is not None:
            return point
        others = list(space.numbers(bits))
        waiting = [(whole, 0)]
        while waiting:
            piece, start = waiting.pop()
            for at in range(start, len(others)):
                self._work.step()
                taken = layer.boxes[others[at]]
                assert taken is not None
                pieces = space.minus(piece, taken)
                if pieces == [piece]:
                    continue
                if takers is not None:
                    takers.add(others[at])
                waiting += [(rest, at + 1) for rest in pieces]
                break
            else:
                return piece
        return None

    def _free(self, layer: Layer, whole: Box, earlier: int) -> Box | None:
        """A single packet that is left: one is enough to know that a rule can be reached, and mostly soon found. That
        none was found says nothing.
        """
        pick = Random(0)
        point: Box
        for number in range(_POINTS):
            if number:
                point = tuple(((one, one),) for one in (pick.randint(*pick.choice(axis)) for axis in whole))
            else:
                point = packets.sample(layer.family, whole).box()
            for other in space.numbers(layer.lookup.meeting(point) & earlier):
                self._work.step()
                taken = layer.boxes[other]
                if taken is not None and space.within(point, taken):
                    break
            else:
                return point
        return None

    # What contradicts -------------------------------------------------------------------------------------------------

    def _overlaps(self, number: int, at: int, rule: Rule) -> list[Lint]:
        if rule.tracking and not rule.tracking & Tracking.NEW:
            return []
        found: dict[int, str] = {}
        for layer in self._layers:
            one = layer.boxes[at]
            if one is None:
                continue
            for other in space.numbers(layer.lookup.meeting(one) & self._candidates(at, rule)):
                if other - self._before in found:
                    continue
                self._work.step()
                common = space.meet(one, layer.boxes[other] or one)
                if common is None or self._contains(at, other) or self._contains(other, at):
                    continue
                if (left := self._left(layer, common, self._certain & ((1 << other) - 1))) is None:
                    continue
                example = packets.say(packets.sample(layer.family, left), self._peers)
                found[other - self._before] = example
                if len(found) >= _MOST_TOLD:
                    return self._told(number, found)
        return self._told(number, found)

    def _told(self, number: int, found: Mapping[int, str]) -> list[Lint]:
        return [
            Lint(
                "overlap",
                number,
                (other,),
                f"{self._line(other)} is tried first and does {self._rules[other].action.name.lower()} for some of the "
                "same packets",
                example,
            )
            for other, example in found.items()
        ]

    def _candidates(self, at: int, rule: Rule) -> int:
        """Earlier rules that do something else, and are not for answers alone."""
        if rule.action not in self._others:
            self._others[rule.action] = space.bits(
                number + self._before
                for number, other in enumerate(self._rules)
                if other.action != rule.action and (not other.tracking or other.tracking & Tracking.NEW)
            )
        return self._others[rule.action] & ((1 << at) - 1)

    def _contains(self, outer: int, inner: int) -> bool:
        return all(_within(layer, inner, outer) for layer in self._layers if layer.boxes[inner] is not None)

    def _line(self, number: int) -> str:
        return self._lines[LAN if number < 0 else number]


def _within(layer: Layer, inner: int, outer: int) -> bool:
    one, other = layer.boxes[inner], layer.boxes[outer]
    return one is not None and other is not None and space.within(one, other)
