"""From syntax trees to the filter's model: names are looked up, numbers bounded, contradictions refused."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from lark import Token

from appliance.rules import values, words
from appliance.rules.clashes import clashes
from appliance.rules.lines import Statement
from appliance.rules.problems import Place, Problem
from appliance.rules.syntax import (
    Amount,
    Define,
    End,
    Items,
    Lan,
    Node,
    Origin,
    Protocols,
    Quantity,
    Rate,
    Rule,
    Spans,
    Translate,
    Types,
    Words,
)
from components.filter import model
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
    Side,
    Translation,
)

MOST_RULES: Final = 16_384
MOST_PREFIXES: Final = 65_536  # prefixes of all rules and sets together
_MOST_AMOUNT: Final = 10**12
_MOST_PACKETS_A_PERIOD: Final = 10**9
MOST_RANGES: Final = 256  # of one condition
MOST_ITEMS: Final = 64  # of any other condition
MOST_PEERS: Final = 1024
_MOST_TRANSLATIONS: Final = 1024
_KEY_CHARACTERS: Final = 44
_ALL_SIDES: Final = sum(Side)
_MOST_NAMES: Final = 4096
_BURST_PACKETS: Final = 5  # as nftables has it
_LARGEST_PACKET: Final = 65_535  # a bucket that cannot hold it never lets it through

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58

T = TypeVar("T")


class Named(NamedTuple):
    """A set of addresses or of ports: ``items`` are prefixes or ranges."""

    kind: str
    place: Place
    items: tuple[Prefix, ...] | tuple[Range, ...]


@dataclass
class _Conditions:
    """What the parts of one statement say, together."""

    sides: int = 0
    peers: tuple[int, ...] = ()
    leaves: int = 0
    version: int = 0
    protocols: tuple[int, ...] = ()
    sources: tuple[Prefix, ...] = ()
    not_sources: tuple[Prefix, ...] = ()
    destinations: tuple[Prefix, ...] = ()
    not_destinations: tuple[Prefix, ...] = ()
    source_ports: tuple[Range, ...] = ()
    destination_ports: tuple[Range, ...] = ()
    types: Types | None = None
    icmp: tuple[Icmp, ...] = ()
    flags: Flags | None = None
    tracking: int = 0
    link: LinkMatch | None = None
    limit: Limit | None = None
    quota: Quota | None = None
    expires: int = 0
    hours: tuple[Hours, ...] = ()
    log: bool = False
    comment: str = ""
    places: dict[str, Token] = field(default_factory=dict)

    @property
    def has_ports(self) -> bool:
        return bool(self.source_ports or self.destination_ports)


class Compiler:
    """Collects statements, and everything that is wrong with them.

    ``peers``: the numbers of each name that a peer may be called by (more than one: the name is ambiguous). None: any
    name is taken, and numbered as it comes, after those that are ``numbered`` already.
    """

    def __init__(
        self,
        file: str,
        problems: list[Problem],
        peers: Mapping[str, Sequence[int]] | None,
        numbered: dict[str, int] | None = None,
    ) -> None:
        self._file = file
        self._problems = problems
        self._known_peers = peers
        self.peers: dict[str, int] = {} if numbered is None else numbered  # those that are named
        self._statement = Statement(1, "")
        self._named: dict[str, Named] = {}
        self._used: set[str] = set()
        self._halves: dict[tuple[Prefix, ...], tuple[Prefix, ...]] = {}
        self._rule_names: dict[str, int] = {}
        self._rules: list[model.Rule] = []
        self._translations: list[tuple[Translation, Problem]] = []
        self._lan: list[Prefix] = []
        self._lan_line = 0

    # problems ---------------------------------------------------------------------------------------------------------

    def _place(self, token: Token | None) -> Place:
        if token is None:
            return Place(self._statement.line, 1, 1)
        return Place(self._statement.line + (token.line or 1) - 1, token.column or 1, max(1, len(token)))

    def _problem(self, token: Token | None, why: str, hint: str = "", is_warning: bool = False) -> Problem:
        place = self._place(token)
        text = self._statement.text.split("\n")[place.line - self._statement.line]
        if token is None:
            indent = len(text) - len(text.lstrip())
            place = place._replace(column=indent + 1, width=len(text.split("#")[0].rstrip()) - indent)
        return Problem(self._file, place, text, why, hint, is_warning)

    def _refuse(self, token: Token | None, why: str, hint: str = "") -> None:
        self._problems.append(self._problem(token, why, hint))

    def _value(self, token: Token, read: Callable[[str], T]) -> T | None:
        try:
            return read(str(token))
        except ValueError as error:
            self._refuse(token, f"{str(token)!r} {error}")
            return None

    # statements -------------------------------------------------------------------------------------------------------

    def take(self, statement: Statement, node: Node) -> None:
        """One statement, in the order of the file: a set is known from its line on."""
        self._statement = statement
        match node:
            case Define():
                self._define(node)
            case Lan():
                self._take_lan(node)
            case Rule():
                self._rule(node)
            case Translate():
                self._translate(node)

    def done(self) -> model.RuleSet:
        """The rule set, after the last statement."""
        for name, named in self._named.items():
            if name not in self._used:
                self._problems.append(self._unused(name, named))
        self._problems += clashes(self._translations)
        translations = tuple(translation for translation, _ in self._translations)
        return model.RuleSet(tuple(self._rules), translations, (self._file,), tuple(self._lan))

    def _unused(self, name: str, named: Named) -> Problem:
        what = "set" if named.kind == "set" else "list of ports"
        return Problem(
            self._file, named.place, f"{named.kind} {name} = …", f"the {what} {name!r} is never used", "", True
        )

    def _define(self, node: Define) -> None:
        name = str(node.name)
        if name in self._named:
            self._refuse(node.name, f"{name!r} is defined already, on line {self._named[name].place.line}")
            return
        if len(self._named) >= _MOST_NAMES:
            self._refuse(node.name, f"there are more than {_MOST_NAMES} names")
            return
        place = self._place(node.name)
        # Known while its own items are read, so that what refers to itself is said to
        self._named[name] = Named(node.kind, place, ())
        items: tuple[Prefix, ...] | tuple[Range, ...]
        items = self._prefixes(node.items) if node.kind == "set" else self._ranges(node.items)
        self._named[name] = Named(node.kind, place, items)

    def _take_lan(self, node: Lan) -> None:
        if self._lan_line:
            self._refuse(None, f"lan is said already, on line {self._lan_line}", "name all prefixes on one line")
            return
        self._lan_line = self._statement.line
        self._lan += self._prefixes(node.items)

    def _rule(self, node: Rule) -> None:
        conditions = self._conditions(node.parts, is_rule=True)
        if len(self._rules) >= MOST_RULES:
            if len(self._rules) == MOST_RULES:
                self._refuse(None, f"there are more than {MOST_RULES} rules")
                self._rules.append(self._rules[-1])
            return
        if node.action == "reject" and conditions.link is not None and conditions.link.ethertypes:
            self._refuse(node.action, "a frame that is not IP cannot be rejected: nobody to tell", "drop it")
        self._rules.append(
            model.Rule(
                action=Action[node.action.upper()],
                name=self._name(node.name),
                line=self._statement.line,
                sides=conditions.sides,
                peers=conditions.peers,
                version=conditions.version,
                protocols=conditions.protocols,
                sources=conditions.sources,
                not_sources=conditions.not_sources,
                destinations=conditions.destinations,
                not_destinations=conditions.not_destinations,
                source_ports=conditions.source_ports,
                destination_ports=conditions.destination_ports,
                icmp=conditions.icmp,
                flags=conditions.flags,
                tracking=conditions.tracking,
                link=conditions.link,
                limit=conditions.limit,
                quota=conditions.quota,
                expires=conditions.expires,
                hours=conditions.hours,
                log=conditions.log,
                comment=conditions.comment,
            )
        )

    def _translate(self, node: Translate) -> None:
        conditions = self._conditions(node.parts, is_rule=False)
        target = self._value(node.target, values.target)
        word = "nat" if node.is_source else "forward"
        if target is None:
            return
        address, port = target
        if conditions.version == 6 or any(one.width == 16 for one in (*conditions.sources, *conditions.destinations)):
            self._refuse(None, f"{word} is for IPv4 only")
        for what, token in conditions.places.items():
            if what in ("source ports", "not sources", "not destinations"):
                self._refuse(token, f"{word} cannot look at {what.replace('not', 'all but some')}")
        if node.is_source and port:
            self._refuse(node.target, "nat chooses the port itself", f"write {str(node.target).partition(':')[0]}")
        if not node.is_source and conditions.leaves:
            self._refuse(
                conditions.places["leaves"], "where a forwarded packet leaves follows from its new destination"
            )
        if not node.is_source and not conditions.destinations:
            self._refuse(None, "forward must say which address it stands for", "forward … to 192.0.2.10 port 80 -> …")
        if not node.is_source and port and not conditions.destination_ports:
            self._refuse(node.target, "a new port needs the port it stands for", "forward … to 192.0.2.10 port 80 -> …")
        translation = Translation(
            name=self._name(node.name),
            file=0,
            line=self._statement.line,
            sides=conditions.sides or _ALL_SIDES,
            leaves=conditions.leaves,
            protocols=conditions.protocols,
            sources=conditions.sources,
            destinations=conditions.destinations,
            destination_ports=conditions.destination_ports,
            source=address if node.is_source else None,
            destination=None if node.is_source else address,
            port=port,
        )
        if len(self._translations) >= _MOST_TRANSLATIONS:
            self._refuse(None, f"there are more than {_MOST_TRANSLATIONS} translations")
            return
        if not 1 << 24 <= address < 224 << 24:
            self._refuse(node.target, f"{str(node.target)!r} is not the address of a host")
        self._translations.append((translation, self._problem(None, "")))

    def _name(self, token: Token | None) -> str:
        if token is None:
            return ""
        name = str(token)[1:-1]
        if name in self._rule_names:
            self._refuse(token, f"the name {name!r} is that of line {self._rule_names[name]} already")
        self._rule_names[name] = self._statement.line
        return name

    # conditions -------------------------------------------------------------------------------------------------------

    def _conditions(self, parts: Iterable[object], is_rule: bool) -> _Conditions:
        said = _Conditions()
        for part in parts:
            match part:
                case End():
                    self._end(said, part, is_rule)
                case Protocols():
                    self._protocols(said, part)
                case Types():
                    if self._once(said, "type", part.types[0][0]):
                        said.types = part
                case Rate():
                    if self._once(said, "limit", part.amount.number):
                        said.limit = self._limit(part)
                case Quantity():
                    if self._once(said, "quota", part.amount.number):
                        said.quota = Quota(*self._amount(part.amount))
                case Spans():
                    if self._once(said, "hours", part.spans[0][1]):
                        said.hours = self._hours(part)
                case Words():
                    self._words(said, part)
        self._settle(said)
        link = said.link or LinkMatch()
        for many in (said.icmp, said.hours, link.ethertypes, link.vlans, link.source, link.destination):
            if len(many) > MOST_ITEMS:
                self._refuse(None, f"has a condition with more than {MOST_ITEMS} items")
        if len(said.peers) > MOST_PEERS:
            self._refuse(None, f"names more than {MOST_PEERS} peers")
        return said

    def _once(self, said: _Conditions, what: str, token: Token) -> bool:
        if what in said.places:
            self._refuse(token, f"{what} is said twice", "name all of them in one place")
            return False
        said.places[what] = token
        return True

    def _end(self, said: _Conditions, end: End, is_rule: bool) -> None:
        word, prefix = ("from", "source") if end.is_source else ("to", "destination")
        tokens = [
            *(end.origin.words if end.origin else ()),
            *end.macs,
            *(token for items in (end.hosts, end.services) if items for token in (*items.words, *items.others)),
        ]
        first = tokens[0] if tokens else None
        if first is None and end.hosts is None:
            self._refuse(None, f"'{word}' without anything after it", f"{word} any says: whoever it is")
            return
        if first is not None and not self._once(said, word, first):
            return
        if end.origin and end.is_source:
            if end.origin.are_peers:
                said.sides, said.peers = int(Side.TUNNEL), self._peers(end.origin.words)
            else:
                said.sides = self._sides(end.origin.words)
        elif end.origin:
            self._leaves(said, end.origin, is_rule)
        if end.macs:
            macs = tuple(mac for token in end.macs if (mac := self._value(token, values.mac)) is not None)
            self._link(said, **{prefix: macs})
        if end.hosts and end.hosts.words:
            setattr(said, f"{prefix}s", self._prefixes(end.hosts.words))
        if end.hosts and end.hosts.others:
            said.places[f"not {prefix}s"] = end.hosts.others[0]
            setattr(said, f"not_{prefix}s", self._prefixes(end.hosts.others))
        if end.services and end.is_source:
            said.places["source ports"] = (end.services.words or end.services.others)[0]
            said.source_ports = self._ports(end.services)
        elif end.services:
            self._destination_ports(said, end.services)

    def _sides(self, tokens: Iterable[Token]) -> int:
        sides = 0
        for token in tokens:
            side = int(words.SIDES[token])
            if sides & side:
                self._refuse(token, f"{str(token)!r} is named twice")
            sides |= side
        return sides

    def _leaves(self, said: _Conditions, origin: Origin, is_rule: bool) -> None:
        if is_rule or origin.are_peers:
            self._refuse(
                origin.words[0],
                f"a rule does not say where a packet leaves the box, and so not 'to {origin.words[0]}'",
                "that follows from its destination; name addresses" if is_rule else "to red, to tunnel or to black",
            )
            return
        said.places["leaves"] = origin.words[0]
        said.leaves = self._sides(origin.words)

    def _peers(self, tokens: Iterable[Token]) -> tuple[int, ...]:
        numbers = []
        for token in tokens:
            name = str(token)[1:-1] if token.type == "STRING" else str(token)
            if self._known_peers is None:
                numbers.append(self.peers.setdefault(name, len(self.peers) + 1))
                continue
            known = self._known_peers.get(name, ())
            if not known:
                near = difflib.get_close_matches(name, self._known_peers, 1)
                named = [one for one in self._known_peers if len(one) != _KEY_CHARACTERS]
                some = ", ".join(map(repr, named[:8]))
                hint = (
                    f"did you mean {near[0]!r}?"
                    if near
                    else f"known: {some}"
                    if some
                    else "peers are named in comments of wg0.conf"
                )
                self._refuse(token, f"there is no peer {name!r}", hint)
            elif len(known) > 1:
                listed = ", ".join(map(str, known))
                self._refuse(token, f"{name!r} could be any of peers {listed}", "name it by its public key, in quotes")
            else:
                self.peers[name] = known[0]
                numbers.append(known[0])
        return tuple(dict.fromkeys(numbers))

    def _words(self, said: _Conditions, part: Words) -> None:
        kind, tokens = part.kind, part.words
        first = tokens[0]
        if not self._once(said, "ethertype" if kind in ("arp", "stp", "ethertypes") else kind, first):
            return
        match kind:
            case "version":
                said.version = words.VERSIONS[first]
            case "tracking":
                for token in tokens:
                    said.tracking |= int(words.TRACKING[token])
            case "flags":
                said.flags = self._value(first, values.flags)
            case "until":
                said.expires = self._value(first, values.date) or 0
            case "log":
                said.log = True
            case "comment":
                said.comment = str(first)[1:-1]
            case "arp":
                operations = tuple(words.OPERATIONS[token] for token in tokens[1:])
                self._link(said, ethertypes=(words.ARP,), arp=operations)
            case "stp":
                self._link(said, ethertypes=(words.STP,))
            case "ethertypes":
                types = [words.ETHERTYPES.get(token) or int(token, 16) for token in tokens]
                if 0x0800 in types or 0x86DD in types:
                    self._refuse(first, "an ethertype that is IP's", "write ip4 or ip6")
                self._link(said, ethertypes=tuple(dict.fromkeys(types)))
            case "vlans":
                read = [
                    Range(0, 0)
                    if token == "none"
                    else self._value(token, lambda text: values.number_range(text, 1, 4094))
                    for token in tokens
                ]
                self._link(said, vlans=_merged([one for one in read if one is not None]))

    def _protocols(self, said: _Conditions, part: Protocols) -> None:
        if not self._once(said, "protocols", part.words[0]):
            return
        found = [self._protocol(token) for token in part.words]
        said.protocols = tuple(dict.fromkeys(number for number in found if number is not None))
        if part.services:
            self._destination_ports(said, part.services)

    def _destination_ports(self, said: _Conditions, services: Items) -> None:
        if self._once(said, "destination ports", (services.words or services.others)[0]):
            said.destination_ports = self._ports(services)

    def _link(self, said: _Conditions, **given: tuple[object, ...]) -> None:
        said.link = (said.link or LinkMatch())._replace(**given)  # type: ignore[arg-type]

    def _protocol(self, token: Token) -> int | None:
        if token in words.PROTOCOLS:
            return words.PROTOCOLS[token]
        return self._value(token, lambda text: values.number(text, 0, 255))

    def _ports(self, services: Items) -> tuple[Range, ...]:
        if services.words:
            return self._ranges(services.words)
        found = self._ranges(services.others)
        others, begin = [], 0
        for one in found:
            if begin < one.first:
                others.append(Range(begin, one.first - 1))
            begin = one.last + 1
        if begin <= 65535:
            others.append(Range(begin, 65535))
        if found and not others:
            self._refuse(services.others[0], "that leaves no port at all")
        return tuple(others)

    def _limit(self, rate: Rate) -> Limit:
        packets, octets = self._amount(rate.amount)
        if packets > _MOST_PACKETS_A_PERIOD:
            self._refuse(rate.amount.number, f"must be at most {_MOST_PACKETS_A_PERIOD}")
        burst = _BURST_PACKETS if packets else max(octets, _LARGEST_PACKET)
        if rate.burst:
            of_packets, of_octets = self._amount(rate.burst)
            if rate.burst.unit is None and octets:
                of_packets, of_octets = 0, of_packets
            if (packets > 0) != (of_packets > 0):
                self._refuse(rate.burst.number, "the burst counts something else than the rate")
            burst = of_packets or of_octets
        return Limit(packets, octets, words.PERIODS[rate.period], burst)

    def _amount(self, amount: Amount) -> tuple[int, int]:
        """Packets, bytes; one of the two is 0."""
        factor = words.UNITS.get(amount.unit, 0) if amount.unit else 0
        count = int(amount.number) * (factor or 1)
        if not 1 <= count <= _MOST_AMOUNT:
            self._refuse(amount.number, f"must be from 1 to {_MOST_AMOUNT}")
            count = 1
        return (0, count) if factor else (count, 0)

    def _hours(self, spans: Spans) -> tuple[Hours, ...]:
        found: list[Hours] = []
        for on, times in spans.spans:
            bits = values.days(on) if on else values.EVERY_DAY
            found += self._value(times, lambda text, bits=bits: values.hours(bits, text)) or ()  # type: ignore[misc]
        return tuple(found)

    def _settle(self, said: _Conditions) -> None:
        """What the parts say about each other."""
        protocols = set(said.protocols)
        if said.types is not None:
            if protocols not in ({ICMP}, {ICMP6}):
                both = {ICMP, ICMP6} <= protocols
                hint = "one rule for icmp, and one for icmp6" if both else "write icmp or icmp6 before it"
                self._refuse(said.places["type"], "types are of ICMP, and the rule is not for one ICMP alone", hint)
            else:
                said.icmp = self._icmp(said.types, words.ICMP if protocols == {ICMP} else words.ICMP6)
        if said.flags is not None and protocols != {TCP}:
            self._refuse(said.places["flags"], "only tcp has flags", "write tcp before it")
        if said.has_ports and not (protocols and protocols <= {TCP, UDP}):
            where = "source ports" if said.source_ports else "destination ports"
            self._refuse(said.places[where], "only tcp and udp have ports", "write tcp, udp or 'tcp, udp' before it")
        self._versions(said, protocols)
        if said.link is not None and said.link.ethertypes:
            others = {
                "from": bool(said.sources or said.not_sources),
                "to": bool(said.destinations or said.not_destinations),
                **{what: what in said.places for what in ("protocols", "version", "tracking")},
            }
            for what, is_given in others.items():
                if is_given:
                    self._refuse(said.places[what], "a frame that is not IP has no such thing")

    def _versions(self, said: _Conditions, protocols: set[int]) -> None:
        possible = {4, 6}
        given: list[tuple[set[int], str]] = []
        if said.version:
            given.append(({said.version}, "version"))
        for prefixes, what in ((said.sources, "from"), (said.destinations, "to")):
            if prefixes:
                given.append(({4 if prefix.width == 4 else 6 for prefix in prefixes}, what))
        if protocols == {ICMP}:
            given.append(({4}, "protocols"))
        if protocols == {ICMP6}:
            given.append(({6}, "protocols"))
        for versions, what in given:
            if not possible & versions:
                this = " and ".join(f"IPv{one}" for one in sorted(versions))
                rest = " and ".join(f"IPv{one}" for one in sorted(possible))
                self._refuse(said.places[what], f"this is {this}, and what is before it is {rest}: no packet is both")
                return
            possible &= versions
        if said.version:
            for what in ("sources", "not_sources", "destinations", "not_destinations"):
                setattr(said, what, self._of_version(getattr(said, what), 4 if said.version == 4 else 16))

    def _of_version(self, prefixes: tuple[Prefix, ...], width: int) -> tuple[Prefix, ...]:
        """Those of one IP version; of one tuple always the same one."""
        if all(prefix.width == width for prefix in prefixes):
            return prefixes
        found = tuple(prefix for prefix in prefixes if prefix.width == width)
        return self._halves.setdefault(found, found)

    def _icmp(self, types: Types, names: Mapping[str, tuple[int, int | None]]) -> tuple[Icmp, ...]:
        found = []
        for of_type, code in types.types:
            number: int | None
            inner: int | None = None
            if of_type.type == "NUMBER":
                number = self._value(of_type, lambda text: values.number(text, 0, 255))
            elif of_type in names:
                number, inner = names[of_type]
            else:
                near = difflib.get_close_matches(of_type, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
                self._refuse(of_type, f"{str(of_type)!r} is no type of this ICMP", hint)
                continue
            if code is not None:
                if inner is not None:
                    self._refuse(code, f"{str(of_type)!r} has a code already")
                inner = self._value(code, lambda text: values.number(text, 0, 255))
            if number is not None:
                found.append(Icmp(number, inner))
        return tuple(dict.fromkeys(found))

    # names and lists --------------------------------------------------------------------------------------------------

    def _refer(self, token: Token, kind: str) -> Named | None:
        name = str(token)[1:]
        named = self._named.get(name)
        if named is None:
            alike = [known for known, other in self._named.items() if other.kind == kind]
            near = difflib.get_close_matches(name, alike, 1)
            hint = f"did you mean '${near[0]}'?" if near else f"say so on a line before: {kind} {name} = …"
            self._refuse(token, f"{str(token)!r} is not defined", hint)
            return None
        self._used.add(name)
        if named.kind != kind:
            what = {"set": "addresses", "ports": "ports"}
            self._refuse(token, f"{str(token)!r} has {what[named.kind]}, not {what[kind]}")
            return None
        if not named.items:
            if named.place.line == self._statement.line:
                self._refuse(token, f"{str(token)!r} is made of itself")
            return None
        return named

    def _prefixes(self, tokens: Sequence[Token]) -> tuple[Prefix, ...]:
        found: list[Prefix] = []
        if len(tokens) == 1 and tokens[0].type == "REFERENCE":
            # The very tuple, so that a thousand rules about one set carry it once
            named = self._refer(tokens[0], "set")
            return named.items if named else ()  # type: ignore[return-value]
        for token in tokens:
            if token.type == "REFERENCE":
                named = self._refer(token, "set")
                found += named.items if named else ()  # type: ignore[arg-type]
            else:
                found += self._value(token, values.prefixes) or ()
        if len(found) > MOST_PREFIXES:
            self._refuse(None, f"has more than {MOST_PREFIXES} prefixes")
            return ()
        return tuple(dict.fromkeys(found))

    def _ranges(self, tokens: Iterable[Token]) -> tuple[Range, ...]:
        found: list[Range] = []
        for token in tokens:
            if token.type == "REFERENCE":
                named = self._refer(token, "ports")
                found += named.items if named else ()  # type: ignore[arg-type]
                continue
            if token.type == "SERVICE" and token not in words.SERVICES:
                near = difflib.get_close_matches(token, words.SERVICES, 1)
                hint = f"did you mean {near[0]!r}?" if near else "write its number"
                self._refuse(token, f"{str(token)!r} is no service that is known", hint)
                continue
            one = self._value(token, values.port_range)
            if one is not None:
                found.append(one)
        merged = _merged(found)
        if len(merged) > MOST_RANGES:
            self._refuse(None, f"has more than {MOST_RANGES} ranges of ports")
        return merged


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """In order, those that touch each other as one."""
    merged: list[Range] = []
    for one in sorted(ranges):
        if merged and one.first <= merged[-1].last + 1:
            merged[-1] = Range(merged[-1].first, max(merged[-1].last, one.last))
        else:
            merged.append(one)
    return tuple(merged)
