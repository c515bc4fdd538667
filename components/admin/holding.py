"""The configuration, as config holds it: asked for, handed to, and kept here as far as it is asked for again.

Whoever reads what admin shows looks at the signatures himself: what is kept here is a convenience, nobody's trust.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from septum.v1 import configuring
from septum.v1.configuring import (
    AskHead,
    AskOutcome,
    AskSection,
    AskStatement,
    BeginSections,
    ConfiguringReply,
    ConfiguringRequest,
    Head,
    SectionChunk,
    StatementReply,
    Working,
)
from septum.v1.configuring import Submit as SubmitStatement

from appliance.guest.settings import SettingsError
from appliance.signed import canonical
from appliance.signed import peers as peers_section
from appliance.signed.peers import PeerEntry
from appliance.signed.refusal import Why
from appliance.signed.statements import Commit, Rehearse, Statement
from components.admin.asking import Other
from components.admin.status import Code, RpcError
from components.admin.tasks import Clock, Promise

CHUNK: Final = 61_440
LONGEST_WORK: Final = 120.0  # seconds that config may work on a statement
_LOOK: Final = 0.01  # seconds between two looks for an outcome, at first
_SLOWER: Final = 1.25  # times, each time
_SLOWEST_LOOK: Final = 0.25
_BEGINS: Final = {configuring.PEERS: "peers", configuring.RULESET: "ruleset", configuring.RULES: "rules"}

CODES: Final = {
    Why.MALFORMED: Code.INVALID_ARGUMENT,
    Why.BAD_SIGNATURE: Code.PERMISSION_DENIED,
    Why.NOT_PERMITTED: Code.PERMISSION_DENIED,
    Why.STALE: Code.ABORTED,
    Why.INVALID: Code.INVALID_ARGUMENT,
    Why.PENDING: Code.FAILED_PRECONDITION,
    Why.AWAY: Code.UNAVAILABLE,
    Why.NO_ROOM: Code.RESOURCE_EXHAUSTED,
    Why.UNCHANGED: Code.ALREADY_EXISTS,
    Why.UNKNOWN: Code.NOT_FOUND,
}


def refused(kind: int, path: str, why: str) -> RpcError:
    """A refusal of config's, as a caller is told of it."""
    try:
        named = Why(kind)
    except ValueError:
        return RpcError(Code.INTERNAL, "config refuses, and does not say why")
    return RpcError(CODES[named], why, path=path, reason=named.name)


class Accepted(NamedTuple):
    """A statement was taken: its number, and how many flows or sessions live on or ended."""

    number: int
    kept: int
    ended: int


