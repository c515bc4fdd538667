"""A guest made of lists: as much of `appliance.guest` as shells use, and only what component.toml declares is there."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.vchan.codec import Codec
from appliance.vchan.schema import schema

ROOT = Path(__file__).parents[2]


class FakeOut:
    """Keeps what is sent, as the other end would get it: through the codec, with every bound of the schema checked."""

    def __init__(self, port: dict[str, str]) -> None:
        self._codec = Codec(schema(port["schema"]).forward)
        self.sent: list[Any] = []
        self.is_full = False

    def room(self) -> bool:
        return not self.is_full

    def send(self, message: Any) -> bool:
        if self.is_full:
            return False
        self.sent.append(self._codec.decode(b"".join(self._codec.encode(message))))
        return True


class FakeClient:
    """Answers calls with ``answer``, or raises it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.answer: Callable[[Any], Any] | Exception = RuntimeError("nobody said what to answer")

    def call(self, request: Any) -> Any:
        self.calls.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(request)


class FakeCounter:
    def __init__(self) -> None:
        self.value = 0

    def add(self, count: int = 1) -> None:
        self.value += count

    def set(self, value: int) -> None:
        self.value = value


class FakeGuest:
    """Role ``role`` of ``component``; ``handlers`` and ``into`` are by port or device. ``spread`` says how many domains
    its ports of many are joined to; ``outs`` has the first of each."""

    def __init__(
        self,
        component: str,
        role: str,
        settings: dict[str, Any] | None = None,
        devices: dict[str, int] | None = None,
        spread: int = 1,
    ) -> None:
        declared = tomllib.loads((ROOT / f"components/{component}/component.toml").read_text())["roles"][role]
        ports = declared["ports"].items()
        self.settings = settings or {}
        self.devices = devices or {}
        assert set(self.devices) <= set(declared.get("devices", []))
        self.members = {
            name: [FakeOut(port) for _ in range(spread if port.get("many", 1) > 1 else 1)]
            for name, port in ports
            if port["end"] == "out"
        }
        self.outs = {name: members[0] for name, members in self.members.items()}
        self.clients = {name: FakeClient() for name, port in ports if port["end"] == "client"}
        self.servers = {name for name, port in ports if port["end"] == "server"}
        self.joined = {name for name, port in ports if not port.get("optional")}
        self.closed: dict[str, Callable[[float], Any]] = {}
        self.ins = {name for name, port in ports if port["end"] == "in"}
        self.counters = {name: FakeCounter() for name in declared["counters"]}
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.into: dict[str, list[Any]] = {}
        self.totals: list[dict[str, int]] = []
        self.opened: dict[str, Callable[[float], Any]] = {}
        self.timers: list[Callable[[float], float | None]] = []
        self.infos: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []
        self.accused: list[tuple[Any, Exception]] = []
        self.log = self

    def short_end(self, port: str) -> None:
        """No message goes the short way here."""

    def info(self, event: str, text: str = "") -> None:
        self.infos.append((event, text))

    def warning(self, event: str, text: str = "") -> None:
        self.warnings.append((event, text))

    def accuse(self, port: Any, violation: Exception) -> None:
        self.accused.append((port, violation))

    def out(self, port: str) -> FakeOut:
        (out,) = self.members[port]
        return out

    def spread(self, port: str) -> list[FakeOut]:
        return self.members[port]

    def client(self, port: str) -> FakeClient:
        return self.clients[port]

    def counter(self, name: str) -> FakeCounter:
        return self.counters[name]

    def show(self, totals: dict[str, int]) -> None:
        assert set(totals) <= set(self.counters)
        self.totals.append(totals)

    def receive(
        self,
        port: str,
        handler: Callable[[Any, float], Any],
        into: Sequence[Any] = (),
        done: Callable[[float], Any] | None = None,
    ) -> None:
        assert port in self.ins

        def handled(message: Any, now: float) -> None:
            handler(message, now)
            if done is not None:
                done(now)

        self.handlers[port] = handler if done is None else handled
        self.into[port] = list(into)

    def readable(self, device: str, handler: Callable[[float], bool], into: Sequence[Any] = ()) -> None:
        assert device in self.devices
        self.handlers[device] = handler
        self.into[device] = list(into)

    def on_open(self, port: str, handler: Callable[[float], Any]) -> None:
        assert port in self.clients or port in self.outs or port in self.ins
        self.opened[port] = handler

    def on_close(self, port: str, handler: Callable[[float], Any]) -> None:
        assert port in self.joined
        self.closed[port] = handler

    def beat(self) -> None:
        """Nobody looks."""

    def is_joined(self, port: str) -> bool:
        return port in self.joined

    def serve(self, port: str, handler: Callable[[str, Any], Any], share: float = 1.0) -> None:
        assert port in self.servers and port in self.joined
        self.handlers[port] = handler

    @staticmethod
    def wall() -> float:
        return 1.6e9

    def timer(self, handler: Callable[[float], float | None]) -> None:
        self.timers.append(handler)

    def turn(self, now: float) -> float | None:
        """What the loop does after the handlers had their turn."""
        for totals in self.totals:
            for name, total in totals.items():
                self.counters[name].set(total)
        (timer,) = self.timers
        return timer(now)
