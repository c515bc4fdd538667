"""One account a consumer: a generator of its own, so that no consumer's bytes tell of another's, and a count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from components.rng.drbg import HmacDrbg
from components.rng.sources import Source

RESEED_REQUESTS: Final = 64
RESEED_SECONDS: Final = 60.0
_MOST: Final = 16  # accounts: both ports' consumers together


class Account:
    """What one consumer of one port has had."""

    def __init__(self, drbg: HmacDrbg, seeded: float) -> None:
        self.drbg = drbg
        self.seeded = seeded  # when, monotonic seconds
        self.since = 0  # requests since then
        self.requests = 0
        self.given = 0  # bytes


class Accounts:
    """All accounts. Errors of ``draw``: HealthFailure of a source, and then it never answers again."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._accounts: dict[tuple[str, str], Account] = {}
        self._is_sound = True
        self.reseeds = 0

    def account(self, port: str, consumer: str) -> Account | None:
        """The books of a consumer; None if it never drew."""
        return self._accounts.get((port, consumer))

    def draw(self, port: str, consumer: str, length: int, now: float) -> bytes:
        """``length`` bytes (1 to 4096) for ``consumer``, from a generator seeded at most 64 requests or 60 s ago."""
        if not self._is_sound:
            raise RuntimeError("a health test failed before: nothing is answered any more")
        account = self._accounts.get((port, consumer))
        if account is None:
            if len(self._accounts) >= _MOST:
                raise RuntimeError(f"more than {_MOST} consumers")
            name = f"{port}\0{consumer}".encode()
            seed = self._seed()
            account = Account(HmacDrbg(seed[16:], seed[:16], name), now)
            self._accounts[port, consumer] = account
        elif account.since >= RESEED_REQUESTS or now - account.seeded >= RESEED_SECONDS:
            account.drbg.reseed(self._seed())
            account.seeded, account.since = now, 0
        account.since += 1
        account.requests += 1
        account.given += length
        return account.drbg.generate(length)

    def _seed(self) -> bytes:
        """The kernel's 48 bytes (its first 16 serve as nonce) and whatever else the sources gave, one after another."""
        self._is_sound = False  # until all sources have said otherwise
        seed = b"".join(source.gather() for source in self._sources)
        self._is_sound = True
        self.reseeds += 1
        return seed
