"""The audit sink: one line a record, whatever is in it, however many there are, however slow the journal is."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from septum.v1.records import Record
from septum.v1.tail import TailReply, TailRequest

from components.log import main
from components.log.lines import BURST, RATE, Entry, Lines, printable
from components.log.tail import AT_ONCE, MOST_KEPT, Tail
from tests.unit.fake_guest import FakeCounter


def written(entries: list[Entry]) -> list[bytes]:
    return [entry.line() for entry in entries]


@given(st.text(max_size=200))
def test_a_record_is_one_printable_line(text: str) -> None:
    (entry,) = Lines().record("red", 4, "event", text, 0.0)
    shown = entry.line().decode()
    assert shown.endswith("\n") and shown.startswith("<4>red event")
    assert not any(unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" for c in shown[:-1])


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_two_texts_look_alike(one: str, two: str) -> None:
    assert (one == two) == (printable(one) == printable(two))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ümläut 日本", "plain, ümläut 日本"),
        ("a\nb", "a\\x0ab"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\\nb", "a\\\\nb"),
        ("\u202eevil\u2028\x85\x7f", "\\u202eevil\\u2028\\x85\\x7f"),
        ("\U000e0001", "\\U000e0001"),
        ("a\u00a0b", "a\u00a0b"),
    ],
)
def test_what_moves_a_cursor_is_shown_as_what_it_is(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_line_names_severity_domain_event_and_text() -> None:
    lines = Lines()

    def record(*said: object) -> list[bytes]:
        return written(lines.record(*said))  # type: ignore[arg-type]

    assert record("keymgr", 6, "handshake", "peer 1", 0.0) == [b"<6>keymgr handshake: peer 1\n"]
    assert record("keymgr", 3, "failed", "", 0.0) == [b"<3>keymgr failed\n"]
    assert record("red", 6, "a\nb", "", 0.0) == [b"<6>red a\\x0ab\n"]


def test_a_talkative_sender_is_cut_short_and_others_are_not() -> None:
    lines = Lines()
    said = [lines.record("red", 6, "e", str(i), 10.0) for i in range(1000)]
    assert sum(map(len, said)) == BURST and lines.suppressed == 800
    assert written(lines.record("black", 6, "e", "", 10.0)) == [b"<6>black e\n"]
    heard: list[bytes] = []
    for i in range(30_000):
        heard += written(lines.record("red", 6, "e", "x", 10.0 + i / 1000))
        heard += written(lines.tick(10.0 + i / 1000)) if i % 1000 == 0 else []
    assert 590 <= len(heard) <= 30 * RATE + 3
    assert [line.split()[2] for line in heard if b"suppressed" in line][1:] == [b"9800"]


def test_silence_after_a_flood_is_explained_once() -> None:
    lines = Lines()
    for _ in range(300):
        lines.record("red", 6, "e", "", 0.0)
    assert lines.tick(0.1) == []
    assert written(lines.tick(2.0)) == [b"<5>red suppressed: 100 records\n"]
    assert lines.tick(3.0) == []


@dataclass
class FakeGuest:
    """As much of a guest as log uses."""

    devices: dict[str, int]
    counters: dict[str, FakeCounter] = field(default_factory=dict)
    say: Callable[[str, Record, float], None] = lambda sender, message, now: None
    tick: Callable[[float], float] = lambda now: now
    ask: Callable[[str, TailRequest], TailReply] | None = None
    joined: tuple[str, ...] = ()

    def is_joined(self, port: str) -> bool:
        return port in self.joined

    @staticmethod
    def wall() -> float:
        return 1700000000.5

    def serve(self, port: str, handler: Callable[[str, TailRequest], TailReply], share: float) -> None:
        assert port == "tail" and share < 1
        self.ask = handler

    def counter(self, name: str) -> FakeCounter:
        return self.counters.setdefault(name, FakeCounter())

    def receive_many(self, port: str, handler: Callable[[str, Record, float], None]) -> None:
        assert port == "records"
        self.say = handler

    def timer(self, handler: Callable[[float], float]) -> None:
        self.tick = handler


def test_the_shell_never_waits_for_a_journal_that_takes_nothing() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    guest = FakeGuest({"journal": write})
    main.build(guest)  # type: ignore[arg-type]
    text = "x" * 500
    for i in range(1000):  # far more than a pipe holds
        guest.say(f"domain{i % 10}", Record(severity=6, event="e", text=text), float(i))
    assert guest.counters["records"].value == 1000 and guest.counters["suppressed"].value == 0
    os.set_blocking(read, False)
    got = b""
    for i in range(100):
        guest.tick(2000.0 + i)
        try:
            got += os.read(read, 1 << 20)
        except BlockingIOError:
            break
    lines = got.decode().splitlines()
    assert lines[-1].startswith("<4>log lost: ") and lines[-1].endswith(" lines that the journal had no room for")
    lost = int(lines[-1].split()[2])
    assert len(lines) - 1 + lost == 1000 and lost > 0
    assert all(line.endswith(text) for line in lines[:-1]), "no line is torn"
    os.close(read)
    os.close(write)


def test_the_shell_writes_and_counts() -> None:
    read, write = os.pipe()
    guest = FakeGuest({"journal": write})
    main.build(guest)  # type: ignore[arg-type]
    for _ in range(300):
        guest.say("red", Record(severity=4, event="e", text="t"), 0.0)
    assert guest.counters["suppressed"].value == 100
    assert guest.tick(5.0) == 6.0 and guest.tick(5.5) == 6.0
    got = os.read(read, 1 << 16).splitlines()
    assert got[0] == b"<4>red e: t" and got[-1] == b"<5>red suppressed: 100 records" and len(got) == 201
    os.close(read)
    with pytest.raises(BrokenPipeError):
        guest.say("black", Record(severity=4, event="e", text="t"), 9.0)
    os.close(write)


def test_the_open_file_is_left_as_it_is_for_those_who_share_it() -> None:
    read, write = os.pipe()
    main.Journal(write).write([b"one\n"])
    assert os.get_blocking(write) and os.read(read, 10) == b"one\n"
    os.close(read)
    os.close(write)


def test_the_last_lines_can_be_asked_for_and_are_numbered() -> None:
    tail = Tail(life=77)
    assert tail.answer(TailRequest(after=0, most=64)).lines == []
    for i in range(MOST_KEPT + 100):
        tail.keep(Entry(6, "red", "e", str(i)), at=i)
    first = tail.answer(TailRequest(after=0, most=64))
    assert first.life == 77 and first.oldest == 101 and [line.number for line in first.lines] == list(range(101, 117))
    assert [line.text for line in first.lines] == [str(n - 1) for n in range(101, 117)]
    seen, after = 0, 0
    while lines := tail.answer(TailRequest(after=after, most=64)).lines:
        assert len(lines) <= AT_ONCE and lines[0].number == max(after + 1, 101)
        seen, after = seen + len(lines), lines[-1].number
    assert seen == MOST_KEPT and after == MOST_KEPT + 100
    assert len(tail.answer(TailRequest(after=after - 3, most=2)).lines) == 2
    assert tail.answer(TailRequest(after=2**64 - 1, most=1)).lines == []


def test_a_line_that_is_asked_for_fits_the_schema_however_long_it_became() -> None:
    tail = Tail(life=1)
    tail.keep(Entry(7, "black", printable("\u202e" * 64), printable("ü" + "\x00" * 511 + "ü" * 600)), at=0)
    (line,) = tail.answer(TailRequest(after=0, most=1)).lines
    assert len(line.event.encode()) <= 256 and len(line.text.encode()) <= 2048
    assert line.text.startswith("ü\\x00")


def test_the_shell_shows_what_it_writes_to_whom_the_assembly_lets() -> None:
    read, write = os.pipe()
    guest = FakeGuest({"journal": write}, joined=("tail",))
    main.build(guest)  # type: ignore[arg-type]
    guest.say("red", Record(severity=4, event="e\n", text="t"), 0.0)
    assert guest.ask is not None
    (line,) = guest.ask("admin", TailRequest(after=0, most=10)).lines
    assert (line.domain, line.event, line.text, line.severity, line.at) == ("red", "e\\x0a", "t", 4, 1700000000500)
    assert os.read(read, 1 << 16) == b"<4>red e\\x0a: t\n"
    os.close(read)
    os.close(write)
