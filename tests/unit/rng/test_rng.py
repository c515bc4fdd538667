"""The generator against NIST's vectors, the health tests against good and bad sources, and the books."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from math import comb

import pytest
from septum.v1.nonces import NonceReply, NonceRequest
from septum.v1.random import RandomReply, RandomRequest

from components.rng import main
from components.rng.accounts import RESEED_REQUESTS, RESEED_SECONDS, Accounts
from components.rng.drbg import MOST_REQUESTS, HmacDrbg, ReseedRequired, self_test
from components.rng.health import WINDOW, HealthFailure, HealthTests, proportion_cutoff, repetition_cutoff
from components.rng.sources import Jitter, Kernel
from tests.unit.fake_guest import FakeCounter

x = bytes.fromhex

# HMAC_DRBG ------------------------------------------------------------------------------------------------------------


def test_nist_vector_without_reseed() -> None:
    """NIST CAVP DRBGVS, HMAC_DRBG.rsp, SHA-256, no prediction resistance, no reseed, COUNT = 0."""
    drbg = HmacDrbg(
        x("ca851911349384bffe89de1cbdc46e6831e44d34a4fb935ee285dd14b71a7488"), x("659ba96c601dc69fc902940805ec0ca8")
    )
    drbg.generate(128)
    assert drbg.generate(128) == x(
        "e528e9abf2dece54d47c7e75e5fe302149f817ea9fb4bee6f4199697d04d5b89d54fbb978a15b5c443c9ec21036d2460"
        "b6f73ebad0dc2aba6e624abf07745bc107694bb7547bb0995f70de25d6b29e2d3011bb19d27676c07162c8b5ccde0668"
        "961df86803482cb37ed6d5c0bb8d50cf1f50d476aa0458bdaba806f48be9dcb8"
    )


def test_nist_vector_with_reseed() -> None:
    """The same file's SHA-256 vectors with reseed, COUNT = 0."""
    drbg = HmacDrbg(
        x("06032cd5eed33f39265f49ecb142c511da9aff2af71203bffaf34a9ca5bd9c0d"), x("0e66f71edc43e42a45ad3c6fc6cdc4df")
    )
    drbg.reseed(x("01920a4e669ed3a85ae8a33b35a74ad7fb2a6bb4cf395ce00334a9c9a5a5d552"))
    drbg.generate(128)
    assert drbg.generate(128) == x(
        "76fc79fe9b50beccc991a11b5635783a83536add03c157fb30645e611c2898bb2b1bc215000209208cd506cb28da2a51"
        "bdb03826aaf2bd2335d576d519160842e7158ad0949d1a9ec3e66ea1b1a064b005de914eac2e9d4f2d72a8616a802254"
        "22918250ff66a41bd2f864a6a38cc5b6499dc43f7f2bd09e1e0f8f5885935124"
    )


def test_nist_vector_with_additional_input() -> None:
    """The same file's SHA-256 vectors with reseed and additional input, COUNT = 0."""
    drbg = HmacDrbg(
        x("05ac9fc4c62a02e3f90840da5616218c6de5743d66b8e0fbf833759c5928b53d"), x("2b89a17904922ed8f017a63044848545")
    )
    drbg.reseed(
        x("2791126b8b52ee1fd9392a0a13e0083bed4186dc649b739607ac70ec8dcecf9b"),
        x("43bac13bae715092cf7eb280a2e10a962faf7233c41412f69bc74a35a584e54c"),
    )
    drbg.generate(128, x("3f2fed4b68d506ecefa21f3f5bb907beb0f17dbc30f6ffbba5e5861408c53a1e"))
    assert drbg.generate(128, x("529030df50f410985fde068df82b935ec23d839cb4b269414c0ede6cffea5b68")) == x(
        "02ddff5173da2fcffa10215b030d660d61179e61ecc22609b1151a75f1cbcbb4363c3a89299b4b63aca5e581e73c8604"
        "91010aa35de3337cc6c09ebec8c91a6287586f3a74d9694b462d2720ea2e11bbd02af33adefb4a16e6b370fa0effd57d"
        "607547bdcfbb7831f54de7073ad2a7da987a0016a82fa958779a168674b56524"
    )


def test_the_self_test_notices_a_broken_hmac(monkeypatch: pytest.MonkeyPatch) -> None:
    self_test()
    monkeypatch.setattr("components.rng.drbg.hmac.digest", lambda key, message, digest: bytes(32))
    with pytest.raises(RuntimeError, match="known answer"):
        self_test()


