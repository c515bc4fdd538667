"""Noise sources: the kernel's generator, and the jitter of the CPU. Every sample goes through its health tests.

The kernel's is the one that is counted on. Jitter is mixed in beside it and credited with nothing: it is there so that
a kernel that gives the same bytes twice (a copied machine) does not make two boxes alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Protocol

from components.rng.health import STARTUP, HealthTests

_KERNEL_ENTROPY: Final = 7.0  # bits a byte that the tests demand; it claims 8
_JITTER_ENTROPY: Final = 0.5  # bits a sample
_JITTER_SAMPLES: Final = 128  # in one seed
_WORK: Final = bytes(512)  # what is hashed between two looks at the clock


class Source(Protocol):
    """A noise source that tests what it gives."""

    def gather(self) -> bytes:
        """Raw material for one seed. Errors: HealthFailure."""


class Kernel:
    """getrandom(2), 48 bytes a seed: half as much again as a seed needs, for seed and nonce (SP 800-90A 8.6.7)."""

    def __init__(self, getrandom: Callable[[int], bytes]) -> None:
        self._getrandom = getrandom
        self._tests = HealthTests("getrandom", _KERNEL_ENTROPY)
        self._tests.check(self._take(STARTUP))

    def _take(self, length: int) -> bytes:
        taken = b""
        while len(taken) < length:  # an interrupted call gives less
            taken += self._getrandom(min(256, length - len(taken)))
        return taken

    def gather(self) -> bytes:
        taken = self._take(48)
        self._tests.check(taken)
        return taken


class Jitter:
    """How long the same work takes, in nanoseconds: caches, interrupts and the neighbours on the machine decide."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock = clock_ns
        self._tests = HealthTests("jitter", _JITTER_ENTROPY)
        self._sample(STARTUP)

    def _sample(self, count: int) -> list[int]:
        samples = []
        before = self._clock()
        for _ in range(count):
            hashlib.sha256(_WORK).digest()
            after = self._clock()
            samples.append(after - before & 0xFFFF)
            before = after
        self._tests.check(samples)
        return samples

    def gather(self) -> bytes:
        return b"".join(sample.to_bytes(2, "little") for sample in self._sample(_JITTER_SAMPLES))
