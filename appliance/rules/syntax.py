"""The syntax tree: what was written, in the order in which it was written, each word with its place.

Words stay ``lark.Token``s, which are texts that know where they stand in their statement. Nothing is looked up here.
"""

from __future__ import annotations

from typing import NamedTuple

from lark import Token


class Origin(NamedTuple):
    """``red``, ``tunnel``, ``black``; or names of peers."""

    words: list[Token]
    are_peers: bool


class Items(NamedTuple):
    """Addresses or ports; after ``not``, those that are left out. ``any`` is no item at all."""

    words: list[Token]
    others: list[Token]


class End(NamedTuple):
    """What stands after ``from`` or ``to``."""

    is_source: bool
    origin: Origin | None
    macs: list[Token]
    hosts: Items | None
    services: Items | None


class Words(NamedTuple):
    """A condition that is a list of words; ``kind`` says of what."""

    kind: str
    words: list[Token]


class Amount(NamedTuple):
    """``100``, ``10 GB``: a number, and what of."""

    number: Token
    unit: Token | None


class Protocols(NamedTuple):
    """Protocols, and the destination ports that may follow them."""

    words: list[Token]
    services: Items | None


class Rate(NamedTuple):
    """``100/second burst 20``."""

    amount: Amount
    period: Token
    burst: Amount | None


class Types(NamedTuple):
    """ICMP types, each with a code or None."""

    types: list[tuple[Token, Token | None]]


class Spans(NamedTuple):
    """Days (None: every day) and hours of the day."""

    spans: list[tuple[Token | None, Token]]


class Quantity(NamedTuple):
    """``quota 10 GB``."""

    amount: Amount


Part = End | Protocols | Words | Rate | Types | Spans | Quantity


class Define(NamedTuple):
    """``set NAME = …`` (addresses) or ``ports NAME = …``."""

    kind: str
    name: Token
    items: list[Token]


class Lan(NamedTuple):
    """``lan …``."""

    items: list[Token]


class Rule(NamedTuple):
    """``allow``, ``drop``, ``reject``."""

    action: Token
    name: Token | None
    parts: list[Part]


class Translate(NamedTuple):
    """``nat`` (of the source) or ``forward`` (of the destination)."""

    is_source: bool
    name: Token | None
    parts: list[Part]
    target: Token


Node = Define | Lan | Rule | Translate
