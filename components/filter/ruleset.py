"""A rule set as plain data, as it crosses into the domain: lists, tables, numbers and texts, as JSON and TOML know.

Keys are the fields of model.py; a condition that is absent stands for any. Lists of prefixes stand once in ``prefixes``
and are named by their number: a thousand rules about one named set carry it once. Numbers come in rows: a range of
ports is ``[first, last]``, an ICMP type ``[type]`` or ``[type, code]``, a limit ``[packets, octets, seconds, burst]``.

Whoever wrote it is not believed: every number has its bounds, every list its length, and a rule whose conditions
cannot go together is refused.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from appliance.guest.settings import SettingsError, Table
from components.filter.headers import ICMP, ICMPV6, TCP, UDP
from components.filter.model import (
    Action,
    Flags,
    Hours,
    Icmp,
    Limit,
    LinkMatch,
    Prefix,
    Quota,
    Range,
    Rule,
    RuleSet,
    Side,
    Translation,
)

MOST_RULES: Final = 16_384
MOST_TRANSLATIONS: Final = 1024
MOST_OCTETS: Final = 8 << 20  # of the whole as JSON
_ALIVE_EVERY: Final = 250  # rules
_MOST_FILES: Final = 64
_MOST_PREFIXES: Final = 65_536  # in all lists together: each costs memory once more when it is compiled
_MOST_RANGES: Final = 256  # in one condition
_MOST_ITEMS: Final = 64  # of anything else in one condition
_MOST_PEERS: Final = 1024
_LONGEST_NAME: Final = 128
_LONGEST_COMMENT: Final = 256

_SIDES: Final = sum(Side)
_PORT: Final = (0, 65_535)
_COUNT: Final = (0, 2**48)
_WITH_PORTS: Final = frozenset({TCP, UDP})
_VERSION_OF: Final = {4: 4, 16: 6}  # by width of addresses

_LISTED: Final = ("sources", "not_sources", "destinations", "not_destinations")
_PLAIN: Final = ("name", "file", "line", "sides", "version", "tracking", "expires", "log", "comment")


# out ------------------------------------------------------------------------------------------------------------------


def encode(rules: RuleSet) -> dict[str, Any]:
    """The rule set as plain data, from which ``decode`` makes the same again."""
    numbers: dict[tuple[Prefix, ...], int] = {}

    def listed(item: Rule | Translation, keys: tuple[str, ...]) -> dict[str, int]:
        found = {key: getattr(item, key) for key in keys}
        return {key: numbers.setdefault(prefixes, len(numbers)) for key, prefixes in found.items() if prefixes}

    made = {
        "rules": [_encode_rule(rule) | listed(rule, _LISTED) for rule in rules.rules],
        "translations": [
            _encode_translation(one) | listed(one, ("sources", "destinations")) for one in rules.translations
        ],
        "files": list(rules.files),
        "lan": [prefix_text(prefix) for prefix in rules.lan],
    }
    return made | {"prefixes": [[prefix_text(prefix) for prefix in prefixes] for prefixes in numbers]}


def prefix_text(prefix: Prefix) -> str:
    """As people write it: 10.0.0.0/8."""
    address = ipaddress.ip_address(prefix.network.to_bytes(prefix.width, "big"))
    return f"{address}/{prefix.mask.bit_count()}"


def _encode_rule(rule: Rule) -> dict[str, Any]:
    made: dict[str, Any] = {"action": int(rule.action)}
    made |= {key: _bare(getattr(rule, key)) for key in _PLAIN if getattr(rule, key)}
    for key in ("peers", "protocols"):
        if getattr(rule, key):
            made[key] = [int(number) for number in getattr(rule, key)]
    for key in ("source_ports", "destination_ports", "hours"):
        if getattr(rule, key):
            made[key] = [list(row) for row in getattr(rule, key)]
    for key in ("flags", "limit", "quota"):
        if getattr(rule, key) is not None:
            made[key] = list(getattr(rule, key))
    if rule.icmp:
        made["icmp"] = [[one.type] if one.code is None else list(one) for one in rule.icmp]
    if (link := rule.link) is not None:
        made["link"] = {
            "ethertypes": list(link.ethertypes),
            "vlans": [list(one) for one in link.vlans],
            "source": [address.hex(":") for address in link.source],
            "destination": [address.hex(":") for address in link.destination],
            "arp": list(link.arp),
        }
    return made


def _bare(value: object) -> object:
    """An enumeration's member as the number that it is."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _encode_translation(one: Translation) -> dict[str, Any]:
    made: dict[str, Any] = {"name": one.name, "file": one.file, "line": one.line, "sides": int(one.sides)}
    made |= {"leaves": int(one.leaves), "protocols": list(one.protocols), "port": one.port}
    made["destination_ports"] = [list(row) for row in one.destination_ports]
    for key in ("source", "destination"):
        if getattr(one, key) is not None:
            made["to_" + key] = getattr(one, key)
    return made


