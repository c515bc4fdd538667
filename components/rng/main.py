"""The only source of randomness. A health failure ends the domain: no answer is better than a bad one."""

from __future__ import annotations

import os
import time

from septum.v1.nonces import NonceReply, NonceRequest
from septum.v1.random import RandomReply, RandomRequest

from appliance.guest.loop import Guest
from components.rng.accounts import Accounts
from components.rng.drbg import self_test
from components.rng.health import HealthFailure
from components.rng.sources import Jitter, Kernel


class Shell:
    """Ports in, ports out."""

    def __init__(self, guest: Guest, accounts: Accounts) -> None:
        self._accounts = accounts
        self._log = guest.log
        self._requests = guest.counter("requests")
        self._bytes = guest.counter("bytes")
        self._reseeds = guest.counter("reseeds")
        self._failures = guest.counter("health_failures")
        self._now = 0.0

    def keys(self, consumer: str, request: RandomRequest) -> RandomReply:
        return RandomReply(random=self._draw("keys", consumer, request.length))

    def nonces(self, consumer: str, request: NonceRequest) -> NonceReply:
        return NonceReply(random=self._draw("nonces", consumer, request.length))

    def _draw(self, port: str, consumer: str, length: int) -> bytes:
        try:
            random = self._accounts.draw(port, consumer, length, self._now)
        except HealthFailure as failure:
            self._failures.add(1)
            self._log.error("health-failure", f"{failure}: no randomness is given any more")
            raise
        self._requests.add(1)
        self._bytes.add(length)
        self._reseeds.set(self._accounts.reseeds)
        return random

    def tick(self, now: float) -> None:
        self._now = now


def build(guest: Guest) -> None:
    """Ports in, ports out. Generator and sources are tested here, before the first request can come."""
    self_test()
    # perf_counter is the monotonic clock in nanoseconds; now, once a turn, is too coarse to jitter
    shell = Shell(guest, Accounts([Kernel(os.getrandom), Jitter(time.perf_counter_ns)]))
    guest.serve("keys", shell.keys)
    guest.serve("nonces", shell.nonces)
    guest.timer(shell.tick)