def test_personalization_makes_another_generator() -> None:
    seed, nonce = bytes(32), bytes(16)
    assert HmacDrbg(seed, nonce, b"a").generate(32) != HmacDrbg(seed, nonce, b"b").generate(32)


def test_the_generators_bounds() -> None:
    drbg = HmacDrbg(bytes(32), bytes(16))
    for length in (1, 31, 32, 33, 4096):
        assert len(drbg.generate(length)) == length
    for length in (-1, 0, 4097):
        with pytest.raises(ValueError, match="1 to 4096"):
            drbg.generate(length)
    for bad in (lambda: HmacDrbg(bytes(31), bytes(16)), lambda: HmacDrbg(bytes(32), bytes(15))):
        with pytest.raises(ValueError):
            bad()
    with pytest.raises(ValueError, match="31 bytes"):
        drbg.reseed(bytes(31))
    drbg._requests = MOST_REQUESTS
    with pytest.raises(ReseedRequired):
        drbg.generate(1)
    drbg.reseed(os.urandom(32))
    drbg.generate(1)
    assert repr(drbg) == "<HmacDrbg>"


# health ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("min_entropy", "cutoff"), [(0.5, 61), (1, 31), (2, 16), (7, 6), (8, 5)])
def test_repetition_cutoffs_are_the_standards_formula(min_entropy: float, cutoff: int) -> None:
    assert repetition_cutoff(min_entropy) == cutoff


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
def test_proportion_cutoffs_are_exact(bits: int) -> None:
    """Against the binomial distribution in whole numbers: P(X >= cutoff) <= 2^-30 < P(X >= cutoff - 1)."""
    likely = Fraction(1, 2**bits)

    def at_least(k: int) -> Fraction:
        return sum(
            (comb(WINDOW, i) * likely**i * (1 - likely) ** (WINDOW - i) for i in range(k, WINDOW + 1)), Fraction(0)
        )

    cutoff = proportion_cutoff(bits)
    assert at_least(cutoff) <= Fraction(1, 2**30) < at_least(cutoff - 1)


def test_a_stuck_source_is_found_at_the_cutoff() -> None:
    tests = HealthTests("stuck", 1)
    tests.check([5] * 30)
    with pytest.raises(HealthFailure, match="31 equal samples in a row"):
        tests.check([5])


def test_a_biased_source_is_found_within_a_window() -> None:
    tests = HealthTests("biased", 7)
    biased = itertools.cycle([9, *range(20, 30), 9, *range(40, 50)])
    with pytest.raises(HealthFailure, match=r"22 of \d+ samples are equal"):
        tests.check(itertools.islice(biased, WINDOW))


def test_each_window_counts_its_own_first_sample() -> None:
    tests = HealthTests("fresh", 7)
    for window in range(20):  # 20 of each window's first sample: one short of a failure, every time
        tests.check(sample for i in range(20) for sample in (window, *range(100 + i, 116 + i)))
        tests.check(range(1000, 1000 + WINDOW - 20 * 17))


def test_a_good_source_raises_no_alarm() -> None:
    chance = random.Random(3)
    HealthTests("good", 7).check(chance.randbytes(300_000))


# sources --------------------------------------------------------------------------------------------------------------


def test_the_real_sources_are_sound_and_never_repeat_themselves() -> None:
    kernel, jitter = Kernel(os.getrandom), Jitter(time.perf_counter_ns)
    assert len({kernel.gather() for _ in range(10)}) == 10
    assert len({jitter.gather() for _ in range(10)}) == 10
    assert len(kernel.gather()) == 48


def test_sources_that_are_broken_from_the_start_do_not_start() -> None:
    with pytest.raises(HealthFailure, match="getrandom"):
        Kernel(bytes)
    ticks = itertools.count(0, 1000)
    with pytest.raises(HealthFailure, match="jitter"):
        Jitter(lambda: next(ticks))


def test_a_short_answer_of_the_kernel_is_asked_again() -> None:
    asked = []

    def few(length: int) -> bytes:
        asked.append(length)
        return os.urandom(min(length, 7))

    assert len(Kernel(few).gather()) == 48
    assert asked[-1] == 48 - 42


# accounts -------------------------------------------------------------------------------------------------------------


