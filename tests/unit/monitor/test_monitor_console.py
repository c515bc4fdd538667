"""A guest may print whatever it likes, as much as it likes: the monitor takes and keeps so much and no more."""

from __future__ import annotations

import os
import time
import tty
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread

import pytest

from appliance.monitor.xen.console import Console

BOUND = 4096  # docs/xen.md: so much at a look, and the last so much is kept
LONG = 20.0
FLOOD = b"".join(b"%07d\n" % number for number in range(64 * BOUND // 8))

pytestmark = pytest.mark.timeout(60)


class Guest:
    """Its console as xenconsoled makes it: a terminal in raw mode, of which the monitor opens the other end."""

    def __init__(self) -> None:
        self.fd, slave = os.openpty()
        tty.setraw(slave)
        self.console = Console(os.ttyname(slave))
        os.close(slave)
        self._writers: list[Thread] = []

    def prints(self, words: bytes) -> None:
        self._writers.append(Thread(target=self._write, args=(words,), daemon=True))
        self._writers[-1].start()

    def _write(self, words: bytes) -> None:
        with suppress(OSError):  # who writes more than is read waits here
            while words:
                words = words[os.write(self.fd, words) :]

    def heard(self, size: int) -> list[bytes]:
        """Looks until ``size`` bytes have come, or nothing comes any more."""
        looks: list[bytes] = []
        until = time.monotonic() + LONG
        while sum(map(len, looks)) < size and time.monotonic() < until:
            looks.append(self.console.look())
            if not looks[-1]:
                time.sleep(0.001)
        return looks

    def hang_up(self) -> None:
        until = time.monotonic() + LONG
        while any(writer.is_alive() for writer in self._writers) and time.monotonic() < until:
            self.console.look()
        self.console.close()
        os.close(self.fd)


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.hang_up()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What each read may take. A terminal gives little at once, whatever it is asked for."""
    sizes: list[int] = []
    read = os.read

    def noted(fd: int, size: int) -> bytes:
        sizes.append(size)
        return read(fd, size)

    monkeypatch.setattr(os, "read", noted)
    return sizes


def test_of_a_flood_the_newest_bytes_are_kept_and_no_more(guest: Guest) -> None:
    guest.prints(FLOOD)
    came = b""
    for found in guest.heard(len(FLOOD)):
        came += found
        assert len(found) <= BOUND
    assert came == FLOOD
    assert guest.console.untrusted_words == FLOOD[-BOUND:]


def test_a_look_takes_no_more_than_its_bound_and_waits_for_nobody(guest: Guest, asked: list[int]) -> None:
    begun = time.monotonic()
    assert guest.console.look() == b"" and asked == [BOUND]
    guest.prints(FLOOD)
    assert any(guest.heard(1))
    before = len(asked)
    guest.console.look()
    assert set(asked) == {BOUND} and len(asked) == before + 1
    assert time.monotonic() - begun < LONG
    assert len(guest.console.untrusted_words) <= BOUND


def test_the_last_words_are_four_looks_of_a_flood_and_the_rest_is_not_waited_for(
    guest: Guest, asked: list[int]
) -> None:
    guest.prints(FLOOD)
    said = sum(map(len, guest.heard(1)))
    asked.clear()
    guest.console.drain()
    assert 1 <= len(asked) <= 4
    left = sum(map(len, guest.heard(len(FLOOD) - said - 4 * BOUND)))
    assert left >= len(FLOOD) - said - 4 * BOUND


def test_a_silent_console_is_drained_at_one_look(guest: Guest, asked: list[int]) -> None:
    guest.console.drain()
    assert asked == [BOUND] and guest.console.untrusted_words == b""


def test_bytes_that_are_no_text_are_kept_as_they_came(guest: Guest) -> None:
    words = b"\x1b[2J\x1b]0;a title\x07\x9b31m\x04\x03" + bytes(range(256)) + b"\r\n"
    guest.prints(words)
    assert b"".join(guest.heard(len(words))) == guest.console.untrusted_words == words


def test_after_xenconsoled_has_hung_up_the_words_are_still_there() -> None:
    guest = Guest()
    guest.prints(b"no more memory\n")
    guest.heard(15)
    os.close(guest.fd)
    assert guest.console.look() == b""
    guest.console.drain()
    assert guest.console.untrusted_words == b"no more memory\n"
    guest.console.close()
    assert guest.console.look() == b""


@pytest.mark.parametrize(
    "path", ["", "/dev/null", "/dev/pts/", "/dev/pts/ptmx", "/dev/pts/../null", "/dev/pts/1\n", "/dev/pts/1234567"]
)
def test_only_a_terminal_is_opened(path: str) -> None:
    with pytest.raises(ValueError, match="is no terminal"):
        Console(path)
