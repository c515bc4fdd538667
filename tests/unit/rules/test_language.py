"""The language: what is written means one thing, and what cannot be meant is refused where it stands."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.rules import write
from appliance.rules.problems import RulesError
from appliance.rules.read import MAX_BYTES, from_file, from_text
from components.filter import ruleset
from components.filter.model import Hours, Icmp, Limit, Quota, Range, RuleSet
from tests.unit.rules.texts import tcp_rules

PEERS = {"alice": [1], "bob": [2], "twin": [3, 4], "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=": [1]}


def problems(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(RulesError) as refused:
        from_text(text, "x.rules", PEERS)
    return [(one.place.line, one.place.column, one.said()) for one in refused.value.problems]


# Each mistake alone: the column, and what is said of it
MISTAKES = [
    ("alow from red", 1, "'alow' is not what can stand here; did you mean 'allow'?"),
    ("permit from red", 1, "here one writes: allow"),
    ("Allow from red", 1, "words are written small"),
    ("allow from rde", 12, "'rde' is not what can stand here"),
    ("allow red", 7, "here one writes: from red"),
    ("allow from", 1, "'from' without anything after it"),
    ("allow to", 1, "'to' without anything after it"),
    ("allow from red from red", 21, "from is said twice"),
    ("allow tcp udp", 11, "protocols is said twice"),
    ("allow from red, red", 17, "'red' is named twice"),
    ("allow from red to tunnel", 19, "a rule does not say where a packet leaves"),
    ("allow from red to peer alice", 24, "a rule does not say where a packet leaves"),
    ("allow from peer carol", 17, "there is no peer 'carol'; known: 'alice', 'bob', 'twin'"),
    ("allow from peer alise", 17, "did you mean 'alice'?"),
    ("allow from peer twin", 17, "'twin' could be any of peers 3, 4"),
    ("allow from peer alice, red", 24, "there is no peer 'red'"),
    ("allow from 10.0.0.256", 12, "is not an address or a prefix"),
    ("allow from 10.0.0.1/8", 12, "the prefix is 10.0.0.0/8"),
    ("allow from 10.0.0.0/33", 12, "is not an address or a prefix"),
    ("allow from 10.0.0.9-10.0.0.1", 12, "ends before it begins"),
    ("allow from 10.0.0.1-fd00::1", 12, "begins with one IP version and ends with the other"),
    ("allow from fd00::g", 12, "is not what can stand here"),
    ("allow from 10.0.0.1 to fd00::1", 24, "this is IPv6, and what is before it is IPv4"),
    ("allow ip4 to fd00::1", 14, "no packet is both"),
    ("allow icmp to fd00::1", 7, "no packet is both"),
    ("allow from $nobody", 12, "'$nobody' is not defined; say so on a line before: set nobody = …"),
    ("set a = 10.0.0.1\nallow from $b", 12, "'$b' is not defined"),
    ("set admin = 10.0.0.1\nallow from $admins, $admin", 12, "did you mean '$admin'?"),
    ("set a = 10.0.0.1\nallow tcp port $a", 16, "'$a' has addresses, not ports"),
    ("ports a = 80\nallow from $a", 12, "'$a' has ports, not addresses"),
    ("set a = { $a }\nallow from $a", 11, "'$a' is made of itself"),
    ("set a = 10.0.0.1\nset a = 10.0.0.2\nallow from $a", 5, "'a' is defined already, on line 1"),
    ("set a = {}", 10, "'}' is not what can stand here"),
    ("set = 10.0.0.1", 5, "expected a name"),
    ("allow from { 10.0.0.1", 22, "the statement ends too early; expected '}' or ','"),
    ("allow from 10.0.0.1,", 21, "the statement ends too early"),
    ("allow to port 80", 15, "only tcp and udp have ports"),
    ("allow tcp, gre port 80", 21, "only tcp and udp have ports"),
    ("allow tcp port 65536", 16, "'65536' must be in 0 to 65535"),
    ("allow tcp port 90-80", 16, "ends before it begins"),
    ("allow tcp port htps", 16, "'htps' is no service that is known; did you mean 'https'?"),
    ("allow tcp port 80 to port 81", 27, "destination ports is said twice"),
    ("allow tcp port not 0-65535", 20, "that leaves no port at all"),
    ("allow proto 256", 13, "'256' must be in 0 to 255"),
    ("allow proto foo", 13, "'foo' is not what can stand here"),
    ("allow type echo-request", 12, "types are of ICMP"),
    ("allow icmp, icmp6 type 8", 24, "one rule for icmp, and one for icmp6"),
    ("allow icmp type ping", 17, "'ping' is no type of this ICMP"),
    ("allow icmp6 type fragmentation-needed", 18, "is no type of this ICMP"),
    ("allow icmp type port-unreachable code 3", 39, "has a code already"),
    ("allow udp flags syn/syn", 17, "only tcp has flags"),
    ("allow tcp flags syn", 17, "must say which flags it looks at"),
    ("allow tcp flags syn,ack/syn", 17, "wants flags that it does not look at"),
    ("allow tcp flags syn/all", 17, "'all', which is no TCP flag"),
    ("allow limit 10", 15, "expected a unit (packets, bytes, kB, MB, GB, TB, KiB, MiB, GiB, TiB) or '/'"),
    ("allow limit 0/second", 13, "must be from 1"),
    ("allow limit 10/fortnight", 16, "expected second, minute, hour or day"),
    ("allow limit 10/second burst 5 MB", 29, "the burst counts something else than the rate"),
    ("allow quota 10", 15, "expected a unit"),
    ("allow until 2027-02-30", 13, "is not a date"),
    ("allow until tomorrow", 13, "expected a date like 2027-12-31"),
    ("allow hours 8-18", 13, "expected days like mon-fri or sat,sun or hours like 08:00-18:00"),
    ("allow hours mon-fri", 20, "the statement ends too early; expected hours like 08:00-18:00"),
    ("allow hours 08:00-25:00", 13, "must be times from 00:00 to 24:00"),
    ("allow hours 08:00-08:00", 13, "begins and ends at once"),
    ('allow "x', 7, "the quote is not closed"),
    ('allow "x"\nallow "x"', 7, "the name 'x' is that of line 1 already"),
    ("allow ethertype 0x0800", 17, "an ethertype that is IP's"),
    ("allow arp tcp", 11, "a frame that is not IP has no such thing"),
    ("allow arp from 10.0.0.1", 16, "a frame that is not IP has no such thing"),
    ("reject arp", 1, "a frame that is not IP cannot be rejected"),
    ("allow vlan 4095", 12, "'4095' must be in 1 to 4094"),
    ("allow from mac 02:00:00:00:00", 16, "is not a MAC address"),
    ("lan 10.0.0.0/8\nlan 10.0.0.0/9", 1, "lan is said already, on line 1"),
    ("nat from red -> 192.0.2.256", 17, "is not an IPv4 address"),
    ("nat from red -> 192.0.2.1:80", 17, "nat chooses the port itself"),
    ("nat from fd00::/8 -> 192.0.2.1", 1, "nat is for IPv4 only"),
    ("nat from red", 13, "the statement ends too early"),
    ("nat from red -> 224.0.0.1", 17, "is not the address of a host"),
    ("forward tcp port 80 -> 192.0.2.1", 1, "forward must say which address it stands for"),
    ("forward to 192.0.2.1 -> 192.168.1.1:80", 25, "a new port needs the port it stands for"),
    ("forward to black 192.0.2.1 -> 192.168.1.1", 12, "where a forwarded packet leaves"),
    (
        "forward to 192.0.2.1 tcp -> 192.168.1.1\nforward to 192.0.2.1 tcp port 80 -> 192.168.1.2",
        1,
        "line 1 takes all that this forward would, and sends it elsewhere; put the narrower one first",
    ),
    ("forward to 192.0.2.1 -> 192.168.1.1\nnat from red -> 192.0.2.1", 1, "their answers would be forwarded too"),
    ("allow from red; drop", 15, "is not what can stand here; expected an address"),
    ("allow from \x00", 12, "is not what can stand here"),
]


@pytest.mark.parametrize(
    ("text", "column", "said"), MISTAKES, ids=[one[0].encode("unicode_escape").decode() for one in MISTAKES]
)
def test_a_mistake(text: str, column: int, said: str) -> None:
    (found,) = problems(text)
    assert found[:2] == (text.count("\n") + 1, column) or ("\n" in text and found[1] == column), found
    assert said in found[2]


def test_every_mistake_at_once_and_each_in_its_line() -> None:
    texts = [
        text
        for text, _, _ in MISTAKES
        if "\n" not in text and "{" not in text and not text.startswith(("set", "lan", "forward", "nat"))
    ]
    pick = random.Random(3)
    pick.shuffle(texts)
    found = problems("\n".join(texts))
    assert {line for line, _, _ in found} == set(range(1, len(texts) + 1))


def test_a_brace_left_open_costs_one_statement() -> None:
    assert [line for line, _, _ in problems("set a = { 10.0.0.1,\n 10.0.0.2\nallow from red\nalow")] == [2, 4]


def test_too_much() -> None:
    assert "too many problems" in problems("x\n" * 200)[-1][2]
    assert "more than 16384 rules" in problems("allow\n" * 16_385)[0][2]
    assert "more than 65536 characters" in problems("allow " + "log " * 20_000)[0][2]
    assert "more than 256 ranges" in problems(f"allow tcp port {', '.join(str(2 * n) for n in range(300))}")[0][2]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, content, why in (
        ("none", None, "cannot be read: No such file"),
        ("large", b"#" * (MAX_BYTES + 1), "has more than"),
        ("latin", b"allow\n# \xe9", "is not UTF-8"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(RulesError, match=why):
            from_file(tmp_path / name)


def test_values() -> None:
    text = """\
