"""A box in small, for tests of the admin domain: its service in front of other domains that are played here, and
callers who reach it by TLS and HTTP/2 in memory.
"""

from __future__ import annotations

import datetime
import json
import os
import ssl
import struct
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from google.rpc import error_details_pb2, status_pb2
from septum.v1.configuring import (
    Accepted,
    ConfiguringRefused,
    ConfiguringReply,
    ConfiguringRequest,
    ConfiguringTaken,
    Head,
    SectionReply,
    StatementReply,
)
from septum.v1.counting import AskExplanation, CountingReply, CountingRequest, RuleHits, RuleHitsPage, Sum, Sums
from septum.v1.peers import Keys, PeersPage, PeersReply, PeersRequest, PeerState
from septum.v1.tail import TailRequest

from appliance.guest import boxpage
from appliance.guest.ports import PeerClosed
from appliance.management import authority
from appliance.rules.read import from_text
from appliance.signed import canonical
from appliance.signed.peers import EMPTY
from appliance.signed.refusal import Refusal, Why
from appliance.signed.roster import Roster
from appliance.signed.statements import Commit, Rehearse, Role, Signed, parse, public_key
from appliance.vchan.codec import Codec
from appliance.vchan.schema import schema
from components.admin import tls
from components.admin.asking import Other
from components.admin.certificates import Issuer
from components.admin.client import Client, Times
from components.admin.holding import Holding
from components.admin.people import People
from components.admin.service import AdminService
from components.admin.tasks import Clock, Task
from components.admin.trail import Trail
from components.admin.world import Identity, Pages, World
from components.filter.committing import Counting
from components.filter.engine import Engine
from components.filter.model import RuleSet
from components.filter.ruleset import encode
from components.log.lines import Entry
from components.log.tail import Tail
from tests.unit.signed.box import BOX, TRUST, Chain, seed

WALL = time.time()  # OpenSSL goes by the clock of this machine
TOLD = {
    "name": "t0",
    "assembly": "vpn-managed",
    "backend": "process",
    "uptime": 12.5,
    "tunnel": "t0",
    "listen_port": 51820,
    "addresses": ["10.0.0.1/24"],
    "domains": [
        {
            "name": name,
            "component": name,
            "role": name,
            "state": "running",
            "restarts": 0,
            "pss_kib": 7000,
            "cpu_seconds": 0.5,
            "heartbeat_age": 0.1,
            "counters": {"requests": 3},
            "last_death": None,
            "rebuild_ms": None,
        }
        for name in ("rng", "keymgr", "filter", "admin")
    ],
    "channels": [["keymgr.random", "rng.keys", "random"]],
}


class Player:
    """Plays another domain: its end of a channel, with the schema's own checks in both directions."""

    def __init__(self, name: str, answer: Callable[[Any], Any]) -> None:
        shape = schema(name)
        assert shape.backward is not None
        self._codecs = Codec(shape.forward), Codec(shape.backward)
        self._answer = answer
        self._waiting: list[tuple[Any, Callable[[Any], None]]] = []
        self.is_away = False
        self.asked = 0

    def ask(self, request: Any, then: Callable[[Any], None], seconds: float = 5.0) -> None:
        there, back = self._codecs
        self.asked += 1
        if self.is_away:
            self._waiting.append((PeerClosed("away"), then))
            return
        reply = self._answer(there.decode(b"".join(there.encode(request))))
        self._waiting.append((back.decode(b"".join(back.encode(reply))), then))

    def turn(self) -> bool:
        waiting, self._waiting = self._waiting, []
        for reply, then in waiting:
            then(reply)
        return bool(waiting)


