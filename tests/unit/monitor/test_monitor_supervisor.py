"""The supervisor as a table: what happened, what it does about it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.guest.status import MAGIC, State
from appliance.monitor.status import Report
from appliance.monitor.supervisor import ALIVE, LIMITS, Action, Alarm, Go, HangUp, Kill, Phase, Reset, Start, Supervisor

# a talks to b at its port 0 and to c at its port 1
PEERS = {"a": ("b", "c"), "b": ("a",), "c": ("a",)}


def page(state: int = State.RUNNING, heartbeat: int = 1, violations: int = 0, magic: int = MAGIC) -> Report:
    return Report(magic, state, heartbeat, violations)


class World:
    """A supervisor, its clock, and pages that beat by themselves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.supervisor = Supervisor(PEERS, self.now)
        self.beat = 0
        self.pages: dict[str, Report] = {}

    def look(self, after: float = 0.01, waiting: Iterable[str] = (), **pages: Report) -> list[Action]:
        self.now += after
        self.beat += 1
        alive = (name for name in PEERS if self.supervisor.phase(name) in ALIVE)
        reports = {name: pages.get(name, page(heartbeat=self.beat)) for name in alive}
        return self.supervisor.look(reports, waiting, self.now)

    def died(self, name: str) -> list[Action]:
        return self.supervisor.died(name, self.now)

    def start(self, *names: str) -> None:
        """Takes domains that are starting to RUNNING."""
        sealed = {name: page(State.SEALED) for name in names}
        assert self.look(**sealed) == [Go(name) for name in names]
        assert self.look() == []

    def rebirth(self, name: str, lifetime: float = 0.0) -> None:
        """From its death to RUNNING, with whatever delay there is."""
        assert self.died(name)[-1] == Reset(name)
        while Start(name) not in self.look(waiting=[name]):
            assert self.now < 1e6
        self.start(name)
        self.now += lifetime


@pytest.fixture
def world() -> World:
    world = World()
    world.start(*PEERS)
    assert world.supervisor.is_settled
    return world


def test_a_box_is_started_in_two_steps() -> None:
    world = World()
    early = {name: page(0, 0, magic=0) for name in PEERS}
    assert world.look(**early) == []
    assert world.look(**{name: page(State.STARTING) for name in PEERS}) == []
    assert world.look(**{name: page(State.BUILT) for name in PEERS}) == []
    assert world.look(a=page(State.SEALED), b=page(State.BUILT), c=page(State.BUILT)) == [Go("a")]
    assert not world.supervisor.is_settled
    assert world.look(a=page(State.SEALED), b=page(State.SEALED), c=page(State.SEALED)) == [Go("b"), Go("c")]
    assert world.look() == []
    assert world.supervisor.is_settled


@pytest.mark.parametrize(
    ("phase", "report", "reason"),
    [
        (Phase.STARTING, page(State.RUNNING), "says 4 while starting"),
        (Phase.STARTING, page(State.BUILT, magic=7), "says 2 while starting"),
        (Phase.STARTING, page(99), "says 99 while starting"),
        (Phase.GOING, page(State.BUILT), "says 2 while going"),
        (Phase.RUNNING, page(State.SEALED), "says 3 while running"),
        (Phase.RUNNING, page(0), "says 0 while running"),
        (Phase.RUNNING, page(2**64 - 1), f"says {2**64 - 1} while running"),
        (Phase.RUNNING, page(magic=0), "says 4 while running"),
        (Phase.RUNNING, page(violations=1 << 2), "a port that it does not have"),
        (Phase.RUNNING, page(violations=1 << 63), "a port that it does not have"),
    ],
)
def test_a_page_that_no_honest_domain_writes_ends_it(phase: Phase, report: Report, reason: str) -> None:
    world = World()
    if phase is not Phase.STARTING:
        world.look(**{name: page(State.SEALED) for name in PEERS})
    if phase is Phase.RUNNING:
        world.look()
    assert world.supervisor.phase("a") is phase
    others = {} if phase is not Phase.STARTING else {"b": page(State.BUILT), "c": page(State.BUILT)}
    (kill,) = world.look(a=report, **others)
    assert isinstance(kill, Kill)
    assert kill.domain == "a"
    assert reason in kill.why
    # once is enough, and the dying are not looked at
    assert world.look(**others) == []
    assert world.supervisor.phase("a") is Phase.DYING


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.GOING, Phase.RUNNING])
def test_one_that_failed_is_left_to_say_its_last_words(phase: Phase) -> None:
    world = World()
    others = {"b": page(State.BUILT), "c": page(State.BUILT)}
    if phase is not Phase.STARTING:
        world.look(**{name: page(State.SEALED) for name in PEERS})
        others = {}
    if phase is Phase.RUNNING:
        world.look()
    assert world.look(a=page(State.FAILED), **others) == []
    assert world.died("a") == [Reset("a")]


