"""Health tests of a noise source: NIST SP 800-90B section 4.4. Samples in, HealthFailure out.

Both are made for a claimed min-entropy a sample, and for one false alarm in 2^30 tests of a source that keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, comb
from typing import Final

_ALARM_BITS: Final = 30  # the false alarm probability is 2^-30; the standard wants 2^-20 to 2^-40
WINDOW: Final = 512  # samples, of a source that is not binary (section 4.4.2)
STARTUP: Final = 1024  # samples tested before the first one is used (section 4.3)


class HealthFailure(Exception):
    """A noise source does not keep its claim. Nothing may be answered any more."""


def repetition_cutoff(min_entropy: float) -> int:
    """So many equal samples in a row are a failure (section 4.4.1)."""
    return 1 + ceil(_ALARM_BITS / min_entropy)


def proportion_cutoff(min_entropy: float) -> int:
    """So many samples equal to the first one of a window are a failure (section 4.4.2).

    1 + the critical value of the binomial distribution: the least k with P(X > k) at most the false alarm probability.
    """
    likely = 2.0**-min_entropy
    tail = 0.0
    for k in range(WINDOW, 0, -1):
        tail += comb(WINDOW, k) * likely**k * (1 - likely) ** (WINDOW - k)
        if tail > 2.0**-_ALARM_BITS:
            return 1 + k
    return 1


class HealthTests:
    """Repetition count and adaptive proportion test, over every sample of one source."""

    def __init__(self, source: str, min_entropy: float) -> None:
        self._source = source
        self._repetitions = repetition_cutoff(min_entropy)
        self._proportion = proportion_cutoff(min_entropy)
        self._last = -1
        self._in_a_row = 0
        self._first = -1
        self._seen = WINDOW
        self._equal = 0

    def check(self, samples: Iterable[int]) -> None:
        """Feeds samples (whole numbers from 0 on). Errors: HealthFailure."""
        for sample in samples:
            if sample == self._last:
                self._in_a_row += 1
                if self._in_a_row >= self._repetitions:
                    raise HealthFailure(f"{self._source}: {self._in_a_row} equal samples in a row")
            else:
                self._last = sample
                self._in_a_row = 1
            if self._seen == WINDOW:
                self._first, self._seen, self._equal = sample, 1, 1
                continue
            self._seen += 1
            if sample == self._first:
                self._equal += 1
                if self._equal >= self._proportion:
                    raise HealthFailure(f"{self._source}: {self._equal} of {self._seen} samples are equal")
