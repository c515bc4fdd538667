"""The xenstore's messages: cut anywhere, out of order, wrong."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.xen.xswire import HEADER, MOST_EVENTS, MOST_PAYLOAD, Conversation, Event, Kind, XenstoreFault, message


def said(kind: int, number: int, payload: bytes) -> bytes:
    return HEADER.pack(kind, number, 0, len(payload)) + payload


def test_a_request() -> None:
    assert message(Kind.WRITE, 7, "a/b", tail="value") == said(11, 7, b"a/b\0value")
    assert message(Kind.WATCH, 1, "septum", "token") == said(4, 1, b"septum\0token\0")


@pytest.mark.parametrize(("part", "tail"), [("a\0b", None), ("a", "v" * MOST_PAYLOAD)])
def test_no_request_that_cannot_be_made(part: str, tail: str | None) -> None:
    with pytest.raises(ValueError, match=r"zero|bytes"):
        message(Kind.WRITE, 1, part, tail=tail)


@given(st.lists(st.integers(1, 30), max_size=40))
def test_messages_come_whole_however_they_are_cut(cuts: list[int]) -> None:
    whole = (
        said(Kind.WATCH_EVENT, 0, b"septum/go\0t\0")
        + said(Kind.READ, 3, b"1")
        + said(Kind.READ, 99, b"nobody asked")
        + said(Kind.WATCH_EVENT, 0, b"/local\0u\0")
        + said(Kind.ERROR, 4, b"ENOENT\0")
    )
    talk = Conversation()
    talk.expect(3)
    talk.expect(4)
    at = 0
    for cut in cuts:
        talk.feed(whole[at : at + cut])
        at += cut
    talk.feed(whole[at:])
    assert list(talk.events) == [Event("septum/go", "t"), Event("/local", "u")]
    assert talk.reply(Kind.READ, 3) == b"1"
    assert talk.reply(Kind.READ, 3) is None
    with pytest.raises(FileNotFoundError):
        talk.reply(Kind.READ, 4)
    assert talk.reply(Kind.READ, 99) is None


def test_a_reply_that_was_given_up_is_dropped_when_it_comes() -> None:
    talk = Conversation()
    talk.expect(1)
    talk.give_up(1)
    talk.feed(said(Kind.READ, 1, b"late"))
    assert talk.reply(Kind.READ, 1) is None


@pytest.mark.parametrize(
    ("name", "number"), [("EACCES", errno.EACCES), ("EQUOTA", errno.EIO), ("__doc__", errno.EIO), ("", errno.EIO)]
)
def test_errors_have_the_errno_that_was_named(name: str, number: int) -> None:
    talk = Conversation()
    talk.expect(1)
    talk.feed(said(Kind.ERROR, 1, name.encode() + b"\0"))
    with pytest.raises(OSError) as error:
        talk.reply(Kind.READ, 1)
    assert error.value.errno == number


def test_what_cannot_be_meant() -> None:
    with pytest.raises(XenstoreFault, match="4097"):
        Conversation().feed(HEADER.pack(Kind.READ, 1, 0, MOST_PAYLOAD + 1))
    with pytest.raises(XenstoreFault, match="token"):
        Conversation().feed(said(Kind.WATCH_EVENT, 0, b"path"))
    talk = Conversation()
    talk.expect(1)
    talk.feed(said(Kind.WRITE, 1, b"OK\0"))
    with pytest.raises(XenstoreFault, match="READ was answered by 11"):
        talk.reply(Kind.READ, 1)
    flood = b"".join(said(Kind.WATCH_EVENT, 0, b"p%d\0t\0" % number) for number in range(MOST_EVENTS + 1))
    with pytest.raises(XenstoreFault, match="nobody took"):
        Conversation().feed(flood)


def test_an_event_that_waits_already_waits_once() -> None:
    talk = Conversation()
    one, other = said(Kind.WATCH_EVENT, 0, b"p\0t\0"), said(Kind.WATCH_EVENT, 0, b"p\0u\0")
    talk.feed((one + other) * (MOST_EVENTS + 1))  # a peer writes what we watch as often as it likes
    assert list(talk.events) == [Event("p", "t"), Event("p", "u")]
    assert talk.events.popleft() == Event("p", "t")
    talk.feed(one)  # it was taken, and says something new again
    assert list(talk.events) == [Event("p", "u"), Event("p", "t")]
