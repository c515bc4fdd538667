"""The box goes over to another private key: a spare one that nobody but keymgr has seen, at a signed word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from septum.v1.applying import ApplyingRequest, Enlist
from septum.v1.peers import AskKeys, PeersRequest

from appliance.signed.keyproof import Question
from appliance.signed.refusal import Refusal, Why
from appliance.signed.statements import Role
from appliance.signed.trust import Trust
from components.keymgr.floor import NONCE, VERSIONS, FloorError
from components.keymgr.noise import PrivateKey
from components.keymgr.ownkeys import OwnKeys
from tests.unit.keymgr.test_keymgr_shell import FakeGuest, Store
from tests.unit.keymgr.test_managed import ANCHOR, Carrier, entry
from tests.unit.keymgr.world import LEFT, LEFT_KEY, RIGHT, RIGHT_KEY, Box, World, peer
from tests.unit.signed.box import Chain

TRUST = Trust(b"\1" * 32, b"\2" * 32)
LEFT_PUBLIC = PrivateKey(LEFT_KEY).public
SPARE = b"\x55" * 32


def own() -> OwnKeys:
    return OwnKeys(LEFT_KEY, LEFT_PUBLIC)


def test_a_spare_is_known_by_its_public_half_once_it_is_stored() -> None:
    keys = own()
    assert keys.due(LEFT_PUBLIC) is None, "not before it is known what is stored already"
    keys.load(0, b"")
    assert keys.due(LEFT_PUBLIC) == 0.0
    put = keys.make(LEFT_PUBLIC, SPARE, bytes(NONCE))
    assert keys.spare(LEFT_PUBLIC) == b"" and keys.due(LEFT_PUBLIC) is None and SPARE not in put.blob
    keys.stored(put)
    assert keys.spare(LEFT_PUBLIC) == PrivateKey(SPARE).public
    again = own()
    again.load(put.version, put.blob)
    assert again.spare(LEFT_PUBLIC) == PrivateKey(SPARE).public and again.due(LEFT_PUBLIC) is None
    found = again.find(PrivateKey(SPARE).public)
    assert found is not None and found.public == PrivateKey(SPARE).public and again.find(LEFT_PUBLIC) is None


def test_the_next_spare_takes_the_place_of_the_key_that_was_given_up() -> None:
    keys = own()
    keys.load(0, b"")
    publics = []
    in_force = LEFT_PUBLIC
    for n in range(1, 5):
        put = keys.make(in_force, bytes([n]) * 32, bytes(NONCE))
        keys.stored(put)
        publics.append(keys.spare(in_force))
        in_force = publics[-1]
    again = own()
    again.load(put.version, put.blob)
    assert [again.find(public) is not None for public in publics] == [False, False, True, True]


def test_a_store_that_fails_forges_or_rolls_back_gives_no_key_that_was_not_made() -> None:
    keys = own()
    keys.load(0, b"")
    put = keys.make(LEFT_PUBLIC, SPARE, bytes(NONCE))
    keys.failed(5.0)
    assert keys.spare(LEFT_PUBLIC) == b"" and keys.due(LEFT_PUBLIC) == 15.0
    for version, blob in (
        (1, put.blob[:-1] + b"\0"),
        (2, put.blob),
        (1, b"short"),
        (1, bytes(200)),
        (VERSIONS, put.blob),
    ):
        with pytest.raises(FloorError):
            own().load(version, blob)
    other = OwnKeys(RIGHT_KEY, PrivateKey(RIGHT_KEY).public)
    with pytest.raises(FloorError):
        other.load(1, put.blob)


def test_handshakes_are_made_with_the_new_key_and_sessions_live_on() -> None:
    world = World()
    left = Box(world, LEFT_KEY, LEFT, [], TRUST)
    right = Box(world, RIGHT_KEY, RIGHT, [peer(LEFT_KEY, LEFT)])
    left.follow({1: peer(RIGHT_KEY, RIGHT)})
    assert left.identity == LEFT_PUBLIC
    left.send("hello")
    world.run(5.0)
    spare = left.manager.spare_key
    assert spare and spare != LEFT_PUBLIC
    session = left.encrypt.sessions[1]
    left.did(lambda manager, now: manager.rekey(spare, now))
    assert left.manager.public_key == left.identity == spare and left.encrypt.sessions[1] is session
    left.send("by the session from before")
    world.run(6.0)
    right.manager._peers[1].begin(world.now, urgent=True)
    right.did(lambda manager, now: [])
    world.run(7.0)
    assert left.manager.counters()["refused"] == 1, "who knows the old key is not answered"
    right.follow({1: replace(peer(LEFT_KEY, LEFT), public_key=spare)})
    right.send("by the new key")
    world.run(20.0)
    assert [data for _, data in right.got] == ["hello", "by the session from before"]
    assert [data for _, data in left.got] == ["by the new key"]
    assert left.manager.spare_key not in (b"", spare, LEFT_PUBLIC), "and there is a spare again"


def test_a_reborn_box_has_the_key_that_was_signed_last_and_answers_by_no_other() -> None:
    world = World()
    left = Box(world, LEFT_KEY, LEFT, [], TRUST)
    left.follow({})
    world.run(1.0)
    spare = left.manager.spare_key
    left.did(lambda manager, now: manager.rekey(spare, now))
    world.run(2.0)
    left.boot()
    left.did(lambda manager, now: manager.rekey(spare, now))
    left.follow({})
    assert left.identity == left.manager.public_key == spare
    left.store = {name: blob for name, blob in left.store.items() if not name.startswith("keys.")}
    left.boot()
    left.did(lambda manager, now: manager.rekey(spare, now))
    left.follow({})
    assert left.manager.public_key == LEFT_PUBLIC and not left.manager.is_ready()
    assert left.counts()["key-missing"] >= 1
    left.did(lambda manager, now: manager.rekey(LEFT_PUBLIC, now))
    assert left.manager.is_ready(), "the key that the box was made with is always there"


def managed(store: Store) -> FakeGuest:
    return FakeGuest(LEFT_KEY, trust=ANCHOR, joined=("commits", "peers", "identity"), store=store).start()


def keys_of(guest: FakeGuest) -> Any:
    return guest.asked["peers"](PeersRequest(keys=AskKeys())).keys


def enlist(config: Carrier, signed: Any) -> Any:
    config.chain.take(signed)
    return config.ask(enlist=Enlist(statement=signed.statement, signature=signed.signature))


def test_a_security_officer_has_it_go_over_and_black_is_told() -> None:
    a = managed(store := Store())
    config = Carrier(a)
    assert not a.outs["identity"].sent and keys_of(a).next_public_key == b"", (
        "nothing before it is told who it is to be"
    )
    config.commit([entry()])
    a.turn()
    first = keys_of(a).next_public_key
    assert len(first) == 32 and a.outs["identity"].sent[-1].public_key == LEFT_PUBLIC
    for _ in range(2):
        spare = keys_of(a).next_public_key
        sealing = keys_of(a).sealing_key
        enlist(config, config.chain.rekey(spare))
        a.turn()
        assert keys_of(a).public_key == a.outs["identity"].sent[-1].public_key == spare
        assert keys_of(a).sealing_key == sealing, "preshared keys can still be read"
    assert "rekeyed" in a.events()
    b = managed(store)
    for signed in config.chain.statements:
        b.asked["commits"](ApplyingRequest(enlist=Enlist(statement=signed.statement, signature=signed.signature)))
    assert not b.outs["identity"].sent, "of the keys in a roster that is replayed, the last one counts"
    again = Carrier.__new__(Carrier)
    again.guest, again.chain = b, config.chain
    again.commit([entry()])
    assert keys_of(b).public_key == spare != first and b.outs["identity"].sent[-1].public_key == spare
    assert "key-missing" not in b.events()
    b.outs["identity"].sent.clear()
    b.opened["identity"](b.now)
    assert b.outs["identity"].sent[-1].public_key == spare, "a reborn black is told too"


def test_whoever_is_no_security_officer_cannot() -> None:
    a = managed(Store())
    config = Carrier(a)
    config.commit([entry()])
    a.turn()
    signed = config.chain.rekey(keys_of(a).next_public_key, by="olga")
    refused = config.ask(enlist=Enlist(statement=signed.statement, signature=signed.signature))
    assert refused.kind == Why.NOT_PERMITTED and keys_of(a).public_key == LEFT_PUBLIC


def test_a_roster_takes_a_rekey_once() -> None:
    chain = Chain()
    chain.add("olga", Role.OPERATOR)
    chain.take(chain.rekey(SPARE))
    assert chain.roster.key == SPARE
    with pytest.raises(Refusal) as refused:
        chain.take(chain.rekey(SPARE))
    assert refused.value.why is Why.UNCHANGED


def rehearse(config: Carrier, signed: Any) -> Any:
    return config.ask(enlist=Enlist(statement=signed.statement, signature=signed.signature, rehearse=True))


def test_a_key_that_was_not_made_here_is_refused_before_it_is_decided() -> None:
    a = managed(Store())
    config = Carrier(a)
    config.commit([entry()])
    a.turn()
    refused = rehearse(config, config.chain.rekey(b"\x66" * 32))
    assert (refused.kind, refused.path) == (Why.UNKNOWN, "key") and "has made" in refused.why
    for key in (keys_of(a).next_public_key, LEFT_PUBLIC):
        assert rehearse(config, config.chain.rekey(key)).number == config.chain.roster.serial
    assert rehearse(config, config.chain.rekey(keys_of(a).next_public_key, by="olga")).kind == Why.NOT_PERMITTED
    assert keys_of(a).public_key == LEFT_PUBLIC and "rekeyed" not in a.events(), "nothing has changed"


def test_keys_are_proved_to_who_knows_the_one_in_force_and_to_nobody_else() -> None:
    a = managed(Store())
    config = Carrier(a)
    config.commit([entry()])
    a.turn()
    for rotates in (False, True):
        if rotates:
            enlist(config, config.chain.rekey(keys_of(a).next_public_key))
            a.turn()
        question = Question(b"\x07" * 32)
        keys = a.asked["peers"](PeersRequest(keys=AskKeys(challenge=question.challenge))).keys
        known, sealing, spare, proof = keys.public_key, keys.sealing_key, keys.next_public_key, keys.proof
        assert question.is_answered(known, sealing, spare, proof)
        other = b"\x66" * 32
        assert not question.is_answered(other, sealing, spare, proof)
        assert not question.is_answered(known, other, spare, proof)
        assert not question.is_answered(known, sealing, other, proof)
        assert not question.is_answered(known, sealing, b"", proof)
        assert not question.is_answered(known, sealing, spare, b"")
        assert not question.is_answered(bytes(32), sealing, spare, proof)
        assert not Question(b"\x08" * 32).is_answered(known, sealing, spare, proof), "another question"
    for bad in (b"\1", bytes(32)):
        assert not a.asked["peers"](PeersRequest(keys=AskKeys(challenge=bad))).keys.proof
    assert not keys_of(a).proof
