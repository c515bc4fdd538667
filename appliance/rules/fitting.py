"""Rules that are well written, and for another box."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.rules.problems import Place, Problem
from components.filter.model import RuleSet, Side


def unfit(ruleset: RuleSet, sides: int, has_frames: bool, lines: Sequence[str]) -> list[Problem]:
    """What of a rule set a box cannot do (a bridge translates nothing), and (warnings) what can never match in it.

    ``sides`` are the bits of those that its packets come from; ``has_frames``: it passes frames.
    """
    found: list[Problem] = []

    def say(line: int, why: str, is_warning: bool = True) -> None:
        text = lines[line - 1] if 0 < line <= len(lines) else ""
        column = len(text) - len(text.lstrip()) + 1
        place = Place(line, column, len(text.split("#")[0].rstrip()) - column + 1)
        found.append(Problem(ruleset.files[0], place, text, why, "", is_warning))

    for rule in ruleset.rules:
        if rule.sides and not rule.sides & sides:
            say(rule.line, f"this rule never matches: in this box nothing comes from {_named(rule.sides)}")
        elif rule.link is not None and not has_frames:
            say(rule.line, "this rule never matches: it is about Ethernet frames, and this box passes IP packets")
    for one in ruleset.translations:
        if has_frames:
            say(one.line, "a bridge translates nothing: it has no address of its own", is_warning=False)
        elif not one.sides & sides:
            say(one.line, f"this never matches: in this box nothing comes from {_named(one.sides)}")
        elif one.leaves and not one.leaves & sides:
            say(one.line, f"this never matches: in this box nothing leaves by {_named(one.leaves)}")
    is_split = sides == sum(Side)
    if is_split and not any(one.source is not None and one.leaves in (0, Side.BLACK) for one in ruleset.translations):
        why = "nothing is translated (nat … to black): in clear, the LAN's own addresses are seen outside"
        hint = "that is right where the provider routes the LAN's addresses to this box, and for IPv6"
        found.append(Problem(ruleset.files[0], Place(0), "", why, hint, True))
    return found


def _named(sides: int) -> str:
    return " or ".join(side.name.lower() for side in Side if sides & side)
