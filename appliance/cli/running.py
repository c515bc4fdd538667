"""The running filter, as the operator asks it: questions of `filtering`, and what comes back put together again.

What it says has passed the schema and no more: addresses, texts and rule sets are checked here before anybody uses
them, and what does not fit together is an error.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from septum.v1.filtering import (
    AskFlows,
    AskHits,
    AskTalkers,
    AskText,
    AskTotals,
    AskWhy,
    BeginRules,
    CommitRules,
    FilteringRequest,
    FlowRow,
    Hits,
    Replaced,
    RulesChunk,
    Talker,
    Totals,
    Why,
)

from appliance.cli.asking import AskError, Call
from appliance.guest.settings import SettingsError
from components.filter import ruleset
from components.filter.model import RuleSet
from components.filter.operator import CHUNK, canonical, digest

Progress = Callable[[float], None]

MOST_FLOWS: Final = 1 << 20  # rows taken; a filter that has no end of them is bent
_ATTEMPTS: Final = 3
_PATIENCE: Final = 60.0  # seconds until the last flow is judged by new rules: a hundred thousand take four
_RETRY: Final = 0.1
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Rejected(AskError):
    """The filter does not take the rules, and goes by those that it had."""


class RunningFilter:
    """The filter behind ``call``. Errors of everything: AskError."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def _ask(self, kind: str, question: Any, answer: str) -> Any:
        reply = self._call.ask(FilteringRequest(**{kind: question}))
        got = reply.WhichOneof("answer")
        if got == "refused":
            refused = reply.refused
            where = f"{printable(refused.path)}: " if refused.path else ""
            raise Rejected(f"{self._call.domain} refuses: {where}{printable(refused.why)}")
        if got != answer:
            raise self._bent(f"it answers with {got} where {answer} was asked for")
        return getattr(reply, answer)

    def _bent(self, why: str) -> AskError:
        return AskError(f"{self._call.domain} makes no sense, and is not believed: {why}", "septum down, then up")

    # looking --------------------------------------------------------------------------------------------------------

    def totals(self) -> Totals:
        """Counters, and which rules are in force."""
        return self._ask("totals", AskTotals(most=128), "totals")  # type: ignore[no-any-return]

    def ruleset(self) -> RuleSet:
        """The rules in force."""
        for _ in range(_ATTEMPTS):
            text = self._text()
            if text is not None:
                try:
                    found = ruleset.from_json(text)
                except SettingsError as error:
                    raise self._bent(f"its rules are none: {printable(str(error))}") from None
                if not all(said.isprintable() for said in _texts(found)):
                    raise self._bent("names that are not printable")
                return found
        raise AskError("its rules are replaced faster than they can be read", "the same again")

    def _text(self) -> bytes | None:
        """None if they were replaced in between."""
        first = page = self._ask("text", AskText(), "text")
        text = bytearray(page.data)
        while len(text) < first.total:
            page = self._ask("text", AskText(offset=len(text)), "text")
            if (page.total, page.digest) != (first.total, first.digest):
                return None
            if not page.data:
                raise self._bent("its rules end before they do")
            text += page.data
        if digest(text) != first.digest:
            raise self._bent("its rules are not those that it names")
        return bytes(text)

    def hits(self) -> list[Hits]:
        """What each rule in force has matched."""
        for _ in range(_ATTEMPTS):
            first = page = self._ask("hits", AskHits(), "hits")
            found: list[Hits] = list(page.hits)
            while len(found) < first.rules:
                page = self._ask("hits", AskHits(start=len(found)), "hits")
                if page.digest != first.digest:
                    break
                if not page.hits:
                    raise self._bent("it has more rules than it tells of")
                found += page.hits
            else:
                if len(found) > first.rules:
                    raise self._bent("it tells of more rules than it has")
                return found
        raise AskError("its rules are replaced faster than they can be counted", "the same again")

    def rules_with_hits(self) -> tuple[RuleSet, list[Hits]]:
        """Both, of the same rule set."""
        for _ in range(_ATTEMPTS):
            rules, hits = self.ruleset(), self.hits()
            if len(rules.rules) == len(hits) and digest(canonical(ruleset.encode(rules))) == self.totals().digest:
                return rules, hits
        raise AskError("its rules are replaced faster than they can be read", "the same again")

    def flows(self, progress: Progress = lambda done: None) -> Iterator[FlowRow]:
        """Every flow, of which some may come and go meanwhile. ``progress`` is told how much is done, from 0 to 1."""
        start = 0
        while start < MOST_FLOWS:
            page = self._ask("flows", AskFlows(start=start), "flows")
            for row in page.rows:
                if not (len(row.source) == len(row.destination) and len(row.source) in (4, 16)):
                    raise self._bent("an address that is none")
                yield row
            if not page.rows:
                return
            start += len(page.rows)
            progress(min(1.0, start / max(page.flows, 1)))

    def talkers(self, most: int) -> list[Talker]:
        """Those with most bytes first."""
        found: list[Talker] = self._ask("talkers", AskTalkers(most=most), "talkers").talkers
        if any(len(one.address) not in (4, 16) for one in found):
            raise self._bent("an address that is none")
        return found

    def explain(self, packet: bytes, side: int, peer: int = 0, link: bytes = b"") -> Why:
        """What would become of ``packet``; in a box that passes frames, of what is in one with the header ``link``."""
        question = AskWhy(packet=packet, side=side, peer=peer, link=link)
        return self._ask("why", question, "why")  # type: ignore[no-any-return]

    # replacing ------------------------------------------------------------------------------------------------------

    def apply(self, rules: RuleSet, progress: Progress = lambda done: None) -> Replaced:
        """Puts ``rules`` in the place of those in force, now and for later lives of the filter while the box is up.

        Errors: Rejected, and nothing has changed.
        """
        text = canonical(ruleset.encode(rules))
        name = digest(text)
        self._ask("begin", BeginRules(total=len(text), digest=name), "taken")
        for offset in range(0, len(text), CHUNK):
            self._ask("chunk", RulesChunk(offset=offset, data=text[offset : offset + CHUNK]), "taken")
            progress(offset / len(text))
        with _whole():
            done: Replaced = self._ask("commit", CommitRules(digest=name), "replaced")
            if done.digest != name:
                raise self._bent("it has taken other rules than it was given")
            fd = _sealed(text)
            try:
                self._call.keep(fd)
            finally:
                os.close(fd)
            # Reborn in between, it would go by the old ones until its next life
            if self.totals().digest != name:
                raise AskError(
                    f"{self._call.domain} was rebuilt meanwhile, with the rules from before", "the same again"
                )
        return done

    def judged(self, done: Replaced, progress: Progress = lambda done: None) -> Replaced:
        """``done``, what ``apply`` said, once every flow has been judged by the new rules: until then it is when its
        next packet comes. Waits for a bounded time, and no longer than those rules are in force.
        """
        until = time.monotonic() + _PATIENCE
        first = done.left
        while done.left and time.monotonic() < until:
            time.sleep(_RETRY)
            now = self.totals()
            if now.digest != done.digest:
                break
            done = Replaced(kept=now.kept, ended=now.ended, left=now.left, digest=now.digest)
            progress(1 - min(done.left / first, 1.0))
        return done


def _texts(rules: RuleSet) -> Iterator[str]:
    yield from rules.files
    for one in rules.rules:
        yield from (one.name, one.comment)
    yield from (one.name for one in rules.translations)


@contextmanager
def _whole() -> Iterator[None]:
    """Ctrl-C comes after this, not within: it is over in a moment, or at its deadline."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _sealed(content: bytes) -> int:
    fd = os.memfd_create("septum-rules", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    written = 0
    while written < len(content):
        written += os.write(fd, content[written:])
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def printable(untrusted_text: str) -> str:
    """What the filter said, without what could do something to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in untrusted_text)
