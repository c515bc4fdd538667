"""A configuration as the administrator has it: peers, and rules as text. What is signed is made of it here."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from appliance.ctl.trouble import Exit, Place, Trouble
from appliance.guest.settings import SettingsError
from appliance.signed import canonical, peers
from appliance.signed.peers import PeerEntry
from appliance.signed.statements import Commit

RULES_FILE: Final = "rules"
"""What the rules are called in counters, logs and explanations."""

_NO_RULES: Final = b"\n"
_MOST_RULES: Final = 1 << 20  # bytes of text


class Configuration(NamedTuple):
    """``peers`` in the order of their numbers; ``rules`` in the language of rules (docs/filter.md)."""

    peers: tuple[PeerEntry, ...] = ()
    rules: str = ""


class Sections(NamedTuple):
    """The bytes that a commit speaks of."""

    peers: bytes
    ruleset: bytes
    rules: bytes

    def digests(self) -> dict[str, bytes]:
        return {name: canonical.digest(content) for name, content in self._asdict().items()}

    def missing(self, known: Iterable[Commit]) -> Sections:
        """The same without what a box has that knows these commits."""
        there = {getattr(commit, name) for commit in known for name in self._fields}
        return Sections(*(b"" if canonical.digest(content) in there else content for content in self))


def parse_peers(section: bytes) -> tuple[PeerEntry, ...]:
    """Errors: Trouble (INVALID)."""
    try:
        return peers.parse(section)
    except SettingsError as error:
        raise Trouble(Exit.INVALID, "the section of peers cannot be read", "", [Place(error.path, error.why)]) from None


def of_sections(peers_section: bytes, rules: bytes) -> Configuration:
    """What was signed, as it is edited. Errors: Trouble (INVALID)."""
    return Configuration(parse_peers(peers_section), "" if rules == _NO_RULES else rules.decode(errors="replace"))


def names(entries: Iterable[PeerEntry]) -> dict[str, list[int]]:
    """What peers may be called in a rule, and their numbers."""
    found: dict[str, list[int]] = {}
    for peer in entries:
        for called in (peer.name, base64.b64encode(peer.public_key).decode()):
            found.setdefault(called, []).append(peer.number)
    return found


def compile_rules(made: Configuration, tell: Callable[[float], None] | None = None) -> Any:
    """The rules, read with the peers that they name (``appliance.rules.read.Loaded``). Errors: Trouble (INVALID) with
    every mistake.
    """
    from appliance.rules.problems import RulesError
    from appliance.rules.read import from_text

    try:
        return from_text(made.rules, RULES_FILE, names(made.peers), tell)
    except RulesError as refused:
        places = [Place(f"{one.file}:{one.place.line}", f"{one.said()}{_pointed(one)}") for one in refused.problems]
        count = len(places)
        raise Trouble(
            Exit.INVALID, f"the rules have {count} mistake{'' if count == 1 else 's'}", "septumctl rules edit", places
        ) from None


def _pointed(problem: Any) -> str:
    excerpt = problem.excerpt()
    return f"\n{excerpt}" if excerpt else ""


def build(made: Configuration, tell: Callable[[float], None] | None = None) -> tuple[Sections, Sequence[str]]:
    """What is signed of it, and warnings. Errors: Trouble (INVALID) with all that is wrong."""
    from components.filter.ruleset import encode

    try:
        section = peers.encode(made.peers)
    except SettingsError as error:
        place = Place(named(error.path, made.peers), error.why)
        raise Trouble(Exit.INVALID, "the peers have a mistake", "septumctl config edit", [place]) from None
    _check_text(made.rules)
    loaded = compile_rules(made, tell)
    # Of a section, no bytes mean that the box has it already: one without rules has a line
    sections = Sections(section, canonical.encode(encode(loaded.ruleset)), made.rules.encode() or _NO_RULES)
    limits = {"peers": peers.LARGEST, "ruleset": 4 << 20, "rules": _MOST_RULES}
    for name, most in limits.items():
        if (size := len(getattr(sections, name))) > most:
            raise Trouble(Exit.INVALID, f"the {name} have {size:,} bytes; {most:,} is all that a box takes")
    return sections, [one.headline() for one in loaded.warnings]


def ruleset(made: Configuration, tell: Callable[[float], None] | None = None) -> bytes:
    """The digest of what its rules mean. Errors: Trouble (INVALID)."""
    from components.filter.ruleset import encode

    return canonical.digest(canonical.encode(encode(compile_rules(made, tell).ruleset)))


def _check_text(rules: str) -> None:
    """Rules are shown on terminals: nothing in them may be an order to one. Errors: Trouble (INVALID)."""
    places = [
        Place(f"{RULES_FILE}:{number}", "has a character that cannot be printed")
        for number, line in enumerate(rules.split("\n"), 1)
        if not line.replace("\t", " ").isprintable()
    ]
    if places:
        raise Trouble(Exit.INVALID, "the rules have characters that cannot be printed", "septumctl rules edit", places)


def named(path: str, entries: Sequence[PeerEntry]) -> str:
    """``peers[12].endpoint`` with the name of the peer: people do not count to twelve."""
    import re

    if (match := re.match(r"peers\[(\d+)\]", path)) and int(match[1]) < len(entries):
        return f"{path} ({sorted(entries)[int(match[1])].name})"
    return path


def free_number(*lists: Iterable[PeerEntry]) -> int:
    """The lowest number that none of them uses. Errors: Trouble if there is none."""
    taken = {peer.number for entries in lists for peer in entries}
    for number in range(1, peers.MOST_PEERS + 1):
        if number not in taken:
            return number
    raise Trouble(Exit.INVALID, f"there are {peers.MOST_PEERS} peers, which is all that a box takes")


# differences ----------------------------------------------------------------------------------------------------------


class PeerChange(NamedTuple):
    """``before`` None: added; ``after`` None: removed."""

    before: PeerEntry | None
    after: PeerEntry | None

    @property
    def kind(self) -> str:
        return "added" if self.before is None else "removed" if self.after is None else "changed"

    def fields(self) -> list[tuple[str, str, str]]:
        """What of it changes: name of the field, and both values as text."""
        old, new = (_shown(one) if one is not None else {} for one in (self.before, self.after))
        return [
            (key, old.get(key, ""), new.get(key, "")) for key in (new or old) if old.get(key, "") != new.get(key, "")
        ]


def _shown(peer: PeerEntry) -> dict[str, str]:
    return {
        "name": peer.name,
        "public key": base64.b64encode(peer.public_key).decode(),
        "allowed ips": ", ".join(peer.allowed_ips),
        "endpoint": peer.endpoint,
        "keepalive": f"{peer.keepalive} s" if peer.keepalive else "",
        "preshared key": f"sealed {canonical.digest(peer.preshared_key).hex()[:8]}" if peer.preshared_key else "",
    }


def peer_changes(before: Iterable[PeerEntry], after: Iterable[PeerEntry]) -> list[PeerChange]:
    """In the order of the peers' numbers."""
    old, new = ({peer.number: peer for peer in entries} for entries in (before, after))
    return [
        PeerChange(old.get(number), new.get(number))
        for number in sorted(old.keys() | new.keys())
        if old.get(number) != new.get(number)
    ]


