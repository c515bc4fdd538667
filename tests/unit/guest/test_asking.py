"""Calls that nobody waits for: each question is answered once, in order, whatever becomes of who is asked."""

from __future__ import annotations

from collections import deque
from typing import Any

from appliance.guest.asking import Asker
from appliance.guest.loop import Turn
from appliance.guest.ports import PeerClosed, PeerStalled
from appliance.vchan.ring import PeerViolation


class Endpoint:
    """The end of a channel to somebody who answers when the test says so."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.replies: deque[Any] = deque()
        self.is_open = True
        self.error: PeerViolation | None = None

    def fileno(self) -> int:
        return 9

    def send(self, request: Any) -> bool:
        if self.is_open:
            self.sent.append(request)
        return self.is_open

    def receive(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.replies.popleft() if self.replies else None


class Port:
    name, peer = "config", "config"

    def __init__(self) -> None:
        self.endpoint = Endpoint()


class Guest:
    def __init__(self) -> None:
        self.accused: list[Any] = []
        self.has_worked = False
        self.asked_for = 0

    def soon(self) -> None:
        self.asked_for += 1

    def accuse(self, port: Any, violation: PeerViolation) -> None:
        self.accused.append(port)

    def arm(self, port: Any) -> bool:
        return True


def asker() -> tuple[Asker, Endpoint, Guest]:
    guest, port = Guest(), Port()
    return Asker(guest, port), port.endpoint, guest  # type: ignore[arg-type]


def test_one_question_at_a_time_and_each_reply_to_who_asked() -> None:
    made, end, _ = asker()
    heard: list[Any] = []
    for i in range(3):
        made.ask(f"q{i}", lambda answer, i=i: heard.append((i, answer)))
    assert end.sent == [] and heard == [], "never from within the call"
    made.timer(0.0)
    for i in range(3):
        assert end.sent == [f"q{n}" for n in range(i + 1)]
        end.replies.append(f"a{i}")
        assert made.turn(0.1) is Turn.MORE
    assert heard == [(0, "a0"), (1, "a1"), (2, "a2")] and made.turn(0.2) is Turn.IDLE


def test_a_question_has_its_own_deadline_and_the_next_one_its_turn() -> None:
    made, end, _ = asker()
    heard: list[Any] = []
    made.ask("slow", heard.append, seconds=2.0)
    made.ask("next", heard.append, seconds=5.0)
    assert made.timer(10.0) == 12.0 and made.timer(11.9) == 12.0 and not heard
    assert made.timer(12.0) == 17.0, "it counts from its own turn"
    assert isinstance(heard[0], PeerStalled) and end.sent == ["slow", "next"]


def test_who_is_gone_answers_nobody_and_all_hear_so() -> None:
    made, end, _ = asker()
    heard: list[Any] = []
    made.ask("asked", heard.append)
    made.timer(0.0)
    end.is_open = False
    made.closed(0.1)
    made.ask("later", heard.append)
    made.timer(0.2)
    assert [type(one) for one in heard] == [PeerClosed, PeerClosed]
    end.is_open = True
    made.ask("again", heard.append)
    made.timer(0.3)
    end.replies.append("yes")
    made.turn(0.4)
    assert heard[2] == "yes"


def test_who_breaks_the_protocol_is_accused() -> None:
    made, end, guest = asker()
    heard: list[Any] = []
    made.ask("asked", heard.append)
    made.timer(0.0)
    end.error = PeerViolation("nonsense")
    assert made.turn(0.1) is Turn.IDLE and len(guest.accused) == 1


def test_an_answer_may_ask_the_next_question() -> None:
    made, end, _ = asker()
    heard: list[Any] = []

    def then(answer: Any) -> None:
        heard.append(answer)
        if len(heard) < 5:
            made.ask(f"q{len(heard)}", then)

    made.ask("q0", then)
    made.timer(0.0)
    for i in range(5):
        end.replies.append(i)
        made.turn(float(i) / 10)
    assert heard == list(range(5)) and end.sent == [f"q{i}" for i in range(5)]
