"""Two domains of one role, of which one knows no short way, fed the same: all that comes of it must be the same."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from appliance.vchan.endpoint import Endpoint
from tests.budgets.domain import COMPONENTS, Domain

Made = TypeVar("Made")
# How often the interpreter was called differs, and so may how many packets it finds at once
UNEQUAL: Final = ("groups_in", "groups_out", "compiled")


class Counted(Endpoint):
    """An end that counts the messages that the interpreter sent or received: the rest of them went the short way."""

    by_python = 0

    def send(self, message: Any) -> bool:
        is_sent = super().send(message)
        self.by_python += is_sent
        return is_sent

    def receive(self) -> Any:
        message = super().receive()
        self.by_python += message is not None
        return message

    @property
    def shortly(self) -> int:
        """Messages that went the short way."""
        return self.statistics.sent + self.statistics.received - self.by_python


class Clock:
    """time.monotonic() for twins: the kernel's, but the same for both while they are given a turn."""

    def __init__(self) -> None:
        self.tick()

    def __call__(self) -> float:
        return self._now

    def tick(self) -> None:
        self._now = time.clock_gettime(time.CLOCK_MONOTONIC)


class Twins:
    """``devices`` are those of either. A ``clock``, if there is one, goes on whenever they settle."""

    clock: Clock | None = None

    def __init__(
        self,
        component: str,
        role: str,
        settings: dict[str, Any] | None = None,
        devices: tuple[dict[str, int], dict[str, int]] = ({}, {}),
    ) -> None:
        self.short = Domain(component, role, settings, devices[0], kind=Counted)
        self.long = Domain(component, role, settings, devices[1], short=False, kind=Counted)
        self.both = (self.short, self.long)
        declared = tomllib.loads((COMPONENTS / component / "component.toml").read_text())
        self._counters = declared["roles"][role]["counters"]

    def give(self, port: str, *messages: Any) -> None:
        for domain in self.both:
            domain.give(port, messages)

    def settle(self, turns: int = 3) -> None:
        if self.clock is not None:
            self.clock.tick()
        for domain in self.both:
            domain.settle(turns)

    def take(self, port: str) -> list[Any]:
        """What came out of ``port`` of both, which is the same."""
        found, expected = (domain.take(port) for domain in self.both)
        assert found == expected
        return found

    def run(self, port: str, messages: Iterable[Any], out: Iterable[str]) -> list[list[Any]]:
        """``messages`` arrive at once, and what is in the ports ``out`` is the same."""
        self.give(port, *messages)
        self.settle()
        return [self.take(one) for one in out]

    def same(self, ask: Callable[[Domain], Made]) -> Made:
        found, expected = (ask(domain) for domain in self.both)
        assert found == expected
        return found

    def check_statistics(self) -> None:
        """What both counted, of messages and otherwise."""
        for name in self.short.near.keys() - {"reports", "log"}:  # told by the clock
            self.same(lambda domain, name=name: domain.near[name].statistics)  # type: ignore[misc]
        self.check_counters()

    def check_counters(self) -> None:
        if "flows" in self._counters:
            time.sleep(1.05)  # the filter counts once a second
        for domain in self.both:  # as if half a second had passed
            domain._guest._next_look = 0.0
        self.settle()
        for name in self._counters:
            if name not in UNEQUAL:
                found, expected = (domain.page.counter(name).value for domain in self.both)
                assert found == expected, name

    def shortly(self, port: str) -> int:
        """How many messages went the short way through ``port`` of the one; through the other's none did."""
        found, none = (domain.near[port].shortly for domain in self.both)  # type: ignore[attr-defined]
        assert none == 0
        return int(found)
