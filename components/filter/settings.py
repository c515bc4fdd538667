"""Settings of the filter: ``ruleset``, compiled from a file of rules, or in a managed box ``trust``, and the rules come
with what administrators signed; ``shards``, which the assembly fills in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from appliance.guest.settings import SettingsError, Table
from appliance.signed.trust import Trust, read_trust
from components.filter.model import Prefix, RuleSet
from components.filter.ruleset import decode, read_prefix

_MOST_SHARDS: Final = 8
_MOST_PREFIXES: Final = 65_536


class FilterSettings(NamedTuple):
    """What the filter goes by, without which nothing passes; and where several pairs of crypto domains share the peers,
    the prefixes of each. With ``trust`` nothing passes until rules come that somebody signed who may.
    """

    ruleset: RuleSet
    shards: tuple[tuple[Prefix, ...], ...] = ()
    trust: Trust | None = None


def _shard(reader: Table) -> tuple[Prefix, ...]:
    texts = reader.texts("allowed_ips", _MOST_PREFIXES)
    reader.done()
    return tuple(read_prefix(f"{reader.where('allowed_ips')}[{i}]", text) for i, text in enumerate(texts))


def parse(role: str, table: Mapping[str, object]) -> FilterSettings:
    """The settings of the filter. Errors: SettingsError."""
    if role != "filter":
        raise SettingsError("", f"the filter component has no role {role!r}")
    reader = Table(table)
    ruleset = reader.mapping("ruleset")
    shards = tuple(_shard(shard) for shard in reader.tables("shards", _MOST_SHARDS))
    trust = read_trust(reader)
    reader.done()
    if trust is not None and ruleset is not None:
        raise SettingsError("ruleset", "is not set in a managed box: rules come with what administrators commit")
    return FilterSettings(RuleSet() if ruleset is None else decode(ruleset, "ruleset"), shards, trust)
