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

from components.log import main
from components.log.lines import BURST, RATE, Lines, printable


@given(st.text(max_size=200))
def test_a_record_is_one_printable_line(text: str) -> None:
    (line,) = Lines().record("red", 4, "event", text, 0.0)
    shown = line.decode()
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
    assert lines.record("keymgr", 6, "handshake", "peer 1", 0.0) == [b"<6>keymgr handshake: peer 1\n"]
    assert lines.record("keymgr", 3, "failed", "", 0.0) == [b"<3>keymgr failed\n"]
    assert lines.record("red", 6, "a\nb", "", 0.0) == [b"<6>red a\\x0ab\n"]


def test_a_talkative_sender_is_cut_short_and_others_are_not() -> None:
    lines = Lines()
    said = [lines.record("red", 6, "e", str(i), 10.0) for i in range(1000)]
    assert sum(map(len, said)) == BURST and lines.suppressed == 800
    assert lines.record("black", 6, "e", "", 10.0) == [b"<6>black e\n"]
    heard = []
    for i in range(30_000):
        heard += lines.record("red", 6, "e", "x", 10.0 + i / 1000)
        heard += lines.tick(10.0 + i / 1000) if i % 1000 == 0 else []
    assert 590 <= len(heard) <= 30 * RATE + 3
    assert [line.split()[2] for line in heard if b"suppressed" in line][1:] == [b"9800"]


def test_silence_after_a_flood_is_explained_once() -> None:
    lines = Lines()
    for _ in range(300):
        lines.record("red", 6, "e", "", 0.0)
    assert lines.tick(0.1) == []
    assert lines.tick(2.0) == [b"<5>red suppressed: 100 records\n"]
    assert lines.tick(3.0) == []


@dataclass
class Counter:
    value: int = 0

    def add(self, n: int) -> None:
        self.value += n

    def set(self, n: int) -> None:
        self.value = n


@dataclass
class FakeGuest:
    """As much of a guest as log uses."""

    devices: dict[str, int]
    counters: dict[str, Counter] = field(default_factory=dict)
    say: Callable[[str, Record, float], None] = lambda sender, message, now: None
    tick: Callable[[float], float] = lambda now: now

    def counter(self, name: str) -> Counter:
        return self.counters.setdefault(name, Counter())

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
