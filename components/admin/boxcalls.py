"""Box, Peers, Keys, Audit: what there is to see, and the one order that is no configuration."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import platform
import re
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from septum.admin.v1 import admin_pb2 as pb
from septum.v1.peers import AskKeys, AskPeers, PeersRequest, PeerState

from appliance.signed.peers import PeerEntry
from components.admin.client import Caller
from components.admin.ratelimit import Bucket
from components.admin.status import Code, RpcError
from components.admin.world import World

Send = Callable[[Any], Awaitable[None]]

_FOLLOW: Final = 0.25  # seconds between two looks for new lines
_PAGE: Final = 100  # peers, if the caller does not say
_PAGE_BYTES: Final = 1 << 20  # a page of peers ends above that
_LINES: Final = 200
_INSTALLED: Final = re.compile(r"septum-([0-9][0-9A-Za-z.+]*)\.dist-info")
RESTARTS: Final = (6 / 3600, 6.0)  # a second and at once, as the monitor has it
AGAIN: Final = 600.0  # seconds between two restarts of one domain, as the monitor has it


def version_of() -> str:
    """The version of the installed distribution, by its folder's name: what reads more than that is a large import."""
    for folder in sys.path:
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if match := _INSTALLED.fullmatch(name):
                return match[1]
    return "unknown"