def test_a_loop_that_stands_still_is_ended(world: World) -> None:
    stuck = page(heartbeat=5)
    world.look(b=stuck)
    ticks = 0
    while not (actions := world.look(after=0.25, b=stuck)):
        ticks += 1
    assert actions == [Kill("b", "its loop stood still for 5.0 s")]
    assert ticks * 0.25 + 0.25 == LIMITS.heartbeat


def test_a_monitor_that_slept_does_not_blame_its_domains(world: World) -> None:
    world.look(b=page(heartbeat=5))
    for _ in range(4):  # each look counts for a second at most
        assert world.look(after=3600, b=page(heartbeat=5)) == []
    assert world.supervisor.heartbeat_age("b") == 4 * LIMITS.look
    assert world.look(after=3600, b=page(heartbeat=6)) == []
    assert world.supervisor.heartbeat_age("b") == 0


@pytest.mark.parametrize("state", [0, State.STARTING, State.BUILT])
def test_a_start_that_takes_too_long_is_ended(state: int) -> None:
    world = World()
    report = page(state, 0, magic=MAGIC if state else 0)
    pages = dict.fromkeys(PEERS, report)
    assert world.look(after=LIMITS.start - 0.1, **pages) == []
    assert {action.domain for action in world.look(after=0.2, **pages) if isinstance(action, Kill)} == set(PEERS)


def test_a_dead_domain_comes_back_when_its_peers_are_ready(world: World) -> None:
    assert world.died("a") == [Reset("a")]
    assert world.supervisor.survivors("a") == ("b", "c")
    assert world.look() == []
    assert world.look(waiting=["a"]) == [Start("a")]
    assert world.supervisor.rebuilt("a") == 1
    world.start("a")


def test_a_dead_domain_does_not_wait_for_ever(world: World) -> None:
    world.died("a")
    assert world.look(after=LIMITS.reset - 0.1) == []
    assert world.look(after=0.2) == [Start("a")]


def test_the_dead_wait_for_no_dead(world: World) -> None:
    world.died("b")
    world.died("a")
    assert world.supervisor.survivors("a") == ("c",)
    assert world.supervisor.survivors("b") == ()


def test_deaths_in_a_row_are_answered_later_and_later(world: World) -> None:
    delays = []
    for _ in range(20):
        actions = world.died("c")
        died = world.now
        alarms = [action for action in actions if isinstance(action, Alarm)]
        while Start("c") not in world.look(after=0.01 if not alarms else 0.1, waiting=["c"]):
            pass
        delays.append(world.now - died)
        assert bool(alarms) == (len(delays) > LIMITS.free_deaths)
        world.start("c")
    assert all(delay < 0.02 for delay in delays[: LIMITS.free_deaths])
    assert [round(delay, 1) for delay in delays[3:7]] == [0.1, 0.2, 0.4, 0.8]
    assert all(LIMITS.backoff_most <= delay < LIMITS.backoff_most + 0.2 for delay in delays[-5:])


def test_a_calm_life_is_forgiven(world: World) -> None:
    for _ in range(3):
        world.rebirth("c")
    assert isinstance(world.died("c")[0], Alarm)
    while Start("c") not in world.look(waiting=["c"]):
        pass
    world.start("c")
    world.now += LIMITS.calm
    assert world.died("c") == [Reset("c")]


def test_a_calm_life_is_forgiven_to_one_that_was_killed(world: World) -> None:
    for _ in range(3):
        world.rebirth("c")
    world.now += LIMITS.calm
    world.look(c=page(77))
    assert world.died("c") == [Reset("c")]


