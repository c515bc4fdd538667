"""keymgr as config finds it: signed commits in, orders out, and nothing that nobody signed."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import pytest
from nacl.public import PublicKey, SealedBox
from septum.v1.applying import Apply, ApplyingRequest, BeginSection, Chunk, Enlist, Prepare, Revert, Settle
from septum.v1.peers import AskKeys, AskPeers, PeersRequest
from septum.v1.sent import SendReport

from appliance.guest.settings import SettingsError
from appliance.signed import canonical
from appliance.signed.peers import PeerEntry, encode
from appliance.signed.refusal import Why
from appliance.signed.statements import Role, Signed
from components.keymgr.noise import PrivateKey
from components.keymgr.sealing import SealingKey
from components.keymgr.section import Sections
from tests.unit.keymgr.test_keymgr_shell import FakeGuest, carry, left, settings_of
from tests.unit.keymgr.world import LEFT, LEFT_KEY, RIGHT, RIGHT_KEY
from tests.unit.signed.box import TRUST, Chain

ANCHOR = {"box": TRUST.box.hex(), "console": TRUST.console.hex()}
RIGHT_PUBLIC = PrivateKey(RIGHT_KEY).public
CHUNK = 61_440


def managed() -> FakeGuest:
    return FakeGuest(LEFT_KEY, trust=ANCHOR, joined=("commits", "peers"))


def entry(number: int = 1, name: str = "right", **other: Any) -> PeerEntry:
    given = {"public_key": RIGHT_PUBLIC, "allowed_ips": ("10.1.0.0/16",), "endpoint": "10.0.0.2:51820", **other}
    return PeerEntry(number, name, **given)


def sealing_key(guest: FakeGuest) -> bytes:
    return guest.asked["peers"](PeersRequest(keys=AskKeys())).keys.sealing_key


def sealed(key: bytes, to: bytes) -> bytes:
    return bytes(SealedBox(PublicKey(to)).encrypt(key))


class Carrier:
    """config's part, for a guest that is asked."""

    def __init__(self, guest: FakeGuest) -> None:
        self.guest = guest
        self.chain = Chain()
        self.chain.add("olga", Role.OPERATOR)
        for signed in self.chain.statements:
            self.ask(enlist=Enlist(statement=signed.statement, signature=signed.signature))

    def ask(self, **what: Any) -> Any:
        reply = self.guest.asked["commits"](ApplyingRequest(**what))
        return getattr(reply, reply.WhichOneof("answer"))

    def prepare(self, section: bytes, signed: Signed) -> Any:
        self.ask(begin=BeginSection(total=len(section)))
        for at in range(0, len(section), CHUNK):
            self.ask(chunk=Chunk(offset=at, data=section[at : at + CHUNK]))
        return self.ask(prepare=Prepare(statement=signed.statement, signature=signed.signature))

    def commit(self, peers: Iterable[PeerEntry] | bytes, by: str = "olga", **other: Any) -> Any:
        section = peers if isinstance(peers, bytes) else encode(peers)
        done = self.prepare(section, self.chain.commit(by, section, **other))
        return self.ask(apply=Apply(revision=len(self.chain.commits))) if hasattr(done, "number") else done


def orders(guest: FakeGuest, kind: str) -> list[Any]:
    return guest.outs["encrypt_orders"].orders(kind)


def test_peers_come_with_a_signed_commit_and_go_with_the_next() -> None:
    a, b = managed().start(), FakeGuest(RIGHT_KEY, settings_of(LEFT_KEY, LEFT)).start()
    assert a.counters["peers"].value == 0 and not orders(a, "peer")
    config = Carrier(a)
    assert config.commit([entry()]).number == 1
    a.turn()
    assert [(order.peer, order.public_key) for order in orders(a, "peer")] == [(1, RIGHT_PUBLIC)]
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(a, b, LEFT)
    carry(b, a, RIGHT)
    (page,) = a.asked["peers"](PeersRequest(peers=AskPeers())).peers.page
    assert (page.number, page.public_key, page.address, page.port) == (1, RIGHT_PUBLIC, *RIGHT)
    assert a.counters["sessions"].value == 1 and a.rows
    done = config.commit([])
    assert (done.number, done.kept, done.ended) == (2, 0, 1)
    a.turn()
    assert orders(a, "only")[-1].peers == b"" and not a.rows
    assert a.counters["peers"].value == a.counters["sessions"].value == 0
    assert (
        "info",
        "peers-changed",
        "revision 2 by olga: 0 peers; 0 sessions live on, 1 sessions of others were ended",
    ) in a.lines
    assert not a.asked["peers"](PeersRequest(peers=AskPeers())).peers.page


def test_a_commit_that_is_not_confirmed_is_taken_back() -> None:
    a = managed().start()
    config = Carrier(a)
    config.commit([entry()])
    assert config.commit([entry(), entry(2, "third", public_key=b"\7" * 32, allowed_ips=())], confirm=300).number == 2
    a.turn()
    assert a.counters["peers"].value == 2
    assert config.ask(revert=Revert(revision=2)).number == 1
    a.turn()
    assert a.counters["peers"].value == 1 and orders(a, "only")[-1].peers == b"\2"
    assert config.ask(revert=Revert(revision=1)).kind == Why.UNKNOWN
    assert config.ask(settle=Settle(revision=1)).number == 1


