"""`septumctl top`: what changed between two looks, as rates; drawn on a terminal, or a line of JSON a look."""

from __future__ import annotations

import queue
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from appliance.ctl import looking_commands, say
from appliance.ctl.connection import Box
from appliance.ctl.trouble import Exit, Trouble

_PEERS_AT_ONCE: Final = 2000  # with more of them, peers are read less often
_SELDOM: Final = 10.0  # seconds
_WIDE: Final = 130  # columns from which on more is shown


class Look(NamedTuple):
    """What a box said at one moment: ``at`` on the box's clock, in seconds. ``peers`` by public key; ``sums``: packets
    by (side, what became of them).
    """

    at: float
    status: Any
    peers: Mapping[str, Any]
    sums: Mapping[tuple[str, str], int]


class PeerRate(NamedTuple):
    """Bytes a second."""

    peer: Any
    received: float
    sent: float


class DomainRate(NamedTuple):
    """``cpu`` as a share of one core; ``counters``: what rises, a second, the fastest first."""

    domain: Any
    cpu: float
    counters: Sequence[tuple[str, float]]


class Rates(NamedTuple):
    """Between two looks; ``seconds`` lie between them, 0: there was only one."""

    look: Look
    seconds: float
    domains: Sequence[DomainRate]
    peers: Sequence[PeerRate]  # the busiest first
    sums: Sequence[tuple[str, str, int, float]]  # side, what, how many so far, and a second


def rates(before: Look | None, now: Look) -> Rates:
    """What rose between two looks. What fell began anew (a rebuilt domain), and counts from zero."""
    seconds = max(0.0, now.at - before.at) if before is not None else 0.0

    def per_second(old: float, new: float) -> float:
        return (new - old if new >= old else new) / seconds if seconds else 0.0

    old_domains = {domain.name: domain for domain in before.status.domains} if before else {}
    domains = []
    for domain in now.status.domains:
        old = old_domains.get(domain.name)
        counted = {one.name: one.value for one in old.counters} if old else {}
        rising = [(one.name, per_second(counted.get(one.name, 0), one.value)) for one in domain.counters] if old else []
        rising = sorted((one for one in rising if one[1] > 0), key=lambda one: -one[1])
        cpu = per_second(old.cpu_seconds, domain.cpu_seconds) if old else 0.0
        domains.append(DomainRate(domain, cpu, rising))
    old_peers = before.peers if before else {}
    peers = [
        PeerRate(
            peer,
            per_second(old_peers[key].received, peer.received) if key in old_peers else 0.0,
            per_second(old_peers[key].sent, peer.sent) if key in old_peers else 0.0,
        )
        for key, peer in now.peers.items()
    ]
    peers.sort(key=lambda one: (-(one.received + one.sent), -one.peer.handshake, one.peer.number))
    old_sums = before.sums if before else {}
    sums = [
        (side, what, value, per_second(old_sums.get((side, what), 0), value))
        for (side, what), value in now.sums.items()
        if value
    ]
    return Rates(now, seconds, domains, peers, sums)


def as_json(found: Rates) -> dict[str, Any]:
    told = looking_commands.status_as_json(found.look.status)
    for row, rate in zip(told["domains"], found.domains, strict=True):
        row["cpu"] = round(rate.cpu, 4)
        row["per_second"] = {name: round(value, 2) for name, value in rate.counters}
    told["peer_rates"] = [
        {
            "name": one.peer.name,
            "public_key": one.peer.public_key,
            "endpoint": one.peer.endpoint or None,
            "handshake": say.stamp(one.peer.handshake * 1000),
            "received_per_second": round(one.received, 1),
            "sent_per_second": round(one.sent, 1),
        }
        for one in found.peers[:100]
    ]
    told["packets"] = [
        {"side": side, "what": what, "count": count, "per_second": round(rate, 2)}
        for side, what, count, rate in found.sums
    ]
    return told


# drawing --------------------------------------------------------------------------------------------------------------


