"""Configuration and Enrollment: carrying what administrators have signed, and certifying who they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from septum.admin.v1 import admin_pb2 as pb
from septum.v1 import configuring

from appliance.signed.refusal import Refusal
from appliance.signed.statements import Enroll, Role, Statement, parse
from components.admin.client import Caller
from components.admin.holding import refused
from components.admin.pieces import Receive, Room, sections
from components.admin.roles import Need
from components.admin.status import Code, RpcError
from components.admin.world import World

Send = Callable[[Any], Awaitable[None]]

_PAGE: Final = 50
_ROSTER_KINDS: Final = frozenset({"invite", "enroll", "revoke", "rekey"})


class ConfigurationCalls:
    """``septum.admin.v1.Configuration`` and Enrollment. ``changed()`` is called when the roster has changed;
    ``remark(caller, event, text)`` has a line for the audit log that a caller may cause at will.
    """

    def __init__(
        self, world: World, changed: Callable[[], None], remark: Callable[[Caller, str, str], None], room: Room
    ) -> None:
        self._world = world
        self._room = room
        self._remark = remark
        self._changed = changed

    # Configuration --------------------------------------------------------------------------------------------------

    async def get_head(self, caller: Caller, request: pb.GetHeadRequest) -> pb.ConfigurationHead:
        head = await self._world.holding.now()
        return pb.ConfigurationHead(
            revision=head.revision,
            digest=bytes(head.digest),
            active=head.active,
            oldest=head.oldest,
            confirm_left_ms=head.confirm_left_ms,
            serial=head.serial,
            roster_digest=bytes(head.roster_digest),
        )

    async def list_history(self, caller: Caller, request: pb.ListHistoryRequest) -> pb.ListHistoryReply:
        head = await self._world.holding.now()
        is_roster = request.chain == pb.CHAIN_ROSTER
        newest, oldest = (head.serial, 1) if is_roster else (head.revision, max(1, head.oldest))
        at = min(newest, request.before - 1) if request.before else newest
        chain = configuring.ROSTER if is_roster else configuring.COMMITS
        found: list[pb.SignedStatement] = []
        while at >= oldest and len(found) < (request.page_size or _PAGE):
            one = await self._world.holding.statement(chain, at)
            found.append(
                pb.SignedStatement(
                    statement=bytes(one.statement),
                    signature=bytes(one.signature),
                    fate=one.fate,  # type: ignore[arg-type]  # the same numbers on both sides
                    fate_at=one.fate_at,
                    has_content=one.has_content,
                )
            )
            at -= 1
        return pb.ListHistoryReply(statements=found)

    async def download(self, caller: Caller, request: pb.DownloadRequest, send: Send) -> None:
        revision = request.revision or (await self._world.holding.now()).active
        if not revision:
            raise RpcError(Code.NOT_FOUND, "nothing was committed yet", path="revision", reason="UNKNOWN")
        offset = 0
        while True:
            total, data = await self._world.holding.piece(revision, request.section, offset)
            await send(pb.Piece(total=total, data=data))
            offset += len(data)
            if offset >= total or not data:
                return

    async def submit(self, caller: Caller, receive: Receive) -> pb.SubmitReply:
        first = await receive()
        if first is None or first.WhichOneof("part") != "header":
            raise RpcError(Code.INVALID_ARGUMENT, "must come first, and once", path="header")
        header = first.header
        statement = self._may_submit(caller, header.statement)
        kind = type(statement).__name__.lower()
        self._world.holding.check_next(statement)  # before its sections come, and again when it is its turn
        sizes = {pb.SECTION_PEERS: header.peers, pb.SECTION_RULESET: header.ruleset, pb.SECTION_RULES: header.rules}
        with self._room.take(caller.name, sizes):
            brought = await sections(sizes, receive)
            accepted = await self._world.holding.submit(header.statement, header.signature, brought, statement)
        if kind != "rehearse":
            self._world.say("submit", f"{caller.name} from {caller.source}: {kind} {accepted.number}")
            if kind in _ROSTER_KINDS:
                await self._world.people.refresh()
                self._changed()
        return pb.SubmitReply(number=accepted.number, kept=accepted.kept, ended=accepted.ended)

    @staticmethod
    def _may_submit(caller: Caller, statement: bytes) -> Statement:
        """The statement. Whether it is good, config says; what a caller may hand over, is said here."""
        try:
            parsed = parse(statement)
        except Refusal as refusal:
            raise refused(
                refusal.why, f"header.statement{'.' if refusal.path else ''}{refusal.path}", refusal.text
            ) from None
        kind = type(parsed).__name__.lower()
        if kind in _ROSTER_KINDS and caller.role < Need.SECURITY_OFFICER:
            why = f"{kind} takes a {Role.SECURITY_OFFICER}; {caller.name} is {Role(caller.role)}"
            raise RpcError(Code.PERMISSION_DENIED, why, reason="NOT_PERMITTED")
        return parsed

    # Enrollment -----------------------------------------------------------------------------------------------------

    async def who_am_i(self, caller: Caller, request: pb.WhoAmIRequest) -> pb.Identity:
        who = pb.Identity(box=self._world.identity.box.hex())
        if caller.is_known:
            who.name, who.role, who.certificate_until = caller.name, str(Role(caller.role)), int(caller.until)
        if self._world.holding.is_there:
            head = await self._world.holding.now()
            who.serial, who.roster_digest = head.serial, bytes(head.roster_digest)
        return who

    async def enroll(self, caller: Caller, request: pb.EnrollRequest) -> pb.Certificate:
        try:
            statement = parse(request.statement)
        except Refusal as refusal:
            raise refused(refusal.why, f"statement{'.' if refusal.path else ''}{refusal.path}", refusal.text) from None
        if not isinstance(statement, Enroll):
            raise RpcError(Code.INVALID_ARGUMENT, "must be of the kind enroll", path="statement.kind")
        # The request for a certificate is looked at first: an invitation is used up by a statement that is taken. And
        # it is used up by it: who repeats the statement gets no certificate, for others can read it in the roster
        certificate = self._certify(request.request, statement.by, statement.key)
        await self._world.holding.submit(request.statement, request.signature, {})
        await self._world.people.refresh()
        self._changed()
        self._world.say("enroll", f"{statement.by} is enrolled, from {caller.source}")
        return certificate

    async def renew(self, caller: Caller, request: pb.RenewRequest) -> pb.Certificate:
        certificate = self._certify(request.request, caller.name, caller.key)
        self._remark(caller, "renew", f"{caller.name} from {caller.source} has a new certificate")
        return certificate

    def _certify(self, request: bytes, name: str, key: bytes) -> pb.Certificate:
        world = self._world
        serial = int.from_bytes(world.random(20), "big")
        issued = world.issuer.issue(request, name, key, world.wall(), serial)
        return pb.Certificate(chain=issued + world.identity.issuing + world.identity.root)