class FakeConfig:
    """As config answers: a real roster and chain, sections by revision; what it is told to say of submissions."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.sections: dict[tuple[int, int], bytes] = {}
        self.coming: dict[int, bytearray] = {}
        self.refuses: Refusal | None = None
        self.works = 0  # how often the outcome has to be asked for
        self._outcome: dict[str, Any] = {}
        self._left = 0

    def commit(self, peers: bytes = EMPTY, rules: bytes = b"", by: str = "console", ruleset: bytes = b"{}") -> int:
        signed = self.chain.commit(by, peers, ruleset)
        number = len(self.chain.commits)
        assert isinstance(parse(signed.statement), Commit)
        self.sections |= {(number, 1): peers, (number, 2): ruleset, (number, 3): rules}
        return number

    def answer(self, request: ConfiguringRequest) -> ConfiguringReply:
        try:
            return ConfiguringReply(**self._answer(request))
        except Refusal as refusal:
            return ConfiguringReply(
                refused=ConfiguringRefused(kind=int(refusal.why), path=refusal.path, why=refusal.text)
            )

    def _answer(self, request: ConfiguringRequest) -> dict[str, Any]:
        from septum.v1.configuring import Working

        roster, commits = self.chain.roster, self.chain.commits
        match request.WhichOneof("ask"):
            case "head":
                number = len(commits)
                digest = canonical.digest(commits[-1].statement) if commits else bytes(32)
                head = Head(revision=number, digest=digest, active=number, oldest=min(1, number))
                head.serial, head.roster_digest = roster.serial, roster.digest
                return {"head": head}
            case "statement":
                chain = self.chain.statements if request.statement.chain == 1 else commits
                if request.statement.number > len(chain):
                    raise Refusal(Why.UNKNOWN, "there is none")
                found = chain[request.statement.number - 1]
                return {"statement": StatementReply(statement=found.statement, signature=found.signature, fate=1)}
            case "section":
                data = self.sections[request.section.revision, request.section.section]
                offset = request.section.offset
                return {"section": SectionReply(total=len(data), data=data[offset : offset + 61_440])}
            case "begin":
                self.coming = {}
                return {"taken": ConfiguringTaken()}
            case "chunk":
                self.coming.setdefault(request.chunk.section, bytearray()).extend(request.chunk.data)
                return {"taken": ConfiguringTaken(bytes=len(self.coming[request.chunk.section]))}
            case "submit":
                signed = Signed(bytes(request.submit.statement), bytes(request.submit.signature))
                self._outcome = {"accepted": Accepted(number=self._submit(signed))}
                self._left = self.works
            case "outcome":
                self._left -= 1
        return {"working": Working(done=1, of=2)} if self._left > 0 else self._outcome

    def _submit(self, signed: Signed) -> int:
        if self.refuses is not None:
            raise self.refuses
        statement = parse(signed.statement)
        if isinstance(statement, Commit):
            self.chain.roster.vouch(signed, statement)
            self.chain.commits.append(signed)
            for section in (1, 2, 3):
                self.sections[len(self.chain.commits), section] = bytes(self.coming.get(section, b""))
            return statement.revision
        if isinstance(statement, Rehearse):
            return statement.revision
        self.chain.take(signed)
        return self.chain.roster.serial


@cache
def made() -> authority.Made:
    return authority.make("t0", datetime.datetime.fromtimestamp(WALL, datetime.UTC))


@cache
def other_box() -> authority.Made:
    return authority.make("other", datetime.datetime.fromtimestamp(WALL, datetime.UTC))


def identity() -> Identity:
    of = made()
    said = {
        "name": "t0",
        "box": BOX.hex(),
        "console": TRUST.console.hex(),
        "chain": of.server.certificate + of.root.certificate,
        "key": of.server.key,
        "issuing": of.issuing.certificate,
        "issuing_key": of.issuing.key,
        "root": of.root.certificate,
    }
    return Identity.read(json.dumps(said).encode())


class Box:
    """The service, the domains behind it, time."""

    def __init__(self, times: Times | None = None, now: float = 1000.0) -> None:
        self.now = now
        self.wall = WALL
        self.clock = Clock(now)
        self.config = FakeConfig()
        self.tail = Tail(life=int(WALL))
        self.players = {
            "config": Player("configuring", self.config.answer),
            "keymgr": Player("peers", self._keymgr),
            "filter": Player("counting", self._filter),
            "tail": Player("tail", self._tail),
        }
        self.states: list[PeerState] = []
        self.hits = 3
        self.engine = Engine(RuleSet())
        self.counting = Counting(self.engine)
        self.explained: list[AskExplanation] = []  # what the filter was asked
        self.said: list[tuple[str, str]] = []
        self.page = memoryview(bytearray(boxpage.BOX_BYTES))
        self.orders = memoryview(bytearray(boxpage.ORDERS_BYTES))
        boxpage.write(self.page, json.dumps(TOLD).encode())
        others = {name: Other(name, player) for name, player in self.players.items()}
        holding = Holding(others["config"], self.clock)
        self.people = People(TRUST, holding)
        of = identity()
        self.world = World(
            identity=of,
            issuer=Issuer(of.issuing, of.issuing_key),
            clock=self.clock,
            pages=Pages(self.page, self.orders),
            holding=holding,
            people=self.people,
            keymgr=others["keymgr"],
            filter=others["filter"],
            trail=Trail(others["tail"]),
            wall=lambda: self.wall,
            random=os.urandom,
            say=lambda event, text: self.said.append((event, text)),
        )
        self.roster_changes = 0
        self.service = AdminService(self.world, self._changed)
        self.tls = tls.context(of.chain, of.key, of.root + of.issuing)
        self.times = times or Times()
        self.callers: list[Caller] = []
        self.run(self.people.refresh())

    def _changed(self) -> None:
        self.roster_changes += 1

    def _keymgr(self, request: PeersRequest) -> PeersReply:
        if request.WhichOneof("ask") == "keys":
            return PeersReply(keys=Keys(public_key=b"P" * 32, sealing_key=b"S" * 32))
        page = [state for state in self.states if state.number >= request.peers.start][:256]
        return PeersReply(peers=PeersPage(peers=len(self.states), page=page))

    def _filter(self, request: CountingRequest) -> CountingReply:
        if request.WhichOneof("ask") == "explanation":
            self.explained.append(request.explanation)
            return self.counting.answer(request, self.now, self.wall)
        if request.WhichOneof("ask") == "sums":
            return CountingReply(sums=Sums(digest=b"D" * 32, sums=[Sum(what="passed", side=1, count=9)]))
        count = max(0, min(512, self.hits - request.hits.start))
        hits = [RuleHits(packets=request.hits.start + i, octets=10, last=5) for i in range(count)]
        return CountingReply(hits=RuleHitsPage(digest=b"D" * 32, rules=self.hits, hits=hits))

    def put(self, text: str, peers: bytes = EMPTY) -> int:
        """Commits these rules, by which the filter goes too."""
        ruleset = from_text(text, "rules").ruleset
        compiled = canonical.encode(encode(ruleset))
        self.engine.replace(ruleset, self.now, self.wall)
        self.counting.digest = canonical.digest(compiled)
        return self.config.commit(peers, text.encode(), ruleset=compiled)

    def _tail(self, request: TailRequest) -> Any:
        return self.tail.answer(request)

    def log(self, text: str, severity: int = 6, domain: str = "red") -> None:
        self.tail.keep(Entry(severity, domain, "event", text), at=1)

    def run(self, coroutine: Any) -> None:
        """Runs a coroutine of the service to its end."""
        ended: list[Exception | None] = []
        Task(coroutine, ended.append).step()
        while not ended:
            assert sum(player.turn() for player in self.players.values()), "it waits for nobody"
        if ended[0] is not None:
            raise ended[0]

    def turn(self, seconds: float = 0.0) -> None:
        """Everything happens that can, and so much time passes."""
        self.now += seconds
        self.clock.turn(self.now)
        for _ in range(2000):
            busy = sum(player.turn() for player in self.players.values()) > 0
            self.clock.turn(self.now)
            for caller in self.callers:
                busy |= caller.exchange()
            if not busy:
                return
        raise AssertionError("it never comes to rest")

    def look(self, seconds: float) -> None:
        """Time passes, looked at twice a second."""
        for _ in range(int(seconds * 2)):
            self.turn(0.5)
            for caller in self.callers:
                caller.client.look(self.now)
        self.turn()

    def call(self, name: str = "console", source: str = "192.0.2.7", **other: Any) -> Caller:
        """A connection of the administrator of that name; of nobody if it is empty."""
        caller = Caller(self, certificate_of(name) if name else None, source, **other)
        self.callers.append(caller)
        self.turn()
        return caller


@cache
def certificate_of(name: str, of: str = "", days: float = 0.0) -> tuple[str, str]:
    """A certificate with its chain, and the key, PEM: of this box, or with ``of`` of another one's authority. ``days``
    later than now it was made.
    """
    by = other_box() if of else made()
    key = authority.new_key()
    issuer = Issuer(by.issuing.certificate, by.issuing.key)
    wall = WALL + days * 86400
    chain = issuer.issue(request_for(key), name, public_key(seed(name)), wall, int.from_bytes(os.urandom(20), "big"))
    return chain + by.issuing.certificate, authority.key_pem(key)


def request_for(key: Any) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


class Failed(Exception):
    """A call ended with another status than OK."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(headers.get("grpc-message", ""))
        self.code = int(headers.get("grpc-status", "-1"))
        self.path = self.reason = ""
        self.retry = 0.0
        if details := headers.get("grpc-status-details-bin"):
            import base64

            status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
            assert status.code == self.code
            for one in status.details:
                bad, info, retry = (
                    error_details_pb2.BadRequest(),
                    error_details_pb2.ErrorInfo(),
                    error_details_pb2.RetryInfo(),
                )
                if one.Unpack(bad):
                    self.path = bad.field_violations[0].field
                elif one.Unpack(info):
                    self.reason = info.reason
                elif one.Unpack(retry):
                    self.retry = retry.retry_delay.ToMilliseconds() / 1000


