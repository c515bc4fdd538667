"""Decides what becomes of each domain: a core without I/O. Events and ``now`` in, actions out.

A domain's life, as the monitor sees it::

    STARTING ──(says SEALED)──► GOING ──(says RUNNING)──► RUNNING
        ▲                                                    │
        │            any of them: killed ──► DYING           │
        │                              │                     │
    WAITING ◄──(peers wait, or 0.5 s)── RESETTING ◄──(died)──┘

Three things end a domain besides its own death: a loop that stands still (it keeps the CPU, or is stuck), a start that
takes too long, and an accusation. An *accusation* is a domain's word that the peer at one of its ports broke the
protocol. It is believed, for the accused is the one of the two that can be proved to nobody; but only a few times a
minute, and the same accused only a few times in ten, since it is also a weapon: any more and both ends go down, so a
hostile accuser pays for each with its own life. Unless somebody else has accused the same domain: two witnesses of one
culprit pay nothing.

A domain that keeps dying is rebuilt at longer and longer intervals, a minute in the end, with an alarm each time; but a
death on the word of one accuser alone is not counted, or that word would keep the accused away for minutes. It is
never abandoned and the box is never taken down for it: while a domain is away, what it guards stays shut, and a box
that took itself down would give the host its plain route back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from appliance.guest.status import State
from appliance.monitor.status import Report


class Limits(NamedTuple):
    """Every number the supervisor goes by. Seconds, unless it says otherwise."""

    heartbeat: float = 5.0  # a loop that does not turn for so long is stuck; an idle one turns twice a second
    look: float = 1.0  # of the time between two looks, at most so much counts: the monitor may have been asleep itself
    start: float = 30.0  # from spawn to RUNNING; the first waits for the last of its box to be sealed
    reset: float = 0.5  # for the survivors of a channel to take notice
    accusations: int = 3  # in `window`, believed without a price
    window: float = 60.0
    grudge: float = 600.0  # as `window`, for accusations of one and the same domain
    calm: float = 60.0  # a domain that ran for so long is forgiven its earlier deaths
    free_deaths: int = 3  # in a row, rebuilt at once
    backoff_first: float = 0.1
    backoff_most: float = 60.0


LIMITS: Final = Limits()


class Phase(Enum):
    """Where a domain is in the picture above."""

    STARTING = "starting"
    GOING = "going"
    RUNNING = "running"
    DYING = "dying"
    RESETTING = "resetting"
    WAITING = "waiting"


class Kill(NamedTuple):
    """SIGKILL it, and log why."""

    domain: str
    why: str


class Reset(NamedTuple):
    """It is dead: mark its side of every channel so, and wake the survivors."""

    domain: str


class Start(NamedTuple):
    """Zero its side of every channel and spawn it."""

    domain: str


class Go(NamedTuple):
    """It says it is sealed: see from outside that it is, then let it read its first byte of input."""

    domain: str


class Alarm(NamedTuple):
    """It keeps dying; ``delay`` seconds until the next attempt."""

    domain: str
    deaths: int
    delay: float


class HangUp(NamedTuple):
    """Who holds the operator's end of a channel to ``domain`` broke the protocol, it says: take the end away."""

    domain: str


Action = Kill | Reset | Start | Go | Alarm | HangUp

ALIVE: Final = frozenset({Phase.STARTING, Phase.GOING, Phase.RUNNING})

# What a domain's status page may say in each phase. One that says FAILED is about to write its last words and end: it
# is left to do so, and the clocks of start and heartbeat run for it as for any other.
_EXPECTED: Final[Mapping[Phase, frozenset[int]]] = {
    Phase.STARTING: frozenset({0, State.STARTING, State.BUILT, State.SEALED, State.FAILED}),
    Phase.GOING: frozenset({State.SEALED, State.RUNNING, State.FAILED}),
    Phase.RUNNING: frozenset({State.RUNNING, State.FAILED}),
}


