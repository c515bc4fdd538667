"""The handshake against an independent implementation of Noise (PyPI noiseprotocol), message by message."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from components.keymgr.constants import IDENTIFIER, INITIATION, RESPONSE
from components.keymgr.messages import Initiation, Response, pack_initiation, pack_response, parse
from components.keymgr.noise import NO_PSK, HandshakeError, Initiator, PrivateKey, Responder

# Fixed keys are the point here
pytestmark = pytest.mark.filterwarnings("ignore:One of ephemeral keypairs")

ALICE, BOB, EPHEMERAL_A, EPHEMERAL_B = (bytes([n]) * 32 for n in (0x11, 0x22, 0x33, 0x44))
PSK = bytes(range(32))
TIMESTAMP = bytes(range(12))
INDEX_A, INDEX_B = 0x01020304, 0xA1A2A3A4
NO_MACS = bytes(32)


def theirs(initiator: bool, psk: bytes, static: bytes, ephemeral: bytes, remote: bytes | None) -> NoiseConnection:
    """One end of the other implementation, with fixed keys."""
    noise = NoiseConnection.from_name(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    noise.set_prologue(b"WireGuard v1 zx2c4 Jason@zx2c4.com")
    noise.set_psks(psk)
    noise.set_as_initiator() if initiator else noise.set_as_responder()
    noise.set_keypair_from_private_bytes(Keypair.STATIC, static)
    noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
    if remote is not None:
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
    noise.start_handshake()
    return noise


def keys_of(noise: NoiseConnection) -> tuple[bytes, bytes]:
    """(send, receive) of the other implementation."""
    protocol = noise.noise_protocol
    return protocol.cipher_state_encrypt.k, protocol.cipher_state_decrypt.k


def begin(psk: bytes = NO_PSK, responder: bytes = BOB) -> Initiator:
    alice, public = PrivateKey(ALICE), PrivateKey(responder).public
    return Initiator(
        alice, public, alice.dh(public), psk=psk, ephemeral=EPHEMERAL_A, index=INDEX_A, timestamp=TIMESTAMP
    )


def initiation_of(initiator: Initiator) -> Initiation:
    message = parse(initiator.body + NO_MACS)
    assert isinstance(message, Initiation)
    return message


def response_of(body: bytes) -> Response:
    message = parse(body + NO_MACS)
    assert isinstance(message, Response)
    return message


@pytest.mark.parametrize("psk", [NO_PSK, PSK], ids=["no psk", "psk"])
def test_we_begin_and_they_answer(psk: bytes) -> None:
    ours, other = begin(psk), theirs(False, psk, BOB, EPHEMERAL_B, None)
    # Theirs has no type and index: 4 + 4 bytes before the Noise message
    assert ours.body[:8] == INITIATION.to_bytes(4, "little") + INDEX_A.to_bytes(4, "little")
    assert other.read_message(ours.body[8:]) == TIMESTAMP
    reply = bytes(other.write_message(b""))
    keys = ours.finish(Response(INDEX_B, INDEX_A, reply[:32], reply[32:]))
    assert (keys.receive, keys.send) == keys_of(other)
    assert keys.send != keys.receive


@pytest.mark.parametrize("psk", [NO_PSK, PSK], ids=["no psk", "psk"])
def test_they_begin_and_we_answer(psk: bytes) -> None:
    bob = PrivateKey(BOB)
    other = theirs(True, psk, ALICE, EPHEMERAL_A, bob.public)
    message = bytes(other.write_message(TIMESTAMP))
    ours = Responder(bob, Initiation(INDEX_A, message[:32], message[32:80], message[80:]))
    assert ours.untrusted_peer == PrivateKey(ALICE).public
    assert ours.authenticate(bob.dh(ours.untrusted_peer)) == TIMESTAMP
    body, keys = ours.respond(INDEX_B, psk, EPHEMERAL_B)
    assert body[:12] == b"".join(n.to_bytes(4, "little") for n in (RESPONSE, INDEX_B, INDEX_A))
    assert other.read_message(body[12:]) == b""
    assert (keys.receive, keys.send) == keys_of(other)


@pytest.mark.parametrize("psk", [NO_PSK, PSK], ids=["no psk", "psk"])
def test_both_implementations_write_the_same_bytes(psk: bytes) -> None:
    bob = PrivateKey(BOB)
    initiator, other_initiator = begin(psk), theirs(True, psk, ALICE, EPHEMERAL_A, bob.public)
    assert initiator.body[8:] == other_initiator.write_message(TIMESTAMP)
    other_responder = theirs(False, psk, BOB, EPHEMERAL_B, None)
    other_responder.read_message(initiator.body[8:])
    responder = Responder(bob, initiation_of(initiator))
    responder.authenticate(bob.dh(responder.untrusted_peer))
    body, keys = responder.respond(INDEX_B, psk, EPHEMERAL_B)
    assert body[12:] == other_responder.write_message(b"")
    ours = initiator.finish(response_of(body))
    assert (ours.send, ours.receive) == (keys.receive, keys.send)


def test_the_prologue_is_the_identifier() -> None:
    """As in 5.4, which mixes it into the hash just like a Noise prologue."""
    assert IDENTIFIER == b"WireGuard v1 zx2c4 Jason@zx2c4.com"


def answer_to(initiator: Initiator, psk: bytes = NO_PSK) -> bytes:
    bob = PrivateKey(BOB)
    responder = Responder(bob, initiation_of(initiator))
    responder.authenticate(bob.dh(responder.untrusted_peer))
    return responder.respond(INDEX_B, psk, EPHEMERAL_B)[0]


def test_an_initiation_to_another_responder_is_refused() -> None:
    with pytest.raises(HandshakeError):
        Responder(PrivateKey(EPHEMERAL_B), initiation_of(begin()))


def test_a_wrong_psk_is_refused_and_the_right_one_still_welcome() -> None:
    initiator = begin(PSK)
    with pytest.raises(HandshakeError):
        initiator.finish(response_of(answer_to(initiator, NO_PSK)))
    initiator.finish(response_of(answer_to(initiator, PSK)))


def test_one_who_only_knows_the_initiators_public_key_is_refused() -> None:
    """The static key in an initiation proves nothing yet; the timestamp under DH(S_i, S_r) does."""
    bob, mallory, alice_public = PrivateKey(BOB), PrivateKey(EPHEMERAL_B), PrivateKey(ALICE).public

    class Impostor(PrivateKey):
        def __init__(self) -> None:
            super().__init__(EPHEMERAL_B)
            self.public = alice_public

    forged = Initiator(
        Impostor(),
        bob.public,
        mallory.dh(bob.public),
        psk=NO_PSK,
        ephemeral=EPHEMERAL_A,
        index=INDEX_A,
        timestamp=TIMESTAMP,
    )
    responder = Responder(bob, initiation_of(forged))
    assert responder.untrusted_peer == alice_public
    with pytest.raises(HandshakeError):
        responder.authenticate(bob.dh(alice_public))


@settings(max_examples=150, deadline=None)
@given(st.integers(8 * 8, 116 * 8 - 1))
def test_a_flipped_bit_of_an_initiation_is_refused(bit: int) -> None:
    """All but type and index, which mac1 covers (see test_manager.py)."""
    body = bytearray(begin().body)
    body[bit // 8] ^= 1 << bit % 8
    bob = PrivateKey(BOB)
    # RFC 7748 section 5: the top bit of a point is ignored, but it is hashed all the same
    with pytest.raises(HandshakeError):
        Responder(bob, initiation_of_body(body)).authenticate(bob.dh(PrivateKey(ALICE).public))


def initiation_of_body(body: bytearray) -> Initiation:
    message = parse(bytes(body) + NO_MACS)
    assert isinstance(message, Initiation)
    return message


@settings(max_examples=150, deadline=None)
@given(st.integers(12 * 8, 60 * 8 - 1))
def test_a_flipped_bit_of_a_response_is_refused_and_the_genuine_one_still_welcome(bit: int) -> None:
    initiator = begin()
    genuine = answer_to(initiator)
    body = bytearray(genuine)
    body[bit // 8] ^= 1 << bit % 8
    with pytest.raises(HandshakeError):
        initiator.finish(response_of(bytes(body)))
    assert len(initiator.finish(response_of(genuine)).send) == 32


def test_what_a_handshake_leaves_behind_is_zeros() -> None:
    initiator = begin(PSK)
    keys = initiator.finish(response_of(answer_to(initiator, PSK)))
    state = initiator._state
    initiator.wipe()
    assert state.chain == bytes(32)
    send, receive = keys.send, keys.receive
    keys.wipe()
    assert send == receive == bytes(32)
    assert "_ephemeral" not in {name for name in dir(initiator) if hasattr(initiator, name)}


def test_no_secret_has_a_repr() -> None:
    initiator = begin(PSK)
    keys = initiator.finish(response_of(answer_to(initiator, PSK)))
    for thing in (initiator, keys, PrivateKey(ALICE)):
        assert repr(thing).startswith("<components.keymgr.noise.")


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=48, max_size=48), st.integers(0, 2**32 - 1))
def test_packing_is_the_inverse_of_parsing(ephemeral: bytes, static: bytes, index: int) -> None:
    initiation = Initiation(index, ephemeral, static, static[:28], static[:16], static[16:32])
    assert parse(pack_initiation(initiation) + initiation.mac1 + initiation.mac2) == initiation
    response = Response(index, index ^ 1, ephemeral, static[:16], static[:16], static[16:32])
    assert parse(pack_response(response) + response.mac1 + response.mac2) == response