class Chosen:
    """A source whose seeds are known."""

    def __init__(self) -> None:
        self.count = 0
        self.failure = False

    def gather(self) -> bytes:
        if self.failure:
            raise HealthFailure("chosen: fails")
        self.count += 1
        return self.count.to_bytes(48, "big")


def test_each_consumer_has_a_generator_and_a_book_of_its_own() -> None:
    accounts = Accounts([Chosen()])
    assert accounts.account("keys", "keymgr") is None
    one, two = accounts.draw("keys", "keymgr", 32, 0.0), accounts.draw("keys", "other", 32, 0.0)
    accounts.draw("nonces", "keymgr", 5, 0.0)
    assert one != two
    expected = HmacDrbg((1).to_bytes(48, "big")[16:], bytes(16), b"keys\0keymgr")
    assert one == expected.generate(32), "drawn by others changes nothing for this one"
    assert accounts.draw("keys", "keymgr", 100, 1.0) == expected.generate(100)
    books = accounts.account("keys", "keymgr")
    assert books is not None and (books.requests, books.given) == (2, 132)


def test_reseeds_by_count_and_by_time() -> None:
    source = Chosen()
    accounts = Accounts([source])
    for i in range(1, RESEED_REQUESTS + 2):
        accounts.draw("keys", "a", 1, 0.0)
        assert source.count == (2 if i > RESEED_REQUESTS else 1)
    accounts.draw("keys", "a", 1, RESEED_SECONDS - 1)
    assert source.count == 2
    accounts.draw("keys", "a", 1, RESEED_SECONDS)
    assert source.count == 3 == accounts.reseeds


def test_accounts_are_bounded() -> None:
    accounts = Accounts([Chosen()])
    for i in range(16):
        accounts.draw("keys", str(i), 1, 0.0)
    with pytest.raises(RuntimeError, match="16"):
        accounts.draw("keys", "one more", 1, 0.0)


def test_after_a_health_failure_nobody_is_answered() -> None:
    source = Chosen()
    accounts = Accounts([source])
    accounts.draw("keys", "a", 1, 0.0)
    source.failure = True
    with pytest.raises(HealthFailure):
        accounts.draw("keys", "b", 1, 0.0)
    source.failure = False
    for consumer in ("a", "b"):
        with pytest.raises(RuntimeError, match="health test"):
            accounts.draw("keys", consumer, 1, 0.0)


# the shell ------------------------------------------------------------------------------------------------------------


@dataclass
class FakeGuest:
    """As much of a guest as rng uses."""

    served: dict[str, Callable[..., RandomReply | NonceReply]] = field(default_factory=dict)
    counters: dict[str, FakeCounter] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)
    tick: Callable[[float], None] = lambda now: None

    @property
    def log(self) -> FakeGuest:
        return self

    def error(self, event: str, text: str) -> None:
        self.lines.append((event, text))

    def counter(self, name: str) -> FakeCounter:
        return self.counters.setdefault(name, FakeCounter())

    def serve(self, port: str, handler: Callable[..., RandomReply | NonceReply]) -> None:
        self.served[port] = handler

    def timer(self, handler: Callable[[float], None]) -> None:
        self.tick = handler


def test_the_shell_answers_both_ports() -> None:
    guest = FakeGuest()
    main.build(guest)  # type: ignore[arg-type]
    guest.tick(1.0)
    key = guest.served["keys"]("keymgr", RandomRequest(length=32))
    nonce = guest.served["nonces"]("black", NonceRequest(length=24))
    assert isinstance(key, RandomReply) and isinstance(nonce, NonceReply)
    assert len(key.random) == 32 and len(nonce.random) == 24
    guest.tick(62.0)
    assert guest.served["keys"]("keymgr", RandomRequest(length=32)).random != key.random
    assert {name: counter.value for name, counter in guest.counters.items()} == {
        "requests": 3,
        "bytes": 88,
        "reseeds": 3,
        "health_failures": 0,
    }


def test_a_health_failure_is_loud() -> None:
    guest, source = FakeGuest(), Chosen()
    shell = main.Shell(guest, Accounts([source]))  # type: ignore[arg-type]
    source.failure = True
    with pytest.raises(HealthFailure):
        shell.keys("keymgr", RandomRequest(length=32))
    assert guest.lines == [("health-failure", "chosen: fails: no randomness is given any more")]
    assert guest.counters["health_failures"].value == 1
