"""What the handshake is made of, against published vectors (PyPI cryptography-vectors)."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from components.keymgr.cookie import mac
from components.keymgr.noise import HandshakeError, PrivateKey, hash_, kdf

VECTORS = Path(cryptography_vectors.__file__).parent


ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"


def blocks(path: str) -> Iterator[dict[str, str]]:
    """The "key = value" blocks of a vector file, keys in lower case. A key that comes again begins the next block."""
    block: dict[str, str] = {}
    for line in (VECTORS / path).read_text().splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or line.startswith("#"):
            continue
        if key.lower() in block:
            yield block
            block = {}
        block[key.lower()] = value
    yield block


def data(text: str) -> bytes:
    """A value in hex, or quoted as in BoringSSL's files."""
    return str(ast.literal_eval(text)).encode() if text.startswith('"') else bytes.fromhex(text)


def test_chacha20poly1305_rfc_8439_and_boringssl() -> None:
    """The first vector is RFC 8439 section 2.8.2."""
    count = 0
    for block in blocks("ciphers/ChaCha20Poly1305/boringssl.txt"):
        aead = ChaCha20Poly1305(data(block["key"]))
        nonce, plain, ad = data(block["nonce"]), data(block["in"]), data(block["ad"])
        sealed = data(block["ct"]) + data(block["tag"])
        if block.get("no_seal") != "01":
            assert aead.encrypt(nonce, plain, ad) == sealed
        assert aead.decrypt(nonce, sealed, ad) == plain
        count += 1
    assert count >= 50


def test_chacha20poly1305_openssl_refuses_what_is_not_authentic() -> None:
    results = {"good": 0, "bad": 0}
    for block in blocks("ciphers/ChaCha20Poly1305/openssl.txt"):
        nonce = bytes.fromhex(block["iv"])
        if len(nonce) != 12:
            continue  # RFC 8439 has 96-bit nonces and no others
        aead = ChaCha20Poly1305(bytes.fromhex(block["key"]))
        sealed = bytes.fromhex(block["ciphertext"]) + bytes.fromhex(block["tag"])
        ad = bytes.fromhex(block["aad"])
        if block.get("result") == "CIPHERFINAL_ERROR":
            with pytest.raises(InvalidTag):
                aead.decrypt(nonce, sealed, ad)
            results["bad"] += 1
        else:
            assert aead.decrypt(nonce, sealed, ad) == bytes.fromhex(block["plaintext"])
            results["good"] += 1
    assert min(results.values()) >= 1


def test_x25519_rfc_7748_section_5_2() -> None:
    count = 0
    for block in blocks("asymmetric/X25519/rfc7748.txt"):
        result = PrivateKey(bytes.fromhex(block["input_scalar"])).dh(bytes.fromhex(block["input_u"]))
        assert result.hex() == block["output_u"]
        count += 1
    assert count >= 3


def test_x25519_rfc_7748_section_5_2_a_thousand_times() -> None:
    k = u = (9).to_bytes(32, "little")
    for _ in range(1000):
        k, u = bytes(PrivateKey(k).dh(u)), k
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_x25519_rfc_7748_section_6_1() -> None:
    alice = PrivateKey(bytes.fromhex(ALICE))
    bob = PrivateKey(bytes.fromhex(BOB))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert alice.dh(bob.public) == bob.dh(alice.public)
    assert alice.dh(bob.public).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


# The points whose order divides 8, and their other encodings (cr.yp.to/ecdh.html, "validate public keys")
SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_x25519_refuses_small_orders(point: str) -> None:
    with pytest.raises(HandshakeError, match="small order"):
        PrivateKey(bytes(range(32))).dh(bytes.fromhex(point))


def test_blake2s() -> None:
    count = 0
    for block in blocks("hashes/blake2/blake2s.txt"):
        message = bytes.fromhex(block["msg"])[: int(block["len"]) // 8]
        assert hash_(message).hex() == block["md"]
        assert hash_(message[:1], message[1:]).hex() == block["md"]
        count += 1
    assert count >= 5


def test_blake2s_keyed_is_the_reference_of_rfc_7693() -> None:
    """RFC 7693 has no short keyed vector: this is the first of the reference implementation's blake2s KATs."""
    key = bytes(range(32))
    assert hashlib.blake2s(b"", key=key).hexdigest() == (
        "48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49"
    )
    assert mac(key, b"x") == hashlib.blake2s(b"x", key=key, digest_size=16).digest()
    assert mac(key, b"x") != hashlib.blake2s(b"x", key=key).digest()[:16]  # the size is part of the hash


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=64), st.integers(1, 3))
def test_kdf_is_rfc_5869_hkdf(chain: bytes, secret: bytes, count: int) -> None:
    """KDF_n(C, x) of the paper is HKDF with salt C, input x, no info and 32 n bytes of output."""
    theirs = HKDF(hashes.BLAKE2s(32), length=32 * count, salt=chain, info=b"").derive(secret)
    assert b"".join(kdf(count, chain, secret)) == theirs


def test_hkdf_of_the_library_is_rfc_5869() -> None:
    """So that the test above compares with something published."""
    count = 0
    for block in blocks("KDF/rfc-5869-HKDF-SHA256.txt"):
        hkdf = HKDF(
            hashes.SHA256(),
            length=int(block["l"]),
            salt=bytes.fromhex(block["salt"]) or None,
            info=bytes.fromhex(block["info"]),
        )
        assert hkdf.derive(bytes.fromhex(block["ikm"])).hex() == block["okm"]
        count += 1
    assert count >= 3