def test_the_accused_is_ended_and_not_the_accuser(world: World) -> None:
    assert world.look(a=page(violations=0b10)) == [Kill("c", "a says that it broke the protocol")]
    # the bit stays up until the port has a new peer: that is no further accusation
    assert world.look(a=page(heartbeat=77, violations=0b10)) == []
    assert world.supervisor.phase("a") is Phase.RUNNING


def test_an_accuser_pays_from_the_fourth_time_on(world: World) -> None:
    for _ in range(LIMITS.accusations):
        assert world.look(a=page(heartbeat=world.beat, violations=1)) == [
            Kill("b", "a says that it broke the protocol")
        ]
        world.look(a=page(heartbeat=world.beat))
        world.rebirth("b")
    accusation, price = world.look(a=page(heartbeat=world.beat, violations=1))
    assert (accusation.domain, price.domain) == ("b", "a")
    assert isinstance(price, Kill)
    assert "accused its peers 4 times in 60 s" in price.why


def test_a_minute_later_an_accusation_of_another_is_free_again(world: World) -> None:
    for port, accused in enumerate(("b", "c")):
        for _ in range(LIMITS.accusations):
            assert len(world.look(a=page(heartbeat=world.beat, violations=1 << port))) == 1
            world.look(a=page(heartbeat=world.beat))
            world.rebirth(accused, lifetime=LIMITS.window / LIMITS.accusations)


@pytest.mark.parametrize(("after", "is_free"), [(LIMITS.window + 1, False), (LIMITS.grudge / 3 + 1, True)])
def test_accusations_of_the_same_one_are_remembered_for_longer(world: World, after: float, is_free: bool) -> None:
    for _ in range(LIMITS.accusations):
        assert len(world.look(a=page(heartbeat=world.beat, violations=1))) == 1
        world.look(a=page(heartbeat=world.beat))
        world.rebirth("b", lifetime=after)
    _, *price = world.look(a=page(heartbeat=world.beat, violations=1))
    assert bool(price) is not is_free
    for kill in price:
        assert kill == Kill("a", "it accused b 4 times in 600 s")


def test_deaths_on_the_word_of_one_do_not_count(world: World) -> None:
    for _ in range(LIMITS.accusations):
        world.look(a=page(heartbeat=world.beat, violations=1))
        world.look(a=page(heartbeat=world.beat))
        world.rebirth("b")
    for _ in range(LIMITS.free_deaths):
        assert world.died("b") == [Reset("b")]
        while Start("b") not in world.look(waiting=["b"]):
            pass
        world.start("b")
    assert isinstance(world.died("b")[0], Alarm)


def test_a_hostile_accuser_keeps_nobody_away(world: World) -> None:
    """An hour of it: whenever it may, `a` says of `b` that it broke the protocol."""
    began, step, rebuild = world.now, 0.1, 0.3
    back: dict[str, float] = {}  # when those that were started will run
    away = 0.0
    deaths = dict.fromkeys(PEERS, 0)
    heard = True
    while world.now < began + 3600:
        pages = {}
        for name, ready in list(back.items()):
            phase = world.supervisor.phase(name)
            if world.now < ready or phase is Phase.STARTING:
                pages[name] = page(State.STARTING if world.now < ready else State.SEALED)
            elif phase is Phase.RUNNING:
                del back[name]
        if world.supervisor.phase("a") is Phase.RUNNING:
            heard = not heard  # the bit goes up and down
            pages["a"] = page(heartbeat=world.beat, violations=int(heard))
        actions = world.look(after=step, waiting=PEERS, **pages)
        away += step * (world.supervisor.phase("b") is not Phase.RUNNING)
        for action in actions:
            if isinstance(action, Kill):
                deaths[action.domain] += 1
                assert world.died(action.domain)[-1] == Reset(action.domain)
            elif isinstance(action, Start):
                back[action.domain] = world.now + rebuild
    assert deaths["a"] > 30
    assert deaths["c"] == 0
    assert away < 60


