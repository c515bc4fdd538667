"""A neighbour that writes anything anywhere into the memory it shares: where that ends is where the long way ends."""

from __future__ import annotations

import os
import signal
import socket
from random import Random
from typing import Any

import pytest

from appliance.vchan import layout
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.ring import PeerViolation
from components.filter.model import Action, Range, Rule, RuleSet, Side
from components.filter.ruleset import encode
from tests.budgets.domain import Domain
from tests.unit.short import roles
from tests.unit.short.twins import Counted

TRIALS = 150


def word(memory: memoryview, at: int, change: int) -> None:
    value = int.from_bytes(memory[at : at + 4], "little") + change & 0xFFFFFFFF
    memory[at : at + 4] = value.to_bytes(4, "little")


def damage(rng: Random, ring: Any, is_in: bool) -> list[tuple[str, int, int]]:
    """What to do to the end ``ring``: (how, where, what)."""
    far = ring._peer_live, ring._peer_wants
    change = rng.choice((1, -1, 4, 8, 2048, 2056, 1 << 16, 1 << 20, 1 << 31, -8, rng.randrange(1 << 32)))
    start, size = (ring._cons, ring._in_size) if is_in else (ring._prod, ring._out_size)
    choices = [
        ("word", 4 * (ring._peer_prod_word if rng.random() < 0.8 or is_in else ring._peer_cons_word), change),
        ("word", 4 * ring._peer_cons_word, change),
        ("word", 4 * rng.choice((ring._cons_word, ring._prod_word)), change),  # which is ours, and only stored
        ("byte", rng.choice(far), rng.choice((0, 1, 2, 3, 255))),
        ("ring", start % size, 1 << rng.randrange(8)),
    ]
    for _ in range(4):
        # The header of the frame, the first bytes of the message, and the last
        near = rng.choice((rng.randrange(8), rng.randrange(8, 16), rng.randrange(8, 160)))
        choices.append(("ring", (start + near) % size, rng.randrange(1, 256)))
    return rng.sample(choices, rng.choice((1, 1, 1, 2)))


def do(ring: Any, is_in: bool, what: list[tuple[str, int, int]]) -> None:
    for how, at, value in what:
        if how == "word":
            word(ring._shared, at, value)
        elif how == "byte":
            ring._shared[at] = value
        else:
            into = ring._in if is_in else ring._out
            into[at] ^= value


def place(domain: Domain, ports: tuple[str, str]) -> list[Any]:
    """Where all that has ended, as the domain itself sees it, and what lies in its rings for its peers."""
    found: list[Any] = [sorted(domain._guest._accused)]
    for port in ports:
        end = domain.near[port]
        ring: Any = end._vchan
        found += [ring.state, ring._cons, ring._prod, ring._header, end.statistics, end.is_wronged]
        found += [end._next_in, end._next_out, hash(bytes(ring._out))]  # type: ignore[attr-defined]
    return found


def renew(domain: Domain, ports: tuple[str, str]) -> None:
    """The peers die, and others come."""
    guest = domain._guest
    for port in ports:
        far = domain.far[port]
        far._vchan._shared[far._vchan._live] = layout.CLOSED
    guest._next_look = 0.0
    domain.settle()
    guest._accused.clear()
    for openings in guest._openings.values():
        openings.clear()
    for port in ports:
        far = domain.far[port]
        domain.far[port] = Endpoint(far._wire, far.side, far.schema)
    for _ in range(6):
        for port in ports:
            domain.far[port].progress()
        guest._next_look = 0.0
        domain.settle(1)
    domain.settle()
    assert all(domain.far[port].is_open and domain.near[port].is_open for port in ports)


def empty(device: Any) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(device.recv(1 << 16, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return found


@pytest.mark.parametrize("name", roles.ROLES)
def test_damage_ends_where_it_does_on_the_long_way(name: str) -> None:
    rng = Random(name)
    role = roles.ROLES[name]()
    pair, ports = role.pair, (role.inward, role.outward)
    passed = accused = 0
    for _ in range(TRIALS):
        for domain in pair.both:
            renew(domain, ports)
        for _ in range(2):
            pair.run(role.inward, [next(role.messages)], [port for port in ports if port == role.outward])
        pair.same(lambda domain: place(domain, ports))
        is_in = rng.random() < 0.7
        what = damage(rng, pair.short.near[ports[not is_in]]._vchan, is_in)
        is_full = rng.random() < 0.3
        message = next(role.messages)
        for domain in pair.both:
            if is_full:  # as far as this end knows: it has to look
                ring: Any = domain.near[role.outward]._vchan
                ring._seen_cons = ring._prod - ring._out_size & 0xFFFFFFFF
            domain.give(role.inward, [message])
            do(domain.near[ports[not is_in]]._vchan, is_in, what)
            for port in ports:
                domain.far[port]._wire.notify()
            domain.settle(4)
        pair.same(lambda domain: place(domain, ports))
        accused += bool(pair.short._guest._accused)
        passed += pair.short.near[role.inward].statistics.received
        if role.inward == "plain_in":
            assert empty(role.devices[0]) == empty(role.devices[1])
        for device in role.devices:
            empty(device)
    assert accused > TRIALS // 10 and passed
    assert pair.shortly(role.inward) > TRIALS // 10
    pair.check_counters()


def test_nothing_is_read_twice() -> None:
    """Another process writes into ring and indices all the time, between any two loads too: what comes out is only what
    the rules let out, by whatever way it went.
    """
    allowed = Rule(Action.ALLOW, sides=Side.RED, protocols=(17,), destination_ports=(Range(5202, 5202),))
    domain = Domain("filter", "filter", {"ruleset": encode(RuleSet((allowed,)))}, kind=Counted)
    ports = ("red_in", "tunnel_out")
    far = domain.far["red_in"]
    ring: Any = far._vchan
    packet = roles.lone(True)
    # Bytes that matter to the rules: length, protocol, destination, its port; and of the message that stands around it
    where = [rng % 120 for rng in range(8, 60)]
    child = os.fork()
    if not child:
        rng = Random(1)
        parent = os.getppid()
        while os.getppid() == parent:
            for _ in range(200):
                at = (int.from_bytes(ring._shared[layout.LEFT_CONS : layout.LEFT_CONS + 4], "little")) % ring._out_size
                at = (at + rng.choice(where)) % ring._out_size
                before = ring._out[at]
                ring._out[at] = before ^ 1 << rng.randrange(8)
                ring._out[at] = before
        os._exit(0)
    try:
        passed = 0
        for _ in range(4000):
            if not (far.is_open and domain.near["red_in"].is_open):
                renew(domain, ports)
                far = domain.far["red_in"]
                ring = far._vchan
            try:
                if far.send(packet):
                    far.flush()
            except PeerViolation:
                pass
            domain.settle(2)
            for group in domain.take("tunnel_out"):
                blob = bytes(group.packets)
                assert blob[0] >> 4 == 4 and blob[9] == 17 and group.peer == 0
                start = 4 * (blob[0] & 15)
                assert blob[start + 2 : start + 4] == (5202).to_bytes(2, "big")
                assert len(blob) == group.size == int.from_bytes(blob[2:4], "big")
                passed += 1
        assert passed > 100
        assert domain.near["tunnel_out"].shortly > 100  # type: ignore[attr-defined]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
