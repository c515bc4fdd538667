"""The operator's end in one command: whatever is at the other end, it gets an answer or an error, and never hangs."""

from __future__ import annotations

import gc
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from septum.v1.filtering import AskTotals, FilteringReply, FilteringRequest, Taken

from appliance.cli import asking
from appliance.cli.asking import AskError, Call
from appliance.vchan import memfd
from appliance.vchan.endpoint import Endpoint
from appliance.vchan.layout import Orders
from appliance.vchan.schema import schema
from tests.unit.operated import NAME, Box, answering, until

ASK = FilteringRequest(totals=AskTotals(most=1))
REPLY = FilteringReply(taken=Taken(bytes=7))


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Box]:
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(tmp_path))
    for name in ("BORROW", "OPEN"):
        monkeypatch.setattr(asking, name, 0.3)
    made = Box(tmp_path)
    yield made
    made.close()


def descriptors() -> int:
    gc.collect()  # memory that is mapped has one of its own
    return len(os.listdir("/proc/self/fd"))


def test_questions_are_answered(box: Box) -> None:
    with answering(box.attach(), lambda request: REPLY):
        before = descriptors()
        for _ in range(5):
            with Call(NAME, "filter") as call:
                assert [call.ask(ASK) for _ in range(5)] == [REPLY] * 5
                assert call.domain == "filter"
        del call
        until(lambda: descriptors() <= before)


class GuestLine:
    """The line to a Xen guest, of memory and events of processes."""

    def __init__(self, box: Box) -> None:
        lent = box.backend.channels.outside("filter")
        assert lent is not None
        self.wire = memfd.attach(*lent.descriptors, schema(lent.schema).orders)
        self.attempts = 0
        self.met_after = 1
        self.is_alive = True
        self.is_closed = False

    def is_met(self) -> bool:
        self.attempts += 1
        return self.attempts >= self.met_after

    def is_there(self) -> bool:
        return self.is_alive

    def detach(self) -> None:
        self.wire.memory[:] = bytes(len(self.wire.memory))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def line(box: Box, monkeypatch: pytest.MonkeyPatch) -> GuestLine:
    made = GuestLine(box)
    box.backend.place = (7, 12)

    def meet(domid: int, channel: int, orders: Orders) -> GuestLine:
        assert (domid, channel, orders) == (7, 12, schema("filtering").orders)
        return made

    monkeypatch.setattr(asking, "meet", meet)
    return made


def test_a_guest_is_met_where_the_monitor_says(box: Box, line: GuestLine) -> None:
    line.met_after = 3
    with answering(box.attach(), lambda request: REPLY), Call(NAME, "filter") as call:
        assert call.ask(ASK) == REPLY
    assert line.attempts == 3 and line.is_closed


def test_a_guest_that_offers_nothing(box: Box, line: GuestLine) -> None:
    line.met_after = 1000
    with pytest.raises(AskError, match="filter of box is not there"), Call(NAME, "filter"):
        pass
    assert line.is_closed


def test_a_guest_that_is_being_built(box: Box) -> None:
    box.backend.away = "filter is being built"
    with pytest.raises(AskError, match="is not there: it was waited for"), Call(NAME, "filter"):
        pass


def test_a_guest_that_is_gone_leaves_its_pages_as_they_were(box: Box, line: GuestLine) -> None:
    def die(request: object) -> None:
        line.is_alive = False

    with (
        answering(box.attach(), die),
        Call(NAME, "filter") as call,
        pytest.raises(AskError, match="ended while it was asked"),
    ):
        call.ask(ASK)


def test_nobody_is_there(box: Box) -> None:
    began = time.monotonic()
    before = descriptors()
    with pytest.raises(AskError, match="filter of box is not there") as error, Call(NAME, "filter"):
        pass
    assert error.value.then == "septum ps box"
    assert time.monotonic() - began < 2
    del error
    until(lambda: descriptors() <= before)


def test_no_answer_comes(box: Box) -> None:
    end = box.attach()
    with answering(end, lambda request: time.sleep(0.5) or REPLY), Call(NAME, "filter") as call:
        began = time.monotonic()
        with pytest.raises(AskError, match=r"did not answer within 0\.2 s"):
            call.ask(ASK, 0.2)
        assert 0.15 < time.monotonic() - began < 1


def test_it_ends_while_it_is_asked(box: Box) -> None:
    end = box.attach()

    def die(request: object) -> None:
        box.backend.channels.reset("filter")

    with answering(end, die), Call(NAME, "filter") as call, pytest.raises(AskError, match="ended while it was asked"):
        call.ask(ASK)


def test_another_one_holds_it(box: Box) -> None:
    said: list[str] = []
    is_held = pytest.raises(AskError, match=rf"process {os.getpid()} .* lent to one at a time")
    with answering(box.attach(), lambda request: REPLY), Call(NAME, "filter"), is_held:
        Call(NAME, "filter", said.append).__enter__()
    assert said


def test_the_monitor_takes_it_back(box: Box) -> None:
    with answering(box.attach(), lambda request: time.sleep(0.3) or REPLY), Call(NAME, "filter") as call:
        box.hang_up()
        with pytest.raises(AskError, match="took the line to filter back"):
            call.ask(ASK)


def test_there_is_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(tmp_path))
    box = Box(tmp_path, joined=False)
    with pytest.raises(AskError, match=r"joins operator\.filter to nothing") as error, Call(NAME, "filter"):
        pass
    assert '"operator.filter" = "filter.control"' in error.value.then
    box.close()


def test_there_is_no_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPTUM_RUN_DIR", str(tmp_path))
    with pytest.raises(AskError, match="box is not running"), Call(NAME, "filter"):
        pass


def _frame(end: Endpoint, content: bytes, serial: int = 0, length: int | None = None) -> None:
    vchan = end._vchan
    frame = struct.pack("<II", len(content) if length is None else length, serial) + content
    vchan.write((frame,), len(frame))


@pytest.mark.parametrize(
    ("bend", "why"),
    [
        (lambda end: _frame(end, b"\xff" * 30), "bad message"),
        (lambda end: _frame(end, b""), "bad message"),
        (lambda end: _frame(end, b"", length=1 << 30), "at most"),
        (lambda end: _frame(end, b"", serial=9), "answers no request"),
    ],
)
def test_nonsense_is_said_to_be_nonsense(box: Box, bend: object, why: str) -> None:
    end = box.attach()

    def answer(request: object) -> FilteringReply:
        bend(end)  # type: ignore[operator]
        time.sleep(0.1)
        return REPLY

    is_said = pytest.raises(AskError, match=f"broke the protocol, and nothing it says is believed: .*{why}")
    with answering(end, answer), Call(NAME, "filter") as call, is_said:
        call.ask(ASK)


def test_an_index_out_of_bounds(box: Box) -> None:
    end = box.attach()

    def answer(request: object) -> FilteringReply:
        end._vchan._words[end._vchan._prod_word] = 0x8000_0000
        end._wire.notify()
        time.sleep(0.1)
        return REPLY

    with answering(end, answer), Call(NAME, "filter") as call, pytest.raises(AskError, match="broke the protocol"):
        call.ask(ASK)
