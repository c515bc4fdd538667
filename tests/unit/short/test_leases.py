"""Everything after which a lease must not hold any more: the next packet goes the long way, or nowhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from appliance.vchan.messages import Datagrams, Packets
from bench import trace
from components.crypto import constants, decrypt, encrypt, receiving, sending
from components.crypto.receiving import Receiver
from components.crypto.sending import Sender
from components.filter import engine as filter_engine
from components.filter import flows, main
from components.filter.engine import Engine
from components.filter.flows import State
from components.filter.model import Action, Quota, Rule, RuleSet, Side
from components.filter.ruleset import encode
from tests.budgets.domain import Domain
from tests.unit.short import orders as to
from tests.unit.short import roles, traffic
from tests.unit.short.test_same import made_by
from tests.unit.short.twins import Counted

LAST: Final = constants.REJECT_AFTER_MESSAGES - 1
"""The greatest counter there is."""


class One:
    """One domain, and what goes through it from one port to another."""

    def __init__(self, domain: Domain, inward: str, outward: str) -> None:
        self.domain, self.inward, self.outward = domain, inward, outward

    def go(self, message: Any) -> tuple[bool, list[Any]]:
        """Whether a message went the short way, and what came out."""
        before = self.shortly
        self.domain.give(self.inward, [message])
        self.domain.settle()
        return self.shortly > before, self.domain.take(self.outward)

    def order(self, *orders: Any) -> None:
        self.domain.give("orders", orders)
        self.domain.settle()
        self.domain.take(self.outward)

    @property
    def shortly(self) -> int:
        return int(self.domain.near[self.inward].shortly)  # type: ignore[attr-defined]


# encrypt --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def encrypting(monkeypatch: pytest.MonkeyPatch) -> tuple[One, Sender]:
    made: list[Sender] = made_by(monkeypatch, encrypt, Sender)
    one = One(Domain("crypto", "encrypt", kind=Counted), "plain", "sealed")
    one.order(to.send_peer(1), to.send_peer(2, ()), to.send_session(1, 1))
    return one, made[0]


def lease(one: One, message: Any) -> None:
    """From now on, for a moment, messages like this one go the short way."""
    for _ in range(9):
        is_short, out = one.go(message() if callable(message) else message)
        assert len(out) == 1
        if is_short:
            return
    raise AssertionError("nothing goes the short way")


OUT: Final = roles.lone(True)


@pytest.mark.parametrize(
    "order",
    [
        to.send_session(1, 2),
        to.send_session(1, 2, to.PLACES[1]),
        to.send_endpoint(1, to.PLACES[2]),
        to.send_keepalive(1),
        to.send_peer(1, to.NETS[1:]),
        to.send_peer(2, ((traffic.FAR4, 32),)),
        to.send_forget(1),
        to.send_only(2),
        to.send_session(9, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("at_once", [False, True])
def test_an_order_to_encrypt(order: Any, at_once: bool, encrypting: tuple[One, Sender]) -> None:
    one, sender = encrypting
    lease(one, OUT)
    if at_once:  # both are there when it wakes, the order first
        one.domain.give("orders", [order])
    else:
        one.order(order)
    is_short, out = one.go(OUT)
    assert not is_short
    peer = sender._peers.get(1)
    goes = (
        peer is not None and peer.session is not None and sender._routing.v4.lookup(int.from_bytes(traffic.FAR4, "big"))
    )
    groups = [group for group in out if len(group.datagrams) > 32]  # no keepalive
    if goes != 1:
        assert not groups
    else:
        assert peer is not None and peer.session is not None
        (group,) = groups
        assert (group.address, group.port) == (peer.address, peer.port)
        assert bytes(group.datagrams[4:8]) == peer.session.receiver.to_bytes(4, "little")


def test_a_key_for_sending_is_used_no_longer_than_it_may(
    encrypting: tuple[One, Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, sender = encrypting
    monkeypatch.setattr(sending, "REJECT_AFTER_TIME", 0.2)
    one.order(to.send_session(1, 2))
    began = time.monotonic()
    lease(one, OUT)
    while time.monotonic() < began + 0.25:
        time.sleep(0.01)
    assert one.go(OUT) == (False, [])
    assert sender.counts["queued"] == 1


def test_no_counter_beyond_the_last_seals(encrypting: tuple[One, Sender]) -> None:
    one, sender = encrypting
    lease(one, OUT)
    session = sender._peers[1].session
    assert session is not None
    session.counter = LAST
    is_short, out = one.go(OUT)
    assert is_short and bytes(out[0].datagrams[8:16]) == LAST.to_bytes(8, "little")
    assert one.go(OUT) == (False, [])
    assert sender._peers[1].session is None


def test_long_and_short_use_one_counter(encrypting: tuple[One, Sender]) -> None:
    one, _ = encrypting
    pair = Packets(bytes(OUT.packets) * 2, OUT.size)
    counters = []
    for message in (OUT, OUT, pair, OUT, OUT, pair, pair, OUT):
        for group in one.go(message)[1]:
            blob = bytes(group.datagrams)
            counters += [int.from_bytes(blob[at + 8 : at + 16], "little") for at in range(0, len(blob), group.size)]
    assert counters == list(range(11)) and one.shortly


def test_what_is_to_be_reported_goes_no_way_past_it(encrypting: tuple[One, Sender]) -> None:
    """A packet every moment: reports come as often as without the short way."""
    one, _ = encrypting
    one.domain.take("reports")
    until, told, sent = time.monotonic() + 1.0, [], 0
    while time.monotonic() < until:
        _, out = one.go(OUT)
        sent += len(out)
        told += one.domain.take("reports")
    assert len(told) >= 3 and one.shortly > sent // 2
    assert [report.data_packets for report in told] == sorted({report.data_packets for report in told})


# decrypt --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def decrypting(monkeypatch: pytest.MonkeyPatch) -> tuple[One, Receiver, Callable[[], Datagrams]]:
    made: list[Receiver] = made_by(monkeypatch, decrypt, Receiver)
    one = One(Domain("crypto", "decrypt", kind=Counted), "sealed", "plain")
    one.order(to.receive_peer(1), to.receive_peer(2, ()), to.receive_session(1, 1))
    supply = roles.endless(roles.sealed)
    return one, made[0], lambda: next(supply)


Decrypting = tuple[One, Receiver, Callable[[], Datagrams]]


@pytest.mark.parametrize(
    ("order", "passes"),
    [
        (to.receive_session(1, 2), True),
        (to.receive_peer(1, to.NETS[1:]), False),
        (to.receive_peer(2, ((traffic.FAR4, 32),)), False),
        (to.receive_forget(1), False),
        (to.receive_only(2), False),
        (to.receive_only(1), True),
        (to.receive_session(9, 3), True),
    ],
    ids=str,
)
@pytest.mark.parametrize("at_once", [False, True])
def test_an_order_to_decrypt(order: Any, passes: bool, at_once: bool, decrypting: Decrypting) -> None:
    one, _, following = decrypting
    lease(one, following)
    if at_once:
        one.domain.give("orders", [order])
    else:
        one.order(order)
    is_short, out = one.go(following())
    assert not is_short and len(out) == passes


def test_no_datagram_is_taken_twice(decrypting: Decrypting) -> None:
    one, receiver, following = decrypting
    lease(one, following)
    said = [following() for _ in range(5)]
    assert [one.go(message)[0] for message in said] == [True] * 5
    for message in said:
        assert one.go(message) == (False, [])
    assert receiver.counts["replayed"] == 5
    lease(one, following)
    for message in said:
        assert one.go(message) == (False, [])


def test_what_came_in_a_group_is_not_taken_again(decrypting: Decrypting) -> None:
    one, receiver, following = decrypting
    lease(one, following)
    said = [following() for _ in range(3)]
    group = said[0]._replace(datagrams=b"".join(bytes(message.datagrams)[: said[0].size] for message in said[:1]) * 2)
    assert len(one.go(group)[1]) == 1  # the second in it is the first once more
    for message in (said[0], said[0]):
        assert one.go(message) == (False, [])
    assert receiver.counts["replayed"] == 3
    for message in said[1:]:
        assert len(one.go(message)[1]) == 1


def test_a_gap_a_latecomer_and_what_comes_then(decrypting: Decrypting) -> None:
    one, receiver, following = decrypting
    lease(one, following)
    late, after, twice = following(), following(), following()
    assert one.go(after)[0] is False
    assert one.go(twice)[0] is True
    is_short, out = one.go(late)
    assert not is_short and len(out) == 1
    for message in (late, after, twice):
        assert one.go(message) == (False, [])
    assert receiver._sessions[1].packets == receiver._sessions[1].window.next


def test_another_endpoint(decrypting: Decrypting) -> None:
    one, receiver, following = decrypting
    lease(one, following)
    for address, port in to.PLACES[1:]:
        is_short, out = one.go(following()._replace(address=address, port=port))
        assert not is_short and len(out) == 1
        assert receiver._sessions[1].endpoint == (address, port)
        is_short, _ = one.go(following()._replace(address=to.PLACES[0][0], port=to.PLACES[0][1]))
        assert not is_short
        assert receiver._sessions[1].endpoint == to.PLACES[0]


def test_another_source_and_damage(decrypting: Decrypting) -> None:
    one, receiver, following = decrypting
    lease(one, following)
    damaged = following()
    blob = bytearray(damaged.datagrams)
    blob[40] ^= 1
    assert one.go(damaged._replace(datagrams=bytes(blob))) == (False, [])
    assert receiver.counts["unauthentic"] == 1
    assert len(one.go(damaged)[1]) == 1  # nobody has used its counter
    lease(one, following)
    counter = receiver._sessions[1].window.next
    other = traffic.ip4(17, traffic.ELSEWHERE[0], traffic.NEAR4, bytes(40))
    spoofed = roles.datagram(other, counter, 1, to.key(1))
    assert one.go(Datagrams(spoofed, len(spoofed), *to.PLACES[0])) == (False, [])
    assert receiver.counts["spoofed"] == 1


def test_a_key_for_receiving_is_used_no_longer_than_it_may(
    decrypting: Decrypting, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, _ = decrypting
    monkeypatch.setattr(receiving, "REJECT_AFTER_TIME", 0.2)
    one.order(to.receive_session(1, 2))
    began = time.monotonic()
    supply = roles.endless(lambda counter: roles.sealed(counter, 2))
    lease(one, lambda: next(supply))
    while time.monotonic() < began + 0.25:
        time.sleep(0.01)
    assert one.go(next(supply)) == (False, [])


def test_no_counter_beyond_the_last_opens(decrypting: Decrypting) -> None:
    one, receiver, following = decrypting
    lease(one, following)
    one.go(roles.sealed(LAST - 1))
    is_short, out = one.go(roles.sealed(LAST))
    assert is_short and len(out) == 1
    assert one.go(roles.sealed(LAST + 1)) == (False, [])
    assert receiver.counts["replayed"] == 1


# filter ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def filtering(monkeypatch: pytest.MonkeyPatch) -> tuple[One, One, Engine]:
    made: list[Engine] = made_by(monkeypatch, main, Engine)
    domain = Domain("filter", "filter", {"ruleset": encode(trace.RULES)}, kind=Counted)
    return One(domain, "red_in", "tunnel_out"), One(domain, "tunnel_in", "red_out"), made[0]


Filtering = tuple[One, One, Engine]
BACK: Final = roles.lone(False)


@pytest.mark.parametrize(
    ("rules", "out", "back"),
    [
        (RuleSet(()), False, False),
        (RuleSet((Rule(Action.ALLOW, sides=Side.RED),)), True, False),
        (trace.RULES, True, True),
        (RuleSet((Rule(Action.DROP, protocols=(17,)), *trace.RULES.rules)), False, False),
    ],
)
def test_other_rules(rules: RuleSet, out: bool, back: bool, filtering: Filtering) -> None:
    red, tunnel, engine = filtering
    lease(red, OUT)
    lease(tunnel, BACK)
    lease(red, OUT)
    engine.replace(rules, time.monotonic(), 1.7e9)
    is_short, came = red.go(OUT)
    assert not is_short and len(came) == out
    is_short, came = tunnel.go(BACK)
    assert not is_short and len(came) == back


def test_a_flow_that_is_forgotten(filtering: Filtering) -> None:
    red, _, engine = filtering
    lease(red, OUT)
    (flow,) = engine.flows.by_key.values()
    engine.flows.forget(flow)
    assert red.go(OUT)[0] is False
    (other,) = engine.flows.by_key.values()
    assert other is not flow and other.packets == 1


def test_a_flow_that_is_answered(filtering: Filtering) -> None:
    red, tunnel, engine = filtering
    lease(red, OUT)
    (flow,) = engine.flows.by_key.values()
    assert flow.state is State.ASKED
    assert tunnel.go(BACK)[0] is False
    assert red.go(OUT)[0] is False  # it goes by another rule now
    assert flow.state is State.ANSWERED
    lease(tunnel, BACK)
    lease(red, OUT)
    hits = engine.records.packets
    assert hits[1] and hits[0] == flow.packets - hits[1]


def test_another_peer_of_the_tunnel(filtering: Filtering) -> None:
    _, tunnel, engine = filtering
    lease(tunnel, BACK)
    assert tunnel.go(BACK._replace(peer=2))[0] is False
    assert [flow.peer for flow in engine.flows.by_key.values()] == [2]
    assert tunnel.go(BACK)[0] is False


def test_a_flow_that_expires(filtering: Filtering, monkeypatch: pytest.MonkeyPatch) -> None:
    red, _, engine = filtering
    short = dict.fromkeys(flows.TIMEOUTS, 0.2)
    monkeypatch.setattr(flows, "TIMEOUTS", short)
    monkeypatch.setattr(filter_engine, "_PATIENCE", short)
    lease(red, OUT)
    flow = next(iter(engine.flows.by_key.values()))
    until = time.monotonic() + 0.5
    while time.monotonic() < until:  # a packet now and then keeps it
        time.sleep(0.02)
        assert red.go(OUT)[1]
    assert flow.expires > time.monotonic() and flow.packets > 9
    time.sleep(0.25)
    assert red.go(OUT)[0] is False
    assert next(iter(engine.flows.by_key.values())) is not flow


@pytest.mark.parametrize(
    "rule",
    [
        Rule(Action.ALLOW, log=True),
        Rule(Action.ALLOW, quota=Quota(5, 0)),
        Rule(Action.ALLOW, expires=1),
    ],
)
def test_rules_that_want_to_see_each_packet(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = Domain("filter", "filter", {"ruleset": encode(RuleSet((rule,)))}, kind=Counted)
    red = One(domain, "red_in", "tunnel_out")
    went = [red.go(OUT) for _ in range(8)]
    assert not any(is_short for is_short, _ in went)
    assert sum(len(out) for _, out in went) == (0 if rule.expires else 5 if rule.quota else 8)


def test_nothing_of_tcp_goes_shortly(filtering: Filtering) -> None:
    red, tunnel, _ = filtering
    for outward, packet in trace.handshake():
        (red if outward else tunnel).go(packet)
    data = trace.handshake()[2][1]
    assert [red.go(data)[0] for _ in range(4)] == [False] * 4
