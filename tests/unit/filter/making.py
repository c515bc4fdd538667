"""Rule sets at random, as hypothesis draws them: few addresses and ports, so that rules and packets meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

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

PORTS = st.sampled_from((0, 22, 53, 80, 443, 1024, 8080, 65_535))


@st.composite
def prefixes(draw: st.DrawFn, width: int) -> Prefix:
    bits = 8 * width
    length = draw(st.sampled_from((0, 1, 8, 24, 31, bits - 1, bits)))
    mask = (1 << bits) - (1 << bits - length)
    # 10.0.0.0, or fd00::, and what lies near
    base = (10 if width == 4 else 0xFD) << bits - 8
    return Prefix(width, (base + draw(st.integers(0, 5))) & mask, mask)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    return Range(*sorted((draw(PORTS), draw(PORTS))))


def some(strategy: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    """Often none, else a few."""
    return st.one_of(st.just(()), st.just(()), st.lists(strategy, min_size=1, max_size=most).map(tuple))


@st.composite
def rules(draw: st.DrawFn, action: Action | None = None, timed: bool = True) -> Rule:
    version = draw(st.sampled_from((0, 4, 6)))
    protocols = draw(st.sampled_from(((), (), (TCP,), (UDP,), (TCP, UDP), (ICMP,), (ICMPV6,), (47,))))
    has_ports = bool(protocols) and set(protocols) <= {TCP, UDP}
    some_prefixes = some(st.one_of(*(prefixes(width) for width in {0: (4, 16), 4: (4,), 6: (16,)}[version])))
    mask = draw(st.integers(1, 255))
    is_timed = timed and draw(st.booleans())
    sides = draw(st.integers(0, 7))
    return Rule(
        action=action or draw(st.sampled_from(Action)),
        name=draw(st.sampled_from(("", "web"))),
        line=draw(st.integers(0, 99)),
        sides=sides,
        peers=draw(some(st.integers(1, 3))) if not sides & ~Side.TUNNEL else (),
        version=version,
        protocols=protocols,
        sources=draw(some_prefixes),
        not_sources=draw(some_prefixes),
        destinations=draw(some_prefixes),
        not_destinations=draw(some_prefixes),
        source_ports=draw(some(ranges())) if has_ports else (),
        destination_ports=draw(some(ranges())) if has_ports else (),
        icmp=draw(some(st.builds(Icmp, st.sampled_from((0, 3, 8, 128)), st.sampled_from((None, 0, 1)))))
        if protocols in ((ICMP,), (ICMPV6,))
        else (),
        flags=Flags(mask, mask & draw(st.integers(0, 255))) if protocols == (TCP,) and draw(st.booleans()) else None,
        tracking=draw(st.sampled_from((0, 0, 1, 2, 4, 6, 8))),
        limit=draw(st.one_of(st.none(), st.just(Limit(5, 0, 60, 5)))) if is_timed else None,
        quota=draw(st.one_of(st.none(), st.just(Quota(3, 0)))) if is_timed else None,
        expires=draw(st.sampled_from((0, 0, 1_000_000))) if is_timed else 0,
        hours=draw(some(st.just(Hours(127, 0, 720)), 1)) if is_timed else (),
        log=draw(st.booleans()),
        comment=draw(st.sampled_from(("", "why not"))),
    )


LINKS = st.builds(
    LinkMatch,
    ethertypes=some(st.sampled_from((0x0800, 0x0806, 0x42))),
    vlans=some(st.just(Range(0, 7))),
    source=some(st.binary(min_size=6, max_size=6)),
    destination=some(st.binary(min_size=6, max_size=6)),
    arp=some(st.integers(1, 2)),
)

TRANSLATIONS = st.one_of(
    st.builds(
        Translation, st.just("out"), st.just(0), st.just(3), st.just(1), st.integers(0, 7), st.just((TCP,)),
        some(prefixes(4)), some(prefixes(4)), some(ranges()), source=st.just(0xC0000201),
        destination=st.none(), port=st.just(0),
    ),
    st.builds(
        Translation, st.just("in"), st.just(0), st.just(4), st.just(2), st.just(0), st.just((TCP, UDP)),
        some(prefixes(4)), some(prefixes(4)), some(ranges()), source=st.none(),
        destination=st.just(0x0A000001), port=PORTS,
    ),
)  # fmt: skip


@st.composite
def rule_sets(draw: st.DrawFn) -> RuleSet:
    made = draw(st.lists(rules(), max_size=8))
    linked = [rule._replace(link=draw(LINKS)) if draw(st.booleans()) else rule for rule in made]
    lan = draw(some(prefixes(4)))
    return RuleSet(tuple(linked), draw(some(TRANSLATIONS)), ("vpn.rules",), lan)
