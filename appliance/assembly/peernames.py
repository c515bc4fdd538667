"""What the peers of a wg-quick file are called. The format has no key for it, so people write it into comments.

Known are the habits of those who write such files by hand and of the usual generators:

    # Name = alice            # friendly_name = alice        # Client: alice (…)        ### Client alice
    # BEGIN_PEER alice        ### begin alice ###            [Peer] # alice             # alice

above ``[Peer]`` without a blank line between, behind it, or in its section. One word alone counts only right above,
behind or right below ``[Peer]``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from appliance.assembly.findings import scrub

_SECTION: Final = re.compile(r"\s*\[\s*(\w+)\s*\]\s*(?:#(.*))?$")
_COMMENT: Final = re.compile(r"\s*#+\s*(.*?)\s*#*\s*$")
_SAID: Final = re.compile(
    r"(?:(?:name|friendly_name|client|peer)\s*[=:]\s*|(?:client|peer|begin_peer|begin)\s+)(.+)", re.IGNORECASE
)
_ENDS: Final = re.compile(r"end(_peer)?\b", re.IGNORECASE)
_ALONE: Final = re.compile(r"[A-Za-z_][\w.@+-]*")
_BEHIND: Final = re.compile(r"\s*\([^()]*\)\s*$")
_LONGEST: Final = 64
# Settings that somebody commented out
_KEYS: Final = frozenset(
    "privatekey listenport fwmark address mtu table dns publickey presharedkey allowedips endpoint "
    "persistentkeepalive".split()
)


def names(text: str) -> dict[int, str]:
    """The name of each peer that has one, by the line of its ``[Peer]``."""
    found: dict[int, str] = {}
    lines = text.split("\n")
    begin = next((i for i, line in enumerate(lines) if _section(line)), len(lines))
    for i in range(begin, len(lines)):
        if _section(lines[i]) == "peer" and (name := _name(lines, i)):
            found[i + 1] = name
    return found


def _section(line: str) -> str:
    match = _SECTION.match(line)
    return match[1].lower() if match else ""


def _name(lines: Sequence[str], at: int) -> str:
    above = at
    while above and _comment(lines[above - 1]) is not None:
        above -= 1
    below = at + 1
    while below < len(lines) and not _section(lines[below]):
        below += 1
    # Of the comments before the next [Peer], those right above it are that one's
    while below < len(lines) and below > at + 1 and _comment(lines[below - 1]) is not None:
        below -= 1
    own = [_comment(line) or "" for line in lines[above:at]]
    inside = [comment for line in lines[at + 1 : below] if (comment := _comment(line)) is not None]
    section = _SECTION.match(lines[at])
    behind = (section[2] or "").strip() if section else ""
    for comment in (behind, *reversed(own), *inside):
        if (said := _SAID.fullmatch(comment)) and not _ENDS.match(comment) and (name := _clean(said[1])):
            return name
    right_below = _comment(lines[at + 1]) if at + 1 < below else None
    for comment in (behind, own[-1] if own else "", right_below or ""):
        if _ALONE.fullmatch(comment) and comment.lower() not in _KEYS and not _ENDS.match(comment):
            return comment[:_LONGEST]
    return ""


def _comment(line: str) -> str | None:
    """What a line says that is only a comment."""
    match = _COMMENT.match(line)
    return match[1] if match else None


def _clean(name: str) -> str:
    name = _BEHIND.sub("", name).strip().strip('"')
    is_good = 0 < len(name) <= _LONGEST and name.isprintable() and '"' not in name
    return name if is_good and scrub(name) == name else ""