allow icmp type 3 code 7, port-unreachable, 8
allow limit 2 MB/minute
allow limit 3/hour
allow quota 1 KiB
allow hours fri-mon 22:00-06:00
allow until 1970-01-02T00:00:10Z
allow tcp from port 1-2, 2-5, 6, 9
"""
    icmp, octets, packets, quota, hours, until, ports = from_text(text, "x").ruleset.rules
    assert icmp.icmp == (Icmp(3, 7), Icmp(3, 3), Icmp(8, None))
    assert (octets.limit, packets.limit) == (Limit(0, 2_000_000, 60, 2_000_000), Limit(3, 0, 3600, 5))
    assert quota.quota == Quota(0, 1024) and until.expires == 86_410
    assert (
        hours.hours == (Hours(0b1110001, 1320, 1440), Hours(0b1100011 | 0, 0, 360)) or hours.hours[1].days == 0b1100011
    )
    assert ports.source_ports == (Range(1, 6), Range(9, 9))


def test_a_set_is_one_tuple_however_often_it_is_used() -> None:
    text = "set a = 10.0.0.1, fd00::1\nallow from $a\ndrop to $a\nallow ip6 from $a\nallow ip6 to $a\n"
    one, two, three, four = from_text(text, "x").ruleset.rules
    assert one.sources is two.destinations and three.sources is four.destinations
    assert [prefix.width for prefix in three.sources] == [16]


def test_peers_by_name_and_by_key() -> None:
    key = next(name for name in PEERS if name.endswith("="))
    rules = from_text(f'allow from peer "{key}"\nallow from peer bob, alice, bob', "x", PEERS).ruleset.rules
    assert [rule.peers for rule in rules] == [(1,), (2, 1)]


def test_unused_sets_are_warned_of_where_they_stand() -> None:
    (warning,) = from_text("# one\n  set a = 10.0.0.1\n", "x").warnings
    assert (warning.place.line, warning.place.column, warning.why) == (2, 7, "the set 'a' is never used")


# there and back -------------------------------------------------------------------------------------------------------

OTHERS = [
    "allow icmp type echo-request, 3 code 9, port-unreachable from tunnel",
    "drop icmp6 type packet-too-big",
    "allow from fd00::/8 to fd00:1::1 udp port 53",
    "allow proto 99, esp from black",
    "allow ip6 from red",
    "drop stp",
    "allow arp reply vlan none, 5-9 from red mac 02:00:00:00:00:01, 02:00:00:00:00:02 to mac ff:ff:ff:ff:ff:ff",
    "allow ethertype 0x1234, lldp",
    'reject "a b" established, related invalid log comment "c # d"',
]
WHOLE = [
    "lan 10.0.0.0/8, fd00::/64",
    'nat "n" from red 10.1.0.0/16 tcp to tunnel, black port 80 -> 192.0.2.9',
    "forward from black udp to 192.0.2.10 port 53-54 -> 10.0.0.1:5353",
]


def bare(rules: RuleSet) -> RuleSet:
    return rules._replace(
        rules=tuple(rule._replace(line=0) for rule in rules.rules),
        translations=tuple(one._replace(line=0) for one in rules.translations),
    )


@settings(max_examples=150)
@given(
    st.lists(st.one_of(tcp_rules(), st.sampled_from(OTHERS)), max_size=5, unique=True), st.sets(st.sampled_from(WHOLE))
)
def test_written_again_it_means_the_same(lines: list[str], more: set[str]) -> None:
    said = from_text("\n".join([*lines, *more]), "x", PEERS).ruleset
    text = write.ruleset(said, {1: "alice", 2: "bob"})
    assert bare(from_text(text, "x", PEERS).ruleset) == bare(said)
    assert ruleset.decode(ruleset.encode(said)) == said, "the domain takes what the language makes"


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from('allow from red tcp to port 80 {},"$#\\\n-=/.:xé\0'), max_size=60))
def test_whatever_is_written_is_taken_or_refused_in_words(text: str) -> None:
    try:
        from_text(text, "x")
    except RulesError as refused:
        for problem in refused.problems:
            assert problem.why and 1 <= problem.place.line <= text.count("\n") + 1 and problem.show()


def test_a_file_that_is_not_there_has_no_line(tmp_path: Path) -> None:
    with pytest.raises(RulesError) as refused:
        from_file(tmp_path / "nothere.rules")
    assert str(refused.value) == f"{tmp_path / 'nothere.rules'}: cannot be read: No such file or directory"