@dataclass
class _Life:
    """What is remembered of one domain, over all its lives."""

    peers: tuple[str, ...]  # by port number
    phase: Phase = Phase.STARTING
    since: float = 0.0  # when the phase began
    running_since: float | None = None
    not_before: float = 0.0  # when it may be started again
    heartbeat: int = 0
    stuck: float = 0.0  # seconds that the heartbeat has stood still
    violations: int = 0  # the accusations seen in this life, as bits
    deaths: int = 0  # in a row
    rebuilt: int = 0  # ever
    accuser: str | None = None  # on whose word it is dying
    is_ordered: bool = False  # it is dying because an administrator asked for it
    accusations: deque[tuple[float, str]] = field(default_factory=deque)  # when it accused whom


class Supervisor:
    """The state of all domains. ``peers``: for each domain, the domain at the other end of each of its ports, or
    somebody who is none and stands outside of the box.
    """

    def __init__(self, peers: Mapping[str, Sequence[str]], now: float, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self._now = now
        self._lives = {name: _Life(tuple(others), since=now) for name, others in peers.items()}

    def phase(self, domain: str) -> Phase:
        return self._lives[domain].phase

    def rebuilt(self, domain: str) -> int:
        """How often it has been started again."""
        return self._lives[domain].rebuilt

    def heartbeat_age(self, domain: str) -> float:
        """Seconds since its loop was last seen to turn."""
        return self._lives[domain].stuck

    def survivors(self, domain: str) -> tuple[str, ...]:
        """Of the peers of a dead domain, those that will notice: they run, and will drop what was half read."""
        lives = self._lives
        peers = (peer for peer in lives[domain].peers if peer in lives)
        return tuple(peer for peer in peers if lives[peer].phase in (Phase.GOING, Phase.RUNNING))

    @property
    def is_settled(self) -> bool:
        """Everything runs: nothing needs a look before the next heartbeat."""
        return all(life.phase is Phase.RUNNING for life in self._lives.values())

    def died(self, domain: str, now: float) -> list[Action]:
        """Its process is gone, whoever ended it."""
        life, limits = self._lives[domain], self._limits
        if life.running_since is not None and now - life.running_since >= limits.calm:
            life.deaths = 0
        life.running_since = None
        one_accuser, life.accuser = life.accuser, None
        is_ordered, life.is_ordered = life.is_ordered, False
        delay = 0.0
        # An end by order is no death either: else who may order could keep it away
        if is_ordered:
            pass
        elif one_accuser is None or self._is_accused_by_others(domain, one_accuser, now, limits.window):
            life.deaths += 1
            over = life.deaths - limits.free_deaths - 1
            # min() before the power: a domain that has been dying for a week must not overflow a float
            delay = limits.backoff_first * 2.0 ** min(over, 32) if over >= 0 else 0.0
            delay = min(delay, limits.backoff_most)
        life.not_before = now + delay
        self._enter(life, Phase.RESETTING, now)
        alarm: list[Action] = [Alarm(domain, life.deaths, delay)] if delay else []
        return [*alarm, Reset(domain)]

    def ordered(self, domain: str, now: float) -> list[Action]:
        """Somebody who may asks for ``domain`` to be built anew. One that is on its way already is left to it."""
        if self._lives[domain].phase is not Phase.RUNNING:
            return []
        self._lives[domain].is_ordered = True
        return self._kill(domain, "an administrator asked for it to be built anew", now)

    def look(self, reports: Mapping[str, Report], peers_wait: Iterable[str], now: float) -> list[Action]:
        """One look at everything: the status pages of living domains, and for which dead ones all survivors wait."""
        elapsed = min(now - self._now, self._limits.look)
        self._now = now
        actions: list[Action] = []
        for domain, report in reports.items():
            actions += self._judge(domain, self._lives[domain], report, elapsed, now)
        waiting = frozenset(peers_wait)
        for domain, life in self._lives.items():
            if life.phase is Phase.RESETTING and (domain in waiting or now - life.since >= self._limits.reset):
                self._enter(life, Phase.WAITING, now)
            if life.phase is Phase.WAITING and now >= life.not_before:
                life.rebuilt += 1
                self._enter(life, Phase.STARTING, now)
                actions.append(Start(domain))
        return actions

    def _judge(self, domain: str, life: _Life, report: Report, elapsed: float, now: float) -> list[Action]:
        if life.phase not in ALIVE:
            return []
        state = report.untrusted_state
        if state not in _EXPECTED[life.phase] or (state and not report.is_page):
            return self._kill(domain, f"its status page says {state} while {life.phase.value}", now)
        if life.phase is not Phase.RUNNING and now - life.since >= self._limits.start:
            return self._kill(domain, f"it was still {life.phase.value} after {self._limits.start:g} s", now)
        if life.phase is Phase.STARTING and state == State.SEALED:
            life.phase = Phase.GOING  # the time allowed for a start goes on
            return [Go(domain)]
        if life.phase is Phase.GOING and state == State.RUNNING:
            life.running_since = now
            self._enter(life, Phase.RUNNING, now)
        if life.phase is not Phase.RUNNING:
            return []
        if report.untrusted_heartbeat != life.heartbeat:
            life.heartbeat, life.stuck = report.untrusted_heartbeat, 0.0
        else:
            life.stuck += elapsed
        if life.stuck >= self._limits.heartbeat:
            return self._kill(domain, f"its loop stood still for {life.stuck:.1f} s", now)
        return self._accusations(domain, life, report.untrusted_violations, now)

    def _accusations(self, accuser: str, life: _Life, violations: int, now: float) -> list[Action]:
        raised = violations & ~life.violations
        life.violations = violations
        if raised >> len(life.peers):
            return self._kill(accuser, "it accuses a peer at a port that it does not have", now)
        actions: list[Action] = []
        for port, accused in enumerate(life.peers):
            if raised >> port & 1:
                actions += self._accuse(accuser, life, accused, now)
        return actions

    def _accuse(self, accuser: str, life: _Life, accused: str, now: float) -> list[Action]:
        if accused not in self._lives:  # nobody of the box: the accuser gains nothing by it, and pays nothing
            return [HangUp(accuser)]
        limits = self._limits
        life.accusations.append((now, accused))
        actions: list[Action] = []
        # One that does not run yet has broken nothing: the word came late, and was about the life before
        if self._lives[accused].phase is Phase.RUNNING:
            actions = self._kill(accused, f"{accuser} says that it broke the protocol", now)
            self._lives[accused].accuser = accuser
        in_window = self._unwitnessed(accuser, life, now, limits.window)
        grudge = self._unwitnessed(accuser, life, now, limits.grudge).count(accused)
        for whom, count, window in (("its peers", len(in_window), limits.window), (accused, grudge, limits.grudge)):
            if count > limits.accusations:
                actions += self._kill(accuser, f"it accused {whom} {count} times in {window:g} s", now)
        return actions

    def _unwitnessed(self, accuser: str, life: _Life, now: float, window: float) -> list[str]:
        """Whom it accused in the last ``window`` seconds and nobody else did, once for each time."""
        recent = self._recent(life, now, window)
        return [whom for whom in recent if not self._is_accused_by_others(whom, accuser, now, window)]

    def _recent(self, life: _Life, now: float, window: float) -> list[str]:
        while life.accusations and now - life.accusations[0][0] > self._limits.grudge:
            life.accusations.popleft()
        return [accused for when, accused in life.accusations if now - when <= window]

    def _is_accused_by_others(self, accused: str, accuser: str, now: float, window: float) -> bool:
        others = (life for name, life in self._lives.items() if name != accuser)
        return any(accused in self._recent(life, now, window) for life in others)

    def _kill(self, domain: str, why: str, now: float) -> list[Action]:
        life = self._lives[domain]
        if life.phase not in ALIVE:
            return []
        self._enter(life, Phase.DYING, now)
        return [Kill(domain, why)]

    @staticmethod
    def _enter(life: _Life, phase: Phase, now: float) -> None:
        life.phase, life.since = phase, now
        if phase is Phase.STARTING:
            life.heartbeat, life.stuck, life.violations = 0, 0.0, 0