def draw(found: Rates, width: int, height: int, note: str = "") -> RenderableType:
    """All of it, in ``width`` columns and ``height`` rows."""
    status = found.look.status
    head = looking_commands.headline(status)
    if status.confirm_left_ms:
        left = say.span(status.confirm_left_ms / 1000)
        head.append(f"\n  revision {status.revision} waits to be confirmed: rolled back in {left}", "bold yellow")
    if note:
        head.append(f"\n  {note}", "yellow")
    parts: list[RenderableType] = [head, Text(), _domains(found, width)]
    # What is left is for peers and for what was denied, each with a blank line and a header of its own
    room = height - len(head.plain.splitlines()) - len(found.domains) - 3
    denied = min(len(found.sums), max(room // 2 - 2, room - len(found.peers) - 4))
    if found.peers and (peers := room - 2 - (denied + 2 if denied > 0 else 0)) > 0:
        parts += [Text(), _peers(found, width, peers)]
    if denied > 0:
        parts += [Text(), _sums(found, width, denied)]
    return Group(*parts)


def _table(*columns: str, width: int, right: Sequence[str] = (), widest: str = "") -> Table:
    made = Table(box=None, pad_edge=False, header_style="dim", expand=width < _WIDE)
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=True,
            ratio=1 if column == widest and width < _WIDE else None,
        )
    return made


def _domains(found: Rates, width: int) -> Table:
    columns = ["domain", "state", "rebuilt", "memory", "cpu", "a second"]
    right = ("rebuilt", "memory", "cpu")
    if width >= _WIDE:
        columns.insert(5, "channels")
    made = _table(*columns, width=width, right=right, widest="a second")
    channels = found.look.status.channels
    for domain, cpu, counters in found.domains:
        is_up = domain.state == "running"
        busy = "  ".join(f"{name.replace('_', ' ')} {_round(rate)}" for name, rate in counters)
        row: list[RenderableType] = [
            Text(say.clean(domain.name), "bold" if is_up else "bold red"),
            Text(say.clean(domain.state), "green" if is_up else "bold red"),
            str(domain.restarts or ""),
            say.amount(domain.memory) if domain.memory else "-",
            Text(f"{cpu:.0%}", "yellow" if cpu > 0.8 else ""),
            Text(say.clean(busy), "dim"),
        ]
        if width >= _WIDE:
            row.insert(5, Text(_calls(domain.name, channels), "dim"))
        made.add_row(*row)
    return made


def _calls(name: str, channels: Sequence[Any]) -> str:
    """The domains that this one speaks to, but for the log, which all speak to."""
    to = [one.server.split(".")[0] for one in channels if one.client.split(".")[0] == name]
    return say.clean("→ " + " ".join(dict.fromkeys(one for one in to if one != "log"))) if to else ""


def _peers(found: Rates, width: int, room: int) -> Table:
    columns = ["peer", "endpoint", "handshake", "received", "sent"]
    if width >= _WIDE:
        columns[3:] = ["received/s", "sent/s", "received", "sent"]
    else:
        columns[3:] = ["received/s", "sent/s"]
    made = _table(*columns, width=width, right=("received/s", "sent/s", "received", "sent"), widest="peer")
    for peer, received, sent in found.peers[:room]:
        is_busy = received + sent > 0
        row: list[RenderableType] = [
            Text(say.clean(peer.name or peer.public_key), "bold" if is_busy else ""),
            say.clean(peer.endpoint) or "-",
            say.ago(peer.handshake * 1000, found.look.at),
            say.amount(received),
            say.amount(sent),
        ]
        if width >= _WIDE:
            row += [say.amount(peer.received), say.amount(peer.sent)]
        made.add_row(*row)
    return made


def _sums(found: Rates, width: int, room: int) -> Table:
    """Those that rise fastest, if not all can be shown."""
    shown = sorted(found.sums, key=lambda one: -one[3])[:room] if room < len(found.sums) else found.sums
    columns = ("packets from", "what", "so far", "a second")
    made = _table(*columns, width=width, right=("so far", "a second"), widest="what")
    for side, what, count, rate in shown:
        style = "red" if what not in ("allowed", "passed") and rate > 0 else ""
        made.add_row(say.clean(side), Text(say.clean(what), style), f"{count:,}", _round(rate))
    return made


def _round(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


# watching -------------------------------------------------------------------------------------------------------------


class _Watcher(threading.Thread):
    """Reads looks from the box into a queue; what goes wrong goes there too, and reading begins again."""

    def __init__(self, box: Box, every: float) -> None:
        super().__init__(daemon=True)
        self._box = box
        self._every = every
        self._peers: dict[str, Any] = {}
        self._peers_at = 0.0
        self.found: queue.Queue[Look | Trouble] = queue.Queue(4)
        self.is_over = threading.Event()

    def run(self) -> None:
        from septum.admin.v1 import admin_pb2 as pb

        box = self._box
        while not self.is_over.is_set():
            request = pb.WatchStatusRequest(period_ms=round(self._every * 1000))
            try:
                for status in box.stream(box.box.WatchStatus, request, "the status"):
                    self._put(self._look(status))
                    if self.is_over.is_set():
                        return
            except Trouble as trouble:
                self._put(trouble)
            except Exception as error:  # must not be lost in a thread
                self._put(Trouble(Exit.REFUSED, f"{type(error).__name__}: {error}"))
            self.is_over.wait(1.0)

    def _put(self, found: Look | Trouble) -> None:
        """The newest count: whoever draws slowly misses those between."""
        try:
            self.found.put_nowait(found)
        except queue.Full:
            self.found.get_nowait()
            self.found.put_nowait(found)

    def _look(self, status: Any) -> Look:
        from septum.admin.v1 import admin_pb2 as pb

        box, now = self._box, time.monotonic()
        if status.peers <= _PEERS_AT_ONCE or now - self._peers_at >= _SELDOM:
            self._peers_at = now
            self._peers = {one.public_key: one for one in box.everybody()}
        counters = box.ask(box.rules.GetCounters, pb.GetCountersRequest(), "what was counted")
        sums = {(one.side, one.what): one.count for one in counters.sums}
        return Look(status.time / 1000, status, self._peers, sums)


def watch(box: Box, every: float, count: int) -> None:
    """Until `q`, Ctrl-C, or so many looks. Errors: Trouble."""
    watcher = _Watcher(box, every)
    watcher.start()
    try:
        if say.is_json() or not say.out.is_terminal:
            _print(watcher, count)
        else:
            _show(watcher, count)
    finally:
        watcher.is_over.set()


def _looks(watcher: _Watcher, count: int, is_over: Callable[[], bool] = lambda: False) -> Iterator[Rates | Trouble]:
    before: Look | None = None
    done = 0
    while not is_over() and (not count or done < count):
        try:
            found = watcher.found.get(timeout=0.1)
        except queue.Empty:
            continue
        if isinstance(found, Trouble):
            yield found
            continue
        yield rates(before, found)
        before = found
        done += 1


def _print(watcher: _Watcher, count: int) -> None:
    for found in _looks(watcher, count):
        if isinstance(found, Trouble):
            raise found
        say.json_line(as_json(found))


def _show(watcher: _Watcher, count: int) -> None:
    from rich.live import Live

    console = say.out
    with _keys() as pressed, Live(Text("waiting for the first look …", "dim"), console=console, screen=True) as live:
        last: Rates | None = None
        for found in _looks(watcher, count, lambda: pressed("q")):
            if isinstance(found, Trouble):
                if last is None or found.code is not Exit.UNREACHED:
                    raise found
                note = f"{found}; trying again"
            else:
                last, note = found, ""
            live.update(draw(last, console.width, console.height, note), refresh=True)


@contextmanager
def _keys() -> Iterator[Callable[[str], bool]]:
    """Whether a key was pressed, without Enter."""
    if not sys.stdin.isatty():
        yield lambda key: False
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(key: str) -> bool:
        return bool(select.select([descriptor], [], [], 0)[0]) and key in sys.stdin.read(1)

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
