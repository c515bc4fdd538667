"""Settings of the filter in a box in line: ``ruleset``, the compiled rules; for a box that sends some packets through a
tunnel and lets others pass in clear also ``clear``, the prefixes that are reached without the tunnel, and ``tunnel``,
those of the peers, which the assembly fills in. The longest prefix decides, and what fits none belongs to the tunnel,
where it has no peer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from appliance.guest.settings import SettingsError, Table
from components.filter.model import Prefix, RuleSet, Side
from components.filter.ruleset import decode, read_prefix
from components.filter.ways import Ways

_MOST_CLEAR: Final = 1024
_MOST_TUNNEL: Final = 65_536


class InlineSettings(NamedTuple):
    """What the filter goes by, and where what comes from the red side leaves."""

    ruleset: RuleSet
    ways: Ways


def _ruleset(reader: Table) -> RuleSet:
    ruleset = reader.mapping("ruleset")
    if ruleset is None:
        raise SettingsError(reader.where("ruleset"), "is missing; it is compiled from the file that `rules` names")
    return decode(ruleset, reader.where("ruleset"))


def _bridge(reader: Table) -> InlineSettings:
    ruleset = _ruleset(reader)
    if ruleset.translations:
        why = "has rules that translate addresses (nat, forward): a bridge has none to translate to"
        raise SettingsError(reader.where("ruleset"), why)
    return InlineSettings(ruleset, Ways(Side.BLACK, is_bridge=True))


def _split(reader: Table) -> InlineSettings:
    ruleset = _ruleset(reader)
    tunnel = _prefixes(reader, "tunnel", reader.texts("tunnel", _MOST_TUNNEL, default=[]))  # a plan has no peers yet
    clear = _prefixes(reader, "clear", reader.texts("clear", _MOST_CLEAR))
    theirs = set(tunnel)
    for i, prefix in enumerate(clear):
        if prefix in theirs:
            raise SettingsError(f"{reader.where('clear')}[{i}]", "is a tunnel peer's too: what goes there in clear?")
    others = [*((prefix, Side.BLACK) for prefix in clear), *((prefix, Side.TUNNEL) for prefix in tunnel)]
    return InlineSettings(ruleset, Ways(Side.TUNNEL, others))


def _prefixes(reader: Table, key: str, texts: list[str]) -> list[Prefix]:
    return [read_prefix(f"{reader.where(key)}[{i}]", text) for i, text in enumerate(texts)]


_READERS: Final = {"bridge": _bridge, "split": _split}


def parse(role: str, table: Mapping[str, object]) -> InlineSettings:
    """The settings of ``role``. Errors: SettingsError."""
    if role not in _READERS:
        raise SettingsError("", f"the filter component has no role {role!r} that is in line")
    reader = Table(table)
    settings = _READERS[role](reader)
    reader.done()
    return settings