# in -------------------------------------------------------------------------------------------------------------------


def _nobody() -> None:
    """Nobody wants to know that this goes on."""


def from_json(untrusted_text: bytes, alive: Callable[[], None] = _nobody) -> RuleSet:
    """The rule set of ``encode`` as JSON. ``alive`` is called now and then meanwhile. Errors: SettingsError."""
    if len(untrusted_text) > MOST_OCTETS:
        raise SettingsError("", f"must have at most {MOST_OCTETS} bytes")
    try:
        return decode(json.loads(untrusted_text), alive=alive)
    except (ValueError, RecursionError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError("", "is not JSON") from None


def decode(untrusted_table: Mapping[str, object], path: str = "", alive: Callable[[], None] = _nobody) -> RuleSet:
    """The rule set; ``path`` is where it stands in the settings. Errors: SettingsError with the path in it."""
    reader = Table(untrusted_table, path)
    files = tuple(reader.texts("files", _MOST_FILES, default=[]))
    prefixes = _prefix_lists(reader)
    alive()
    rules = []
    for rule in reader.tables("rules", MOST_RULES):
        rules.append(_rule(rule, prefixes, len(files)))
        if not len(rules) % _ALIVE_EVERY:
            alive()
    translations = tuple(
        _translation(one, prefixes, len(files)) for one in reader.tables("translations", MOST_TRANSLATIONS)
    )
    texts = reader.texts("lan", _MOST_ITEMS, default=[])
    lan = tuple(read_prefix(f"{reader.where('lan')}[{i}]", text) for i, text in enumerate(texts))
    reader.done()
    return RuleSet(tuple(rules), translations, files, lan)


def read_prefix(path: str, text: str) -> Prefix:
    """The prefix that is written like 10.0.0.0/8. Errors: SettingsError."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise SettingsError(path, f"must be a prefix like 10.0.0.0/8 or fd00::/8: {error}") from None
    return Prefix(len(network.network_address.packed), int(network.network_address), int(network.netmask))


def _prefix_lists(reader: Table) -> list[tuple[Prefix, ...]]:
    lists, total = [], 0
    for where, texts in reader.lists("prefixes", 2 * MOST_RULES + _MOST_PREFIXES):
        total += len(texts)
        if total > _MOST_PREFIXES:
            raise SettingsError(where, f"is one too many: all lists together may have {_MOST_PREFIXES} prefixes")
        if not texts:
            raise SettingsError(where, "must not be empty")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise SettingsError(f"{where}[{i}]", "must be a text")
        lists.append(tuple(read_prefix(f"{where}[{i}]", str(text)) for i, text in enumerate(texts)))
    return lists


def _listed(reader: Table, key: str, lists: list[tuple[Prefix, ...]]) -> tuple[Prefix, ...]:
    number = reader.integer(key, -1, len(lists) - 1, default=-1)  # -1: none
    return lists[number] if number >= 0 else ()


def _ranges(reader: Table, key: str, high: int = 65_535) -> tuple[Range, ...]:
    found = tuple(Range(*row) for row in reader.rows(key, _MOST_RANGES, (0, high), (0, high)))
    for i, (first, last) in enumerate(found):
        if first > last:
            raise SettingsError(f"{reader.where(key)}[{i}]", "must not end before it begins")
    return found


def _single(reader: Table, key: str, *bounds: tuple[int, int]) -> tuple[int, ...] | None:
    row = reader.integers(key, len(bounds), 0, _COUNT[1])
    if not row:
        return None
    if len(row) != len(bounds):
        raise SettingsError(reader.where(key), f"must have {len(bounds)} numbers")
    for i, (number, (low, high)) in enumerate(zip(row, bounds, strict=True)):
        if not low <= number <= high:
            raise SettingsError(f"{reader.where(key)}[{i}]", f"must be a whole number in {low} to {high}")
    return row


def _rule(reader: Table, lists: list[tuple[Prefix, ...]], files: int) -> Rule:
    rule = Rule(
        action=Action(reader.integer("action", min(Action), max(Action))),
        name=reader.text("name", default="", longest=_LONGEST_NAME),
        file=reader.integer("file", 0, max(files - 1, 0), default=0),
        line=reader.integer("line", 0, 1 << 24, default=0),
        sides=reader.integer("sides", 0, _SIDES, default=0),
        peers=reader.integers("peers", _MOST_PEERS, 1, 65_535),
        version=reader.integer("version", 0, 6, default=0),
        protocols=reader.integers("protocols", 256, 0, 255),
        sources=_listed(reader, "sources", lists),
        not_sources=_listed(reader, "not_sources", lists),
        destinations=_listed(reader, "destinations", lists),
        not_destinations=_listed(reader, "not_destinations", lists),
        source_ports=_ranges(reader, "source_ports"),
        destination_ports=_ranges(reader, "destination_ports"),
        icmp=tuple(
            Icmp(row[0], row[1] if len(row) > 1 else None)
            for row in reader.rows("icmp", _MOST_ITEMS, (0, 255), (0, 255), least=1)
        ),
        flags=_flags(reader),
        tracking=reader.integer("tracking", 0, 15, default=0),
        link=_link(reader.table("link")),
        limit=_limit(reader),
        quota=_quota(reader),
        expires=reader.integer("expires", 0, 1 << 40, default=0),
        hours=tuple(Hours(*row) for row in reader.rows("hours", _MOST_ITEMS, (1, 127), (0, 1439), (1, 1440))),
        log=reader.flag("log"),
        comment=reader.text("comment", default="", longest=_LONGEST_COMMENT),
    )
    reader.done()
    _check(reader, rule)
    return rule


def _check(reader: Table, rule: Rule) -> None:
    """That the conditions of a rule can go together."""
    protocols = set(rule.protocols)
    if rule.version not in (0, 4, 6):
        raise SettingsError(reader.where("version"), "must be 4, 6, or 0 for any")
    for key in ("source_ports", "destination_ports"):
        if getattr(rule, key) and (not protocols or not protocols <= _WITH_PORTS):
            raise SettingsError(reader.where(key), "only tcp and udp have ports: protocols must be of these")
    if rule.icmp and protocols not in ({ICMP}, {ICMPV6}):
        raise SettingsError(reader.where("icmp"), "protocols must be that of ICMP, or that of ICMPv6")
    if rule.flags is not None and protocols != {TCP}:
        raise SettingsError(reader.where("flags"), "protocols must be that of TCP")
    for key in _LISTED:
        prefixes: tuple[Prefix, ...] = getattr(rule, key)
        if rule.version and any(_VERSION_OF[prefix.width] != rule.version for prefix in prefixes):
            raise SettingsError(reader.where(key), f"must be of IPv{rule.version}")
    if rule.peers and rule.sides & ~Side.TUNNEL:
        raise SettingsError(reader.where("peers"), "packets of a peer come from the tunnel alone")
    for i, hours in enumerate(rule.hours):
        if hours.first >= hours.last:
            raise SettingsError(f"{reader.where('hours')}[{i}]", "must not end before it begins")


def _flags(reader: Table) -> Flags | None:
    row = _single(reader, "flags", (1, 255), (0, 255))
    if row is None:
        return None
    if row[1] & ~row[0]:
        raise SettingsError(reader.where("flags"), "asks for a flag that is not looked at: it never matches")
    return Flags(*row)


def _limit(reader: Table) -> Limit | None:
    row = _single(reader, "limit", (0, 10**9), (0, 10**12), (1, 7 * 86_400), (1, 10**12))
    if row is None:
        return None
    if bool(row[0]) == bool(row[1]):
        raise SettingsError(reader.where("limit"), "must count packets or bytes")
    return Limit(*row)


def _quota(reader: Table) -> Quota | None:
    row = _single(reader, "quota", _COUNT, _COUNT)
    if row is None:
        return None
    if not any(row):
        raise SettingsError(reader.where("quota"), "must count packets or bytes")
    return Quota(*row)


def _addresses(reader: Table, key: str) -> tuple[bytes, ...]:
    """MAC addresses."""
    found = []
    for i, text in enumerate(reader.texts(key, _MOST_ITEMS, default=[])):
        try:
            address = bytes.fromhex(text.replace(":", ""))
        except ValueError:
            address = b""
        if len(address) != 6:
            raise SettingsError(f"{reader.where(key)}[{i}]", "must be an address like 02:00:5e:10:00:01")
        found.append(address)
    return tuple(found)


def _link(reader: Table | None) -> LinkMatch | None:
    if reader is None:
        return None
    made = LinkMatch(
        ethertypes=reader.integers("ethertypes", _MOST_ITEMS, 0, 65_535),
        vlans=_ranges(reader, "vlans", 4095),
        source=_addresses(reader, "source"),
        destination=_addresses(reader, "destination"),
        arp=reader.integers("arp", _MOST_ITEMS, 0, 65_535),
    )
    reader.done()
    return made


def _translation(reader: Table, lists: list[tuple[Prefix, ...]], files: int) -> Translation:
    source, destination = (reader.integer(key, -1, 2**32 - 1, default=-1) for key in ("to_source", "to_destination"))
    made = Translation(
        name=reader.text("name", default="", longest=_LONGEST_NAME),
        file=reader.integer("file", 0, max(files - 1, 0), default=0),
        line=reader.integer("line", 0, 1 << 24, default=0),
        sides=reader.integer("sides", 1, _SIDES),
        leaves=reader.integer("leaves", 0, _SIDES, default=0),
        protocols=reader.integers("protocols", 256, 0, 255),
        sources=_listed(reader, "sources", lists),
        destinations=_listed(reader, "destinations", lists),
        destination_ports=_ranges(reader, "destination_ports"),
        source=None if source < 0 else source,
        destination=None if destination < 0 else destination,
        port=reader.integer("port", 0, 65_535, default=0),
    )
    reader.done()
    protocols = set(made.protocols)
    if (made.source is None) == (made.destination is None):
        raise SettingsError(reader.where("to_source"), "either this or to_destination must be given")
    if made.source is not None and made.port:
        raise SettingsError(reader.where("port"), "goes with to_destination: source ports are the filter's own choice")
    if made.leaves and made.destination is not None:
        raise SettingsError(reader.where("leaves"), "goes with to_source: what is forwarded goes where its address is")
    if (made.port or made.destination_ports) and (not protocols or not protocols <= _WITH_PORTS):
        raise SettingsError(reader.where("protocols"), "only tcp and udp have ports")
    if any(prefix.width != 4 for prefix in (*made.sources, *made.destinations)):
        raise SettingsError(reader.where("destinations"), "must be of IPv4")
    for address in (made.source, made.destination):
        if address is not None and not 1 << 24 <= address < 224 << 24:
            raise SettingsError(reader.where("to_source"), "must be the address of a host")
    return made