class BoxCalls:
    """``septum.admin.v1.Box``, Peers, Keys and Audit."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._version = version_of()  # read now: no file opens once the domain is sealed
        self._python = platform.python_version()
        self._restarts = Bucket(*RESTARTS, world.clock.now)
        self._restarted: dict[int, float] = {}

    # Box ------------------------------------------------------------------------------------------------------------

    async def get_version(self, caller: Caller, request: pb.GetVersionRequest) -> pb.Version:
        identity = self._world.identity
        return pb.Version(
            septum=self._version,
            python=self._python,
            box=identity.box.hex(),
            name=identity.name,
            time=int(self._world.wall() * 1000),
        )

    async def get_status(self, caller: Caller, request: pb.GetStatusRequest) -> pb.Status:
        holding, peers = self._world.holding, 0
        if holding.is_there:
            try:
                peers = await holding.count_peers()
            except RpcError as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
                holding.head = None  # config is away: all else is to be seen all the more
        return self._status(peers)

    async def watch_status(self, caller: Caller, request: pb.WatchStatusRequest, send: Send) -> None:
        while True:
            await send(await self.get_status(caller, pb.GetStatusRequest()))
            await self._world.clock.sleep(request.period_ms / 1000)

    def _status(self, peers: int) -> pb.Status:
        told = self._world.pages.told()
        head = self._world.holding.head
        return pb.Status(
            name=told["name"],
            assembly=told["assembly"],
            backend=told["backend"],
            uptime=told["uptime"],
            time=int(self._world.wall() * 1000),
            domains=[_domain(one) for one in told["domains"]],
            channels=[pb.Joint(client=one[0], server=one[1], schema=one[2]) for one in told["channels"]],
            revision=head.active if head else 0,
            confirm_left_ms=head.confirm_left_ms if head else 0,
            peers=peers,
            listen_port=told["listen_port"],
            tunnel=told["tunnel"] or "",
            addresses=told["addresses"],
        )

    async def restart_domain(self, caller: Caller, request: pb.RestartDomainRequest) -> pb.RestartDomainReply:
        number = self._world.pages.number(request.name)
        now = self._world.clock.now
        if (left := self._restarted.get(number, -AGAIN) + AGAIN - now) > 0:
            raise RpcError(Code.RESOURCE_EXHAUSTED, f"{request.name} was built anew not long ago", retry=left)
        if not self._restarts.take(now):
            raise RpcError(Code.RESOURCE_EXHAUSTED, "few domains an hour are built anew", retry=self._restarts.wait)
        self._restarted[number] = now
        self._world.pages.order(number)
        self._world.say("restart", f"{caller.name} has {request.name} built anew")
        return pb.RestartDomainReply()

    # Peers ----------------------------------------------------------------------------------------------------------

    async def list_peers(self, caller: Caller, request: pb.ListPeersRequest) -> pb.ListPeersReply:
        after = 0
        if request.page_token:
            if not request.page_token.isdecimal() or len(request.page_token) > 6:
                raise RpcError(Code.INVALID_ARGUMENT, "must be one that a reply gave", path="page_token")
            after = int(request.page_token)
        peers = await self._world.holding.peers()
        size = request.page_size or _PAGE
        page: list[PeerEntry] = []
        octets, is_more = 0, False
        for peer in peers:
            if peer.number <= after:
                continue
            if len(page) == size or octets > _PAGE_BYTES:
                is_more = True
                break
            page.append(peer)
            octets += 200 + sum(map(len, peer.allowed_ips))
        states = await self._states(page)
        return pb.ListPeersReply(
            peers=[_peer(peer, states.get(peer.number)) for peer in page],
            next_page_token=str(page[-1].number) if is_more else "",
            total=len(peers),
        )

    async def get_peer(self, caller: Caller, request: pb.GetPeerRequest) -> pb.Peer:
        try:
            key = base64.b64decode(request.name, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        for peer in await self._world.holding.peers():
            if peer.name == request.name or (len(key) == 32 and peer.public_key == key):
                return _peer(peer, (await self._states([peer])).get(peer.number))
        raise RpcError(Code.NOT_FOUND, f"there is no peer {request.name}", path="name")

    async def _states(self, peers: Iterable[PeerEntry]) -> dict[int, PeerState]:
        """What keymgr knows of these peers, as far as it answers: that it is away hides no configuration."""
        keys = {peer.number: peer.public_key for peer in peers}
        found: dict[int, PeerState] = {}
        if not keys or not self._world.keymgr.is_there:
            return found
        at, last = min(keys), max(keys)
        while at <= last:
            try:
                reply = await self._world.keymgr.ask(PeersRequest(peers=AskPeers(start=at)))
            except RpcError:
                break
            if reply.WhichOneof("answer") != "peers" or not reply.peers.page:
                break
            for state in reply.peers.page:
                if keys.get(state.number) == bytes(state.public_key):
                    found[state.number] = state
            reached: int = reply.peers.page[-1].number
            if reached < at:
                break
            at = reached + 1
        return found

    # Keys -----------------------------------------------------------------------------------------------------------

    async def get_keys(self, caller: Caller, request: pb.GetKeysRequest) -> pb.BoxKeys:
        if len(request.challenge) not in (0, 32):
            raise RpcError(Code.INVALID_ARGUMENT, "challenge: must be 32 bytes, or none")
        reply = await self._world.keymgr.ask(PeersRequest(keys=AskKeys(challenge=request.challenge)))
        if reply.WhichOneof("answer") != "keys":
            raise RpcError(Code.INTERNAL, "keymgr answers something else")
        keys = reply.keys
        shown = pb.BoxKeys(public_key=_base64(keys.public_key), sealing_key=_base64(keys.sealing_key), proof=keys.proof)
        if keys.next_public_key:
            shown.next_public_key = _base64(keys.next_public_key)
        return shown

    # Audit ----------------------------------------------------------------------------------------------------------

    async def query_log(self, caller: Caller, request: pb.QueryLogRequest) -> pb.LogLines:
        await self._world.trail.refresh()
        return self._lines(request, request.after if self._is_of(request.life) else 0)

    async def follow_log(self, caller: Caller, request: pb.QueryLogRequest, send: Send) -> None:
        trail = self._world.trail
        await trail.refresh()
        found = self._lines(request, request.after if self._is_of(request.life) else 0)
        life = trail.life
        while True:
            if found.lines or found.lost:
                await send(found)
            # What was shown, or left out as not asked for, is not asked for again
            reached = (
                found.lines[-1].number
                if found.lines and not request.newest and _is_full(found, request)
                else trail.newest
            )
            await self._world.clock.sleep(_FOLLOW)
            try:
                await trail.refresh()
            except RpcError as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
            if trail.life != life:
                life, reached = trail.life, 0
            found = self._lines(request, reached)

    def _is_of(self, life: int) -> bool:
        return not life or life == self._world.trail.life

    def _lines(self, request: pb.QueryLogRequest, after: int) -> pb.LogLines:
        trail = self._world.trail
        most = request.lines or _LINES
        graver = request.severity - 1 if request.severity else 7
        found = []
        for line in trail.after(after):
            if line.severity > graver or (request.domain and line.domain != request.domain):
                continue
            found.append(line)
            if len(found) == most and not request.newest:
                break
        lost = max(0, trail.oldest - 1 - after) if after and trail.oldest else 0
        return pb.LogLines(
            life=trail.life,
            lost=lost,
            lines=[
                pb.LogLine(
                    number=line.number,
                    at=line.at,
                    severity=line.severity,
                    domain=line.domain,
                    event=line.event,
                    text=line.text,
                )
                for line in found[-most:]
            ],
        )


def _is_full(found: pb.LogLines, request: pb.QueryLogRequest) -> bool:
    return len(found.lines) >= (request.lines or _LINES)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _domain(told: dict[str, Any]) -> pb.Domain:
    return pb.Domain(
        name=told["name"],
        component=told["component"],
        role=told["role"],
        state=told["state"],
        restarts=told["restarts"],
        memory=(told["pss_kib"] or 0) << 10,
        heartbeat_age=told["heartbeat_age"],
        counters=[pb.Counter(name=name, value=value) for name, value in list(told["counters"].items())[:64]],
        last_death=(told["last_death"] or "")[:1024],
        rebuild_ms=told["rebuild_ms"] or 0.0,
        cpu_seconds=told.get("cpu_seconds") or 0.0,
    )


def _peer(peer: PeerEntry, state: PeerState | None) -> pb.Peer:
    shown = pb.Peer(
        number=peer.number,
        name=peer.name,
        public_key=_base64(peer.public_key),
        allowed_ips=peer.allowed_ips,
        configured_endpoint=peer.endpoint,
        keepalive=peer.keepalive,
        has_preshared_key=bool(peer.preshared_key),
    )
    if state is not None:
        shown.handshake, shown.received, shown.sent = state.handshake, state.received, state.sent
        address = bytes(state.address)
        if len(address) in (4, 16):
            host = ipaddress.ip_address(address)
            shown.endpoint = f"[{host}]:{state.port}" if host.version == 6 else f"{host}:{state.port}"
    return shown
