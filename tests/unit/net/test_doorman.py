"""The doorman, against the formulas of the WireGuard paper written out once more."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from components.net.doorman import (
    COOKIE_SECRET_TIME,
    LOAD_BURST,
    LOAD_TIME,
    REPLY_BURST,
    SOURCE_BURST,
    Doorman,
    Verdict,
    is_transport,
)

PUBLIC = bytes(range(32))
RANDOM = bytes(range(100, 164))
PLACE = (bytes((192, 0, 2, 1)), 1234)
SIZES = {1: 148, 2: 92}


def mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def handshake(kind: int = 1, public: bytes = PUBLIC, cookie: bytes | None = None, fill: bytes | None = None) -> bytes:
    """Type ``kind`` with a right mac1, and a right mac2 if there is a cookie (section 5.4.4)."""
    body = kind.to_bytes(4, "little") + (fill or os.urandom(SIZES[kind] - 36))
    body += mac(hashlib.blake2s(b"mac1----" + public).digest(), body)
    return body + (bytes(16) if cookie is None else mac(cookie, body))


def cookie_of(reply: bytes, asked: bytes, public: bytes = PUBLIC) -> bytes:
    """What the one who asked reads in a cookie reply (section 5.4.7)."""
    assert (len(reply), reply[:4]) == (64, b"\3\0\0\0")
    assert reply[4:8] == asked[4:8], "the receiver index is the sender's of what was asked"
    key = hashlib.blake2s(b"cookie--" + public).digest()
    return crypto_aead_xchacha20poly1305_ietf_decrypt(reply[32:], asked[-32:-16], reply[8:32], key)


def judge(
    doorman: Doorman, datagram: bytes, place: tuple[bytes, int] = PLACE, now: float = 10.0, pressed: bool = False
) -> tuple[Verdict, bytes]:
    return doorman.judge(memoryview(datagram), *place, now, pressed)


def loaded() -> Doorman:
    """A doorman that has a secret; tests press it."""
    doorman = Doorman(PUBLIC)
    doorman.renew(RANDOM, 0.0)
    return doorman


def test_types_and_lengths() -> None:
    doorman = Doorman(PUBLIC)
    for kind, size, verdict in (
        (1, 148, Verdict.BAD_MAC1),
        (2, 92, Verdict.BAD_MAC1),
        (3, 64, Verdict.HANDSHAKE),
        (4, 32, Verdict.TRANSPORT),
        (4, 33, Verdict.TRANSPORT),
        (4, 1452, Verdict.TRANSPORT),
        (4, 31, Verdict.MALFORMED),
        (1, 147, Verdict.MALFORMED),
        (1, 149, Verdict.MALFORMED),
        (2, 148, Verdict.MALFORMED),
        (3, 92, Verdict.MALFORMED),
        (0, 148, Verdict.MALFORMED),
        (5, 148, Verdict.MALFORMED),
        (0x101, 148, Verdict.MALFORMED),
        (0x01000004, 148, Verdict.MALFORMED),
    ):
        assert judge(doorman, kind.to_bytes(4, "little") + bytes(size - 4)) == (verdict, b""), (kind, size)
    for size in range(4):
        assert judge(doorman, bytes(size)) == (Verdict.MALFORMED, b"")


@pytest.mark.parametrize("kind", [1, 2])
def test_a_right_mac1_opens_the_door(kind: int) -> None:
    assert judge(Doorman(PUBLIC), handshake(kind)) == (Verdict.HANDSHAKE, b"")


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("at", [4, 40, -32, -17])
def test_a_wrong_mac1_does_not(kind: int, at: int) -> None:
    forged = bytearray(handshake(kind))
    forged[at] ^= 1
    assert judge(Doorman(PUBLIC), bytes(forged)) == (Verdict.BAD_MAC1, b"")
    assert judge(Doorman(PUBLIC), handshake(kind, public=bytes(32))) == (Verdict.BAD_MAC1, b"")


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("place", [PLACE, (bytes.fromhex("20010db8" + "00" * 11 + "01"), 51820)])
def test_under_load_only_a_cookie_opens_it(kind: int, place: tuple[bytes, int]) -> None:
    doorman = loaded()
    asked = handshake(kind)
    verdict, reply = judge(doorman, asked, place, pressed=True)
    assert verdict is Verdict.COOKIE
    cookie = cookie_of(reply, asked)
    assert cookie == mac(RANDOM[:32], place[0] + place[1].to_bytes(2, "big"))
    assert judge(doorman, handshake(kind, cookie=cookie), place, pressed=True) == (Verdict.HANDSHAKE, b"")
    other_port = (place[0], place[1] + 1)
    assert judge(doorman, handshake(kind, cookie=cookie), other_port, pressed=True)[0] is Verdict.COOKIE
    other_host = (bytes(len(place[0])), place[1])
    assert judge(doorman, handshake(kind, cookie=cookie), other_host, pressed=True)[0] is Verdict.COOKIE


def test_a_cookie_ends_with_its_secret() -> None:
    doorman = loaded()
    assert doorman.secret_due() == COOKIE_SECRET_TIME
    asked = handshake()
    cookie = cookie_of(judge(doorman, asked, pressed=True)[1], asked)
    doorman.renew(bytes(64), COOKIE_SECRET_TIME)
    assert judge(doorman, handshake(cookie=cookie), pressed=True)[0] is Verdict.COOKIE


def test_no_nonce_of_a_cookie_reply_comes_twice() -> None:
    doorman = loaded()
    asked = handshake()
    replies = [judge(doorman, asked, pressed=True)[1] for _ in range(500)]
    doorman.renew(bytes(64), 1.0)
    replies += [judge(doorman, asked, pressed=True)[1] for _ in range(500)]
    assert len({reply[8:32] for reply in replies}) == 1000


def test_without_a_secret_a_load_finds_the_door_shut() -> None:
    doorman = Doorman(PUBLIC)
    assert judge(doorman, handshake(), pressed=True) == (Verdict.RATE_LIMITED, b"")
    assert judge(doorman, handshake(cookie=bytes(16)), pressed=True) == (Verdict.RATE_LIMITED, b"")
    assert judge(doorman, handshake(), now=10.0 + LOAD_TIME) == (Verdict.HANDSHAKE, b""), "without load all is well"


def test_a_secret_has_one_length() -> None:
    for size in (0, 63, 65):
        with pytest.raises(ValueError, match="64"):
            Doorman(PUBLIC).renew(bytes(size), 0.0)


def test_a_proven_source_has_its_rate_and_no_more() -> None:
    doorman = loaded()
    cookie = mac(RANDOM[:32], PLACE[0] + PLACE[1].to_bytes(2, "big"))
    verdicts = [judge(doorman, handshake(cookie=cookie), pressed=True)[0] for _ in range(SOURCE_BURST + 3)]
    assert verdicts == [Verdict.HANDSHAKE] * SOURCE_BURST + [Verdict.RATE_LIMITED] * 3


def test_nobody_can_use_up_the_rate_of_another() -> None:
    doorman = loaded()
    for _ in range(100):
        assert judge(doorman, handshake(), pressed=True)[0] is Verdict.COOKIE  # forged source, no cookie
    cookie = mac(RANDOM[:32], PLACE[0] + PLACE[1].to_bytes(2, "big"))
    assert judge(doorman, handshake(cookie=cookie), pressed=True)[0] is Verdict.HANDSHAKE


def test_one_ipv6_host_is_a_whole_64() -> None:
    doorman = loaded()
    verdicts = []
    for n in range(SOURCE_BURST + 1):
        place = (bytes.fromhex("20010db800000000") + n.to_bytes(8, "big"), 5)
        cookie = mac(RANDOM[:32], place[0] + place[1].to_bytes(2, "big"))
        verdicts.append(judge(doorman, handshake(cookie=cookie), place, pressed=True)[0])
    assert verdicts == [Verdict.HANDSHAKE] * SOURCE_BURST + [Verdict.RATE_LIMITED]


def test_a_flood_is_a_load_and_lasts() -> None:
    doorman = loaded()
    verdicts = [judge(doorman, handshake())[0] for _ in range(LOAD_BURST + 1)]
    assert verdicts == [Verdict.HANDSHAKE] * LOAD_BURST + [Verdict.COOKIE]
    assert judge(doorman, handshake(), now=10.5)[0] is Verdict.COOKIE
    assert judge(doorman, handshake(), now=10.0 + LOAD_TIME + 0.01)[0] is Verdict.HANDSHAKE


def test_what_has_no_mac1_makes_no_load() -> None:
    doorman = loaded()
    for _ in range(10 * LOAD_BURST):
        judge(doorman, handshake(public=bytes(32)))
    assert judge(doorman, handshake())[0] is Verdict.HANDSHAKE


def test_cookie_replies_are_limited() -> None:
    doorman = Doorman(PUBLIC)
    reply = b"\3\0\0\0" + bytes(60)
    verdicts = [judge(doorman, reply)[0] for _ in range(REPLY_BURST + 1)]
    assert verdicts == [Verdict.HANDSHAKE] * REPLY_BURST + [Verdict.RATE_LIMITED]


def test_forged_cookie_replies_leave_room_for_a_genuine_one() -> None:
    doorman = Doorman(PUBLIC)
    reply = b"\3\0\0\0" + bytes(60)
    for n in range(2000):  # 500 a second
        assert judge(doorman, reply, now=n / 500)[0] is Verdict.HANDSHAKE


@given(st.binary(max_size=200), st.binary(min_size=4, max_size=16), st.integers(0, 65535), st.booleans())
def test_no_bytes_break_it(datagram: bytes, address: bytes, port: int, pressed: bool) -> None:
    verdict, reply = judge(loaded(), datagram, (address, port), pressed=pressed)
    assert reply == b""
    assert verdict in (Verdict.MALFORMED, Verdict.TRANSPORT, Verdict.BAD_MAC1, Verdict.HANDSHAKE)


@given(st.sampled_from([1, 2, 3, 4]), st.integers(0, 200), st.booleans())
def test_no_length_breaks_it(kind: int, size: int, pressed: bool) -> None:
    judge(loaded(), kind.to_bytes(4, "little") + bytes(size), pressed=pressed)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 3, 4, 4, 4, 5]), st.just(0)), min_size=1, max_size=64), st.data())
def test_a_group_is_transport_if_each_of_its_datagrams_is(kinds: list[tuple[int, int]], data: st.DataObject) -> None:
    size = data.draw(st.integers(20, 60))
    tail = data.draw(st.integers(1, size))
    one_by_one = [kind.to_bytes(4, "little").ljust(size, b"\4") for kind, _ in kinds]
    one_by_one[-1] = one_by_one[-1][:tail]
    expected = all(one[0] == 4 and len(one) >= 32 for one in one_by_one)
    assert is_transport(memoryview(b"".join(one_by_one)), size) is expected