class Lock:
    """One at a time; the others in the order in which they came."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiting: deque[Promise[None]] = deque()
        self._is_passing = self._has_come_back = False

    async def __aenter__(self) -> None:
        if not self._is_held:
            self._is_held = True
            return
        turn: Promise[None] = Promise()
        self._waiting.append(turn)
        try:
            await turn
        except GeneratorExit:
            # Cancelled: if it was our turn already, it is the next one's now
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.is_settled:
                self._next()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._next()

    def _next(self) -> None:
        """The turn of the next, and of those behind him as long as each is done at once: in a loop, for fifty within
        each other would be too deep.
        """
        self._has_come_back = True
        if self._is_passing:
            return
        self._is_passing = True
        try:
            while self._has_come_back and self._waiting:
                self._has_come_back = False
                self._waiting.popleft().keep(None)
            self._is_held = not self._has_come_back
        finally:
            self._is_passing = False


class Holding:
    """config, from here."""

    def __init__(self, config: Other, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._submitting = Lock()
        self._reading = Lock()
        self._peers_section: tuple[int, bytes] = (0, b"")
        self._peers: tuple[int, tuple[PeerEntry, ...]] = (0, ())
        self._rules: tuple[int, str] = (0, "")
        self.head: Head | None = None
        """As it was when it was last asked for."""
        self._newest: bytes | None = None  # digest of the last commit, as far as it is known here

    @property
    def is_there(self) -> bool:
        return self._config.is_there

    async def _ask(self, request: ConfiguringRequest, what: str) -> Any:
        """The part of the reply that is called ``what``. Errors: RpcError."""
        reply: ConfiguringReply = await self._config.ask(request)
        which = reply.WhichOneof("answer")
        if which == "refused":
            raise refused(reply.refused.kind, reply.refused.path, reply.refused.why)
        if which not in what.split():
            raise RpcError(Code.INTERNAL, f"config answers {which} where {what} was asked for")
        return getattr(reply, which)

    async def now(self) -> Head:
        """Where the box stands."""
        self.head = await self._ask(ConfiguringRequest(head=AskHead()), "head")
        self._newest = bytes(self.head.digest)
        return self.head

    async def statement(self, chain: int, number: int) -> StatementReply:
        found: StatementReply = await self._ask(
            ConfiguringRequest(statement=AskStatement(chain=chain, number=number)), "statement"
        )
        return found

    async def piece(self, revision: int, section: int, offset: int) -> tuple[int, bytes]:
        """Bytes of a section from ``offset`` on, and how many it has."""
        reply = await self._ask(
            ConfiguringRequest(section=AskSection(revision=revision, section=section, offset=offset)), "section"
        )
        return reply.total, bytes(reply.data)

    async def section(self, revision: int, section: int) -> bytes:
        """A whole section."""
        whole = bytearray()
        while True:
            total, data = await self.piece(revision, section, len(whole))
            whole += data
            if len(whole) >= total:
                return bytes(whole)
            if not data:
                raise RpcError(Code.DATA_LOSS, "config says that a section has more bytes than it gives")

    async def _section_of_peers(self) -> tuple[int, bytes]:
        """The revision in force, and its peers as they were signed; read once, however many ask."""
        active = (await self.now()).active
        if active != self._peers_section[0]:
            async with self._reading:
                if active != self._peers_section[0]:
                    section = await self.section(active, configuring.PEERS) if active else b""
                    self._peers_section = active, section
        return self._peers_section

    async def count_peers(self) -> int:
        """How many peers are in force. Every one has one number, and texts in canonical JSON have no bare quotes."""
        return (await self._section_of_peers())[1].count(b'"number":')

    async def peers(self) -> tuple[PeerEntry, ...]:
        """The peers in force, in the order of their numbers."""
        active, section = await self._section_of_peers()
        if active == 0:
            return ()
        if self._peers[0] != active:
            try:
                self._peers = active, peers_section.parse(section)
            except SettingsError as error:
                raise RpcError(Code.DATA_LOSS, f"what config keeps as peers is none: {error}") from None
        return self._peers[1]

    async def rules(self) -> tuple[int, str]:
        """The revision in force, and the text of its rules."""
        active = (await self.now()).active
        if active and self._rules[0] != active:
            self._rules = active, (await self.section(active, configuring.RULES)).decode("utf-8", "replace")
        return (active, self._rules[1]) if active else (0, "")

    def check_next(self, said: Statement) -> None:
        """Errors: RpcError (ABORTED, STALE) for a commit that follows another one than the last: config would say the
        same, and only that counts, but after more work. All commits come by here, and who makes one asks for the head.
        """
        if isinstance(said, Commit | Rehearse) and self._newest not in (None, said.follows):
            raise refused(Why.STALE, "follows", "is not the last commit any more: somebody was faster")

    async def submit(
        self, statement: bytes, signature: bytes, sections: dict[int, bytes], said: Statement | None = None
    ) -> Accepted:
        """Hands a signed statement over, with the sections that it brings along; ``said`` is what it says, if it may
        come too late. Errors: RpcError.
        """
        async with self._submitting:
            if said is not None:
                self.check_next(said)  # others were before it
            if sections:
                sizes = {_BEGINS[section]: len(data) for section, data in sections.items()}
                await self._ask(ConfiguringRequest(begin=BeginSections(**sizes)), "taken")
                for section, data in sections.items():
                    for offset in range(0, len(data), CHUNK):
                        piece = SectionChunk(section=section, offset=offset, data=data[offset : offset + CHUNK])
                        await self._ask(ConfiguringRequest(chunk=piece), "taken")
            asked = SubmitStatement(statement=statement, signature=signature)
            outcome = await self._ask(ConfiguringRequest(submit=asked), "accepted working")
            look, until = _LOOK, self._clock.now + LONGEST_WORK
            while isinstance(outcome, Working):
                if self._clock.now > until:
                    raise RpcError(Code.UNAVAILABLE, "config is still at it: look at the history", reason="AWAY")
                await self._clock.sleep(look)
                look = min(_SLOWEST_LOOK, look * _SLOWER)
                outcome = await self._ask(ConfiguringRequest(outcome=AskOutcome()), "accepted working")
            if isinstance(said, Commit):
                self._newest = canonical.digest(statement)
            return Accepted(outcome.number, outcome.kept, outcome.ended)