def test_all_accused_at_once_is_four_accusations_if_there_are_four() -> None:
    peers = {"a": tuple("bcde"), **dict.fromkeys("bcde", ("a",))}
    supervisor = Supervisor(peers, 0.0)
    supervisor.look({name: page(State.SEALED) for name in peers}, (), 0.1)
    supervisor.look({name: page() for name in peers}, (), 0.2)
    actions = supervisor.look({name: page(heartbeat=2, violations=0b1111) for name in ["a"]}, (), 0.3)
    assert [action.domain for action in actions] == ["b", "c", "d", "e", "a"]


def test_a_late_word_does_not_end_the_next_life(world: World) -> None:
    world.died("b")
    while Start("b") not in world.look(waiting=["b"]):
        assert world.now < 1e6
    assert world.look(a=page(heartbeat=world.beat, violations=1), b=page(State.STARTING)) == []
    assert world.look(a=page(heartbeat=world.beat, violations=1), b=page(State.SEALED)) == [Go("b")]
    assert world.look(a=page(heartbeat=world.beat, violations=1)) == []


def test_two_witnesses_of_one_culprit_pay_nothing_and_it_is_kept_away() -> None:
    peers = {"a": ("culprit",), "b": ("culprit",), "culprit": ("a", "b")}
    supervisor = Supervisor(peers, 0.0)
    supervisor.look({name: page(State.SEALED) for name in peers}, (), 0.1)
    supervisor.look({name: page() for name in peers}, (), 0.2)
    now = 0.2
    for life in range(1, 3 * LIMITS.accusations):
        now += 0.1
        accusing = {name: page(heartbeat=life, violations=1) for name in "ab"}
        actions = supervisor.look(accusing, (), now)
        assert {action.domain for action in actions} <= {"culprit"}, "a witness was punished"
        is_late = isinstance(supervisor.died("culprit", now)[0], Alarm)
        assert is_late == (life > LIMITS.free_deaths)
        while Start("culprit") not in supervisor.look({name: page(heartbeat=life) for name in "ab"}, ["culprit"], now):
            now += 0.1
        supervisor.look({"culprit": page(State.SEALED)}, (), now)
        supervisor.look({"culprit": page()}, (), now)


WORDS = st.integers(0, 2**64 - 1) | st.integers(0, 8) | st.just(MAGIC)
EVENTS = st.lists(
    st.tuples(st.sampled_from(sorted(PEERS)), st.booleans(), WORDS, WORDS, WORDS, st.floats(0, 20)), max_size=60
)


@given(EVENTS)
def test_whatever_happens_each_domain_has_one_life_at_a_time(
    events: list[tuple[str, bool, int, int, int, float]],
) -> None:
    """Nobody is started twice, let go before it says SEALED, or killed while dead; and the dead always come back."""
    now = 0.0
    supervisor = Supervisor(PEERS, now)
    alive, going = set(PEERS), set()

    def check(actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(name):
                    assert name not in alive
                    alive.add(name)
                case Go(name):
                    assert name in alive
                    assert name not in going
                    going.add(name)
                case Kill(name):
                    assert name in alive

    for name, dies, *words, after in events:
        now += after
        if dies and name in alive:
            alive.discard(name)
            going.discard(name)
            check(supervisor.died(name, now))
        reports = {one: page() for one in alive} | ({name: Report(*words[:1], *words)} if name in alive else {})
        check(supervisor.look(reports, (), now))
    for name in sorted(alive):
        alive.discard(name)
        going.discard(name)
        check(supervisor.died(name, now))
    check(supervisor.look({}, (), now + LIMITS.reset))
    check(supervisor.look({}, (), now + LIMITS.reset + LIMITS.backoff_most))
    assert alive == set(PEERS)


# Somebody who is none of the box


def test_an_accused_who_is_outside_is_hung_up_on_and_nobody_pays() -> None:
    world = World()
    world.supervisor = Supervisor({**PEERS, "b": ("a", "operator")}, world.now)
    world.start(*PEERS)
    for _ in range(3 * LIMITS.accusations):
        assert world.look(b=page(violations=2, heartbeat=world.beat + 1)) == [HangUp("b")]
        assert world.look(b=page(violations=0, heartbeat=world.beat + 1)) == []
    assert world.supervisor.survivors("b") == ("a",)
    assert world.look(b=page(violations=4)) == [Kill("b", "it accuses a peer at a port that it does not have")]