def test_a_preshared_key_is_sealed_to_keymgr() -> None:
    psk = b"\x07" * 32
    a = managed().start()
    b = FakeGuest(RIGHT_KEY, {**settings_of(LEFT_KEY, LEFT), "preshared_key": base64.b64encode(psk).decode()}).start()
    config = Carrier(a)
    section = encode([entry(preshared_key=sealed(psk, sealing_key(a)))])
    assert psk not in section and base64.b64encode(psk) not in section
    config.commit(section)
    a.take("encrypt_reports", SendReport(peer=1, wanted=True))
    carry(a, b, LEFT)
    carry(b, a, RIGHT)
    assert a.counters["handshakes"].value == 1


def test_the_sealing_key_is_the_private_keys_and_tells_nothing_of_it() -> None:
    a, again, other = managed(), managed(), FakeGuest(RIGHT_KEY, trust=ANCHOR, joined=("commits", "peers"))
    assert sealing_key(a) == sealing_key(again) != sealing_key(other)
    keys = a.asked["peers"](PeersRequest(keys=AskKeys())).keys
    assert keys.public_key == PrivateKey(LEFT_KEY).public != keys.sealing_key
    # HKDF by another implementation
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.hashes import BLAKE2s
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derived = HKDF(BLAKE2s(32), 32, salt=b"septum sealing key v1", info=b"").derive(LEFT_KEY)
    assert X25519PrivateKey.from_private_bytes(derived).public_key().public_bytes_raw() == keys.sealing_key


@pytest.mark.parametrize(
    ("peers", "path", "why"),
    [
        ([entry(public_key=PrivateKey(LEFT_KEY).public)], "peers[0].public_key", "our own"),
        ([entry(preshared_key=bytes(80))], "peers[0].preshared_key", "not sealed to this box"),
        (
            [entry(preshared_key=sealed(b"\1" * 32, b"\x09" + bytes(31)))],
            "peers[0].preshared_key",
            "not sealed to this",
        ),
        (b'{"peers":[{"number":1}]}', "peers[0].name", "missing"),
        (b'{"peers": []}', "", "not canonical"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_and_nothing_changes(peers: Any, path: str, why: str) -> None:
    a = managed().start()
    config = Carrier(a)
    config.commit([entry()])
    a.turn()
    sent = len(a.outs["encrypt_orders"].sent)
    refused = config.commit(peers)
    assert refused.kind in (Why.INVALID, Why.MALFORMED) and refused.path == path and why in refused.why
    assert config.ask(apply=Apply(revision=2)).kind == Why.UNKNOWN
    a.turn()
    assert len(a.outs["encrypt_orders"].sent) == sent


def test_who_only_carries_commits_can_make_up_none() -> None:
    a = managed().start()
    config = Carrier(a)
    good = encode([entry()])
    signed = config.chain.commit("olga", good)
    flipped = bytes([signed.signature[0] ^ 1]) + signed.signature[1:]
    assert config.prepare(good, Signed(signed.statement, flipped)).kind == Why.BAD_SIGNATURE
    assert config.prepare(good.replace(b"10.1.0.0/16", b"10.9.0.0/16"), signed).kind == Why.INVALID
    config.chain.commits.clear()
    assert config.prepare(good, config.chain.commit("mallory", good)).kind == Why.BAD_SIGNATURE
    config.chain.commits.clear()
    assert config.prepare(good, config.chain.commit("olga", good)).number == 0
    config.ask(apply=Apply(revision=1))
    other = encode([entry(endpoint="")])
    config.commit(other)
    assert config.prepare(good, config.chain.commits[0]).kind == Why.STALE, "what was in force does not come back"
    assert canonical.digest(good) != canonical.digest(other)


def test_what_is_prepared_stays_so_if_the_answer_came_too_late_for_who_asked() -> None:
    a = managed().start()
    config = Carrier(a)
    section = encode([entry()])
    signed = config.chain.commit("olga", section)
    config.prepare(section, signed)
    again = config.ask(prepare=Prepare(statement=signed.statement, signature=signed.signature))
    assert again.number == 0
    assert config.ask(apply=Apply(revision=1)).number == 1
    config.ask(begin=BeginSection(total=2))
    other = config.chain.commit("olga", b"{}")
    assert config.ask(prepare=Prepare(statement=other.statement, signature=other.signature)).kind == Why.INVALID
    assert config.ask(apply=Apply(revision=2)).kind == Why.UNKNOWN


def test_config_and_trust_come_together() -> None:
    with pytest.raises(SettingsError, match="trust: must be there if config is joined"):
        FakeGuest(LEFT_KEY, joined=("commits",))
    with pytest.raises(SettingsError, match="trust: must be there if config is joined"):
        FakeGuest(LEFT_KEY, trust=ANCHOR)
    assert not left().asked, "a box that nobody manages has neither port"


def test_a_sealed_key_is_opened_once_however_often_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sealing = SealingKey(LEFT_KEY)
    opened: list[bytes] = []
    real = SealingKey.open
    monkeypatch.setattr(SealingKey, "open", lambda self, box: (opened.append(box), real(self, box))[1])
    sections = Sections(PrivateKey(LEFT_KEY).public, sealing, lambda: None)
    first = entry(preshared_key=sealed(b"\1" * 32, sealing.public))
    second = entry(2, "other", public_key=b"\7" * 32, allowed_ips=(), preshared_key=sealed(b"\2" * 32, sealing.public))
    before = sections.read(encode([first]))
    after = sections.read(encode([first, second]))
    assert after[1] is before[1] and opened == [first.preshared_key, second.preshared_key]