# merging --------------------------------------------------------------------------------------------------------------


class Merged(NamedTuple):
    """``conflicts``: what both sides changed, and each otherwise."""

    made: Configuration
    conflicts: Sequence[str]


def merge(base: Configuration, ours: Configuration, theirs: Configuration, is_theirs_kept: bool = False) -> Merged:
    """What both sides made of ``base``, put together; where they conflict, ours stands, or theirs.

    Theirs are in force: new peers of ours that took a number of theirs get another.
    """
    old, mine, other = ({peer.number: peer for peer in one.peers} for one in (base, ours, theirs))
    merged, conflicts = dict(other), []
    for number in sorted(old.keys() | mine.keys()):
        was, is_ours, is_theirs = old.get(number), mine.get(number), other.get(number)
        if is_ours in (was, is_theirs):
            continue
        if was is None and is_theirs is not None:
            assert is_ours is not None  # it is neither `was` nor theirs
            free = free_number(merged.values(), base.peers, ours.peers)
            merged[free] = is_ours._replace(number=free)
            continue
        if is_theirs != was:
            conflicts.append(f"peer {next(one.name for one in (is_ours, is_theirs, was) if one is not None)}")
            if is_theirs_kept:
                continue
        if is_ours is None:
            merged.pop(number, None)
        else:
            merged[number] = is_ours
    rules = theirs.rules if ours.rules == base.rules else ours.rules
    if ours.rules not in (base.rules, theirs.rules) and theirs.rules != base.rules:
        conflicts.append("the rules")
        rules = theirs.rules if is_theirs_kept else ours.rules
    return Merged(Configuration(tuple(merged[number] for number in sorted(merged)), rules), conflicts)


def as_json(peer: PeerEntry) -> Mapping[str, Any]:
    """A peer for machines. The preshared key is sealed: nobody here could read it."""
    return {
        "number": peer.number,
        "name": peer.name,
        "public_key": base64.b64encode(peer.public_key).decode(),
        "allowed_ips": list(peer.allowed_ips),
        "endpoint": peer.endpoint or None,
        "keepalive": peer.keepalive,
        "has_preshared_key": bool(peer.preshared_key),
    }
