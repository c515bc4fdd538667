"""config, the shell: ports in, ports out. What it decides is decided in keeper.py and below."""

from __future__ import annotations

import time
from typing import Any, Final

from septum.v1.blobs import BLOB_OK, BlobReply, BlobRequest
from septum.v1.configuring import ConfiguringReply, ConfiguringRequest

from appliance.guest.loop import Guest
from appliance.guest.settings import SettingsError
from appliance.signed.refusal import Refusal, Why
from components.config.desk import Desk
from components.config.effects import BLOBS, DOMAINS, Away
from components.config.keeper import Accepted, Keeper
from components.config.pages import Damaged, Ref, page_name
from components.config.runner import Runner
from components.config.settings import parse

_RETRY: Final = 1.0  # seconds until who is out of step, or a store that was away, is tried again
_DAMAGED_RETRY: Final = 10.0  # seconds
_REST: Final = 2.0  # times what a statement took keymgr and filter: that is not to be had all the time
_MOST_REST: Final = 10.0  # seconds
_SHARE: Final = 0.5  # of the time, for what admin asks, so that it cannot hold up a rollback


class Shell:
    """Ports in, ports out. One job at a time: what is due to be rolled back, then domains that are behind, then what
    was submitted.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._clients = {port: guest.client(port) for port in (BLOBS, *DOMAINS)}
        trust = parse("config", guest.settings)
        if trust is None:
            raise SettingsError("trust", "is missing: septum init makes it")
        self._keeper = Keeper(trust)
        self._runner = Runner(self._clients, guest.accuse, guest.wall)
        self._desk = Desk(self._keeper, self._read)
        self._not_before = dict.fromkeys((BLOBS, *DOMAINS), 0.0)
        self._is_loaded = False
        self._rested = 0.0
        self._commits = guest.counter("commits")
        self._refused = guest.counter("refused")
        guest.serve("configuring", self._answer, share=_SHARE)
        guest.on_close("configuring", lambda now: self._desk.forget())
        for port in self._clients:
            self._watch(port)
        guest.timer(self._timer)

    def _watch(self, port: str) -> None:
        def opened(now: float) -> None:
            self._not_before[port] = 0.0

        def closed(now: float) -> None:
            self._runner.closed(port)
            self._keeper.lost(port)

        self._guest.on_open(port, opened)
        self._guest.on_close(port, closed)

    def _answer(self, consumer: str, request: ConfiguringRequest) -> ConfiguringReply:
        if self._desk.submission is not None:
            self._desk.steps = self._runner.asks, self._keeper.expected
        reply = self._desk.answer(request, time.monotonic())
        if request.WhichOneof("ask") == "submit" and reply.WhichOneof("answer") == "refused":
            self._refused.add(1)
        return reply

    def _read(self, ref: Ref) -> bytes:
        """A page, for who reads a section. Errors: Refusal."""
        try:
            reply: BlobReply = self._runner.call(BLOBS, BlobRequest(name=page_name(ref.page)))
        except Away:
            raise Refusal(Why.AWAY, "the store does not answer: try again") from None
        if reply.status != BLOB_OK or reply.version != ref.version:
            raise Refusal(Why.AWAY, "the store has lost it")
        return reply.blob

    def _timer(self, now: float) -> float | None:
        when = self._runner.turn(now)
        if not self._runner.is_busy:
            when = self._next(now)
        for note in self._keeper.notes:
            getattr(self._guest.log, note.severity)(note.event, note.text)
        self._keeper.notes.clear()
        self._show()
        return when

    def _next(self, now: float) -> float | None:
        """Begins what is due; when to look again if nothing is."""
        keeper = self._keeper
        if not self._is_loaded:
            if now < self._not_before[BLOBS] or not self._clients[BLOBS].is_open:
                return self._not_before[BLOBS] if now < self._not_before[BLOBS] else None
            self._not_before[BLOBS] = now + _RETRY
            self._runner.start(keeper.load(), self._loaded)
            return now
        if keeper.expires is not None and now >= keeper.expires:
            self._runner.start(keeper.roll_back(), self._ended)
            return now
        waits = [keeper.expires] if keeper.expires is not None else []
        for port in DOMAINS:
            if port in keeper.in_step or not self._clients[port].is_open:
                continue
            if now >= self._not_before[port]:
                self._not_before[port] = now + _RETRY
                self._runner.start(keeper.step(port), self._ended)
                return now
            waits.append(self._not_before[port])
        if (submission := self._desk.submission) is not None:
            if now >= self._rested:
                self._runner.start(keeper.take(*submission), self._answered)
                return now
            waits.append(self._rested)
        return min(waits, default=None)

    def _loaded(self, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            self._ended(outcome)
            return
        self._is_loaded = True
        self._desk.why_not = ""
        book = self._keeper.book
        text = f"of {book.revision} revisions {book.active} is in force; {self._keeper.pages.free} pages are free"
        self._guest.log.info("loaded", text)

    def _answered(self, outcome: Any) -> None:
        if not isinstance(outcome, Accepted | Refusal):
            self._ended(outcome)
            outcome = Refusal(Why.AWAY, f"what came of it is not known: {outcome}")
        took = sum(self._runner.took.get(port, 0.0) for port in DOMAINS)
        self._rested = time.monotonic() + min(_MOST_REST, took * _REST)
        (self._refused if isinstance(outcome, Refusal) else self._commits).add(1)
        self._desk.finish(outcome)

    def _ended(self, outcome: Any) -> None:
        if isinstance(outcome, Damaged):
            # Nothing is changed any more, and nobody is told anything else, until what is kept is understood
            self._is_loaded = False
            self._not_before[BLOBS] = time.monotonic() + _DAMAGED_RETRY
            self._desk.why_not = f"what is kept is damaged: {outcome}"
            self._guest.log.error("damaged", f"{outcome}: docs/configuration.md says what to do")
        elif isinstance(outcome, Exception) and not isinstance(outcome, Away):
            raise outcome

    def _show(self) -> None:
        keeper, book = self._keeper, self._keeper.book
        for name, value in (
            ("revision", book.revision),
            ("active", book.active),
            ("serial", len(book.statements)),
            ("rollbacks", keeper.rollbacks),
            ("pages", keeper.pages.free),
            ("out_of_step", len(DOMAINS) - len(keeper.in_step)),
        ):
            self._guest.counter(name).set(value)


def build(guest: Guest) -> None:
    """Registers the handlers; nothing is read before the loop runs. Errors: SettingsError."""
    Shell(guest)