class Caller:
    """One connection to the box, by h2's client and OpenSSL's, in memory. ``reads``: whether it takes what comes."""

    def __init__(
        self, box: Box, certificate: tuple[str, str] | None, source: str, *, handshake: bool = True, **other: Any
    ) -> None:
        self.box = box
        self.client = Client(box.tls, source, box.service, box.clock, box.times, **other)
        self.reads = True
        self.error = ""
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=made().root.certificate)
        context.set_alpn_protocols(["h2"])
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        self.context = context
        if certificate is not None:
            _load(context, *certificate)
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=authority.SERVER_NAME)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._is_up = False
        self.raw = b""  # to be sent as it is, in TLS
        self.streams: dict[int, dict[str, Any]] = {}
        if handshake:
            self.h2.initiate_connection()

    def exchange(self) -> bool:
        """Moves bytes both ways; whether any moved."""
        busy = False
        try:
            if not self._is_up:
                try:
                    self.tls.do_handshake()
                    self._is_up = True
                except ssl.SSLWantReadError:
                    pass
            if self._is_up and (data := self.h2.data_to_send() + self.raw):
                self.raw = b""
                self.tls.write(data)
        except ssl.SSLError as error:
            self.error = self.error or str(error)
        data = self._out.read()
        if data and self.client.reading:
            for at in range(0, len(data), 16 << 10):
                self.client.received(data[at : at + (16 << 10)])
            busy = True
        while self.reads and (data := bytes(self.client.output())):
            self.client.sent(len(data))
            self._in.write(data)
            busy = True
            self._read()
        return busy

    def _read(self) -> None:
        if not self._is_up:
            return
        try:
            while data := self.tls.read(1 << 16):
                for event in self.h2.receive_data(data):
                    self._event(event)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, h2.exceptions.ProtocolError) as error:
            self.error = self.error or str(error)

    def _event(self, event: Any) -> None:
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived() if stream is not None:
                stream["headers"] |= {str(name): str(value) for name, value in event.headers}
            case h2.events.DataReceived() if stream is not None:
                stream["data"] += event.data
                if stream["takes"]:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded() | h2.events.StreamReset() if stream is not None:
                stream["ended"] = True

    # calls

    def begin(
        self, path: str, *messages: Any, end: bool = True, takes: bool = True, timeout: str = "", **other: str
    ) -> int:
        number = self.h2.get_next_available_stream_id()
        headers = {
            ":method": "POST",
            ":scheme": "https",
            ":path": path,
            ":authority": "box",
            "te": "trailers",
            "content-type": "application/grpc",
            **({"grpc-timeout": timeout} if timeout else {}),
            **{key.replace("_", "-"): value for key, value in other.items()},
        }
        self.h2.send_headers(number, list(headers.items()))
        self.streams[number] = {"headers": {}, "data": b"", "ended": False, "takes": takes}
        for i, message in enumerate(messages):
            self.send(number, message, end=end and i == len(messages) - 1)
        if end and not messages:
            self.h2.end_stream(number)
        self.box.turn()
        return number

    def send(self, number: int, message: Any, end: bool = False) -> None:
        """One message, as far as the box still wants to hear it."""
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        data = struct.pack(">BI", 0, len(raw)) + raw
        for at in range(0, len(data), 16_384):
            if self.is_over(number):
                return
            self.h2.send_data(number, data[at : at + 16_384], end_stream=end and at + 16_384 >= len(data))
            self.box.turn()

    def messages(self, number: int, kind: Any) -> list[Any]:
        data, found = self.streams[number]["data"], []
        while len(data) >= 5:
            (length,) = struct.unpack_from(">I", data, 1)
            if len(data) < 5 + length:
                break
            found.append(kind.FromString(data[5 : 5 + length]))
            data = data[5 + length :]
        return found

    def is_over(self, number: int) -> bool:
        return bool(self.streams[number]["ended"])

    def status(self, number: int) -> Failed:
        return Failed(self.streams[number]["headers"])

    def call(self, path: str, request: Any, kind: Any, **other: Any) -> Any:
        """A unary call. Errors: Failed."""
        number = self.begin(path, request, **other)
        assert self.is_over(number), f"{path} goes on"
        if self.streams[number]["headers"].get("grpc-status") != "0":
            raise self.status(number)
        (reply,) = self.messages(number, kind)
        return reply


def _load(context: ssl.SSLContext, chain: str, key: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pem"
        file.write_text(key + chain)
        context.load_cert_chain(file)


__all__ = ["Box", "Caller", "Chain", "Failed", "Role", "Roster"]
