"""A box for `septumctl` to speak to: real TLS, real gRPC, the real rules of signed statements, and nothing behind them.

TLS ends in a relay of threads, which knows the client's certificate; gRPC listens on loopback behind it, and asks the
relay whose connection it is.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from nacl.bindings import crypto_scalarmult
from nacl.public import PrivateKey
from septum.admin.v1 import admin_pb2 as pb
from septum.admin.v1 import admin_pb2_grpc as services

from appliance.ctl import contexts, identity
from appliance.guest.settings import SettingsError
from appliance.signed import canonical, peers
from appliance.signed.keyproof import prove
from appliance.signed.refusal import Refusal, Why
from appliance.signed.roster import Roster, Trust
from appliance.signed.statements import NONE, Commit, Confirm, Rehearse, Rekey, Role, Signed, parse, public_key
from components.filter.engine import Engine
from components.filter.model import RuleSet, Side
from components.filter.ruleset import from_json

CODES = {
    Why.MALFORMED: code_pb2.INVALID_ARGUMENT,
    Why.INVALID: code_pb2.INVALID_ARGUMENT,
    Why.BAD_SIGNATURE: code_pb2.PERMISSION_DENIED,
    Why.NOT_PERMITTED: code_pb2.PERMISSION_DENIED,
    Why.STALE: code_pb2.ABORTED,
    Why.PENDING: code_pb2.FAILED_PRECONDITION,
    Why.AWAY: code_pb2.UNAVAILABLE,
    Why.NO_ROOM: code_pb2.RESOURCE_EXHAUSTED,
    Why.UNCHANGED: code_pb2.ALREADY_EXISTS,
    Why.UNKNOWN: code_pb2.NOT_FOUND,
}
SECTIONS = {pb.SECTION_PEERS: "peers", pb.SECTION_RULESET: "ruleset", pb.SECTION_RULES: "rules"}
MONTH = timedelta(days=30)


# certificates ---------------------------------------------------------------------------------------------------------


class Authority:
    """A root that issues everything itself."""

    def __init__(self, name: str = "box") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key.public_key(), None, [], is_authority=True)

    @property
    def pem(self) -> str:
        return pem(self.certificate)

    def issue(
        self,
        name: str,
        key: Any,
        usage: Any = ExtendedKeyUsageOID.CLIENT_AUTH,
        alternatives: Iterable[x509.GeneralName] = (),
        begin: datetime | None = None,
        life: timedelta = MONTH,
    ) -> x509.Certificate:
        return self._sign(name, key, usage, list(alternatives), begin=begin, life=life)

    def for_administrator(self, name: str, signing_key: bytes, key: Any, **other: Any) -> str:
        uri = x509.UniformResourceIdentifier(f"septum:administrator:{signing_key.hex()}")
        return pem(self.issue(name, key, alternatives=[uri], **other)) + self.pem

    def _sign(
        self,
        name: str,
        key: Any,
        usage: Any,
        alternatives: list[x509.GeneralName],
        is_authority: bool = False,
        begin: datetime | None = None,
        life: timedelta = MONTH,
    ) -> x509.Certificate:
        begin = begin or datetime.now(UTC) - timedelta(minutes=5)
        issuer = name if is_authority else self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        builder = x509.CertificateBuilder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(issuer))]),
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            key,
            x509.random_serial_number(),
            begin,
            begin + life,
        ).add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


# TLS ------------------------------------------------------------------------------------------------------------------


class Relay:
    """Takes TLS, and hands what is in it to ``backend``, a port of loopback."""

    def __init__(self, context: ssl.SSLContext, backend: int) -> None:
        self._context = context
        self._backend = backend
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.whose: dict[int, str] = {}  # signing key of the client, by the port that we come from
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            outside = self._context.wrap_socket(raw, server_side=True)
            inside = socket.socket()
            inside.bind(("127.0.0.1", 0))
            self.whose[inside.getsockname()[1]] = _signing_key(outside)
            inside.connect(("127.0.0.1", self._backend))
        except OSError:
            raw.close()
            return
        self._open |= {outside, inside}
        back = threading.Thread(target=self._pump, args=(inside, outside), daemon=True)
        back.start()
        self._pump(outside, inside)
        back.join()
        self._open -= {outside, inside}
        for one in (outside, inside):
            one.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _signing_key(connection: ssl.SSLSocket) -> str:
    for kind, value in (connection.getpeercert() or {}).get("subjectAltName", ()):
        if kind == "URI" and str(value).startswith("septum:administrator:"):
            return str(value).removeprefix("septum:administrator:")
    return ""


# the box --------------------------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    commit: Commit
    signed: Signed
    fate: int
    fate_at: int


class FakeBox:
    """All that a box says and takes; ``now`` is its clock, in ms since 1970."""

    def __init__(self, folder: Path, name: str = "vpn") -> None:
        self.name = name
        self.folder = folder
        self.authority = Authority(name)
        self.box = contexts.fingerprint(self.authority.pem)
        self.console_seed = b"c" * 32
        self.roster_trust = Trust(bytes.fromhex(self.box), public_key(self.console_seed))
        self.roster = Roster(self.roster_trust)
        self.statements: list[Signed] = []
        self.commits: list[Kept] = []
        self.contents: dict[str, bytes] = {}
        self.deadline = 0.0  # of the commit that waits
        self.lock = threading.RLock()
        self.status = status_of(name)
        self.states: dict[bytes, pb.Peer] = {}
        self.log: list[pb.LogLine] = []
        self.private_key, self._spare = PrivateKey.generate(), PrivateKey.generate()
        self.keys = pb.BoxKeys(
            public_key=text_of(self.private_key), sealing_key=b64(b"S"), next_public_key=text_of(self._spare)
        )
        self.lies: dict[str, str] = {}  # keys of its own that admin shows
        self.restarted: list[str] = []
        self.delay = 0.0
        self.refusal: Refusal | None = None  # of the next commit
        self.sums: list[pb.Sum] = []
        self.rule_counters: list[pb.RuleCounter] = []
        self.engine: tuple[bytes, Engine] | None = None  # and by which rules it goes
        self.explanation_lies: dict[str, Any] = {}
        self._server = grpc.server(ThreadPoolExecutor(32))
        _Services(self).add(self._server)
        backend = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.relay = Relay(self.server_context(), backend)
        self.address = f"127.0.0.1:{self.relay.port}"

    def close(self) -> None:
        self.relay.close()
        self._server.stop(0).wait()

    def server_context(self, certificate: x509.Certificate | None = None, key: Any = None) -> ssl.SSLContext:
        """As the box's: TLS 1.3, a certificate for ``box.septum``, the root behind it."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.DNSName(contexts.SERVER_NAME)
        certificate = certificate or self.authority.issue(
            "box", key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, [name]
        )
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.set_alpn_protocols(["h2"])
        file = self.folder / f"{certificate.serial_number}.pem"
        file.write_text(key_pem(key) + pem(certificate) + self.authority.pem)
        made.load_cert_chain(file)
        made.verify_mode = ssl.CERT_OPTIONAL
        made.load_verify_locations(cadata=self.authority.pem)
        return made

    def console(self, base: Path, **other: Any) -> contexts.Context:
        """The context that `septum init` would write."""
        key = ec.generate_private_key(ec.SECP256R1())
        signing = public_key(self.console_seed)
        return contexts.create(
            self.name,
            address=self.address,
            root_pem=self.authority.pem,
            console=signing.hex(),
            administrator="console",
            seed=self.console_seed,
            tls_key_pem=key_pem(key),
            chain_pem=self.authority.for_administrator("console", signing, key.public_key(), **other),
            base=base,
        )

    @property
    def now(self) -> int:
        return identity.now_ms()

    # configuration ----------------------------------------------------------------------------------------------------

    @property
    def active(self) -> int:
        stands = [one for one in self.commits if one.fate != pb.FATE_ROLLED_BACK]
        return stands[-1].commit.revision if stands else 0

    def tick(self) -> None:
        """Rolls back what nobody confirmed in time."""
        if self.deadline and time.monotonic() >= self.deadline:
            self.deadline = 0.0
            self.commits[-1] = self.commits[-1]._replace(fate=pb.FATE_ROLLED_BACK, fate_at=self.now)

    def head(self) -> pb.ConfigurationHead:
        left = max(0, round((self.deadline - time.monotonic()) * 1000)) if self.deadline else 0
        return pb.ConfigurationHead(
            revision=len(self.commits),
            digest=self.digest,
            active=self.active,
            oldest=1 if self.commits else 0,
            confirm_left_ms=left,
            serial=self.roster.serial,
            roster_digest=self.roster.digest,
        )

    @property
    def digest(self) -> bytes:
        return canonical.digest(self.commits[-1].signed.statement) if self.commits else NONE

    def take(self, header: pb.SubmitHeader, content: dict[str, bytes]) -> pb.SubmitReply:
        """Errors: Refusal."""
        signed = Signed(header.statement, header.signature)
        statement = parse(signed.statement)
        self.tick()
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal
        if isinstance(statement, Commit | Rehearse):
            return self._commit(signed, statement, content)
        if isinstance(statement, Confirm):
            self.roster.vouch(signed, statement)
            if not self.deadline or (statement.revision, statement.commit) != (len(self.commits), self.digest):
                raise Refusal(Why.UNKNOWN, "does not wait to be confirmed", "revision")
            self.deadline = 0.0
            self.commits[-1] = self.commits[-1]._replace(fate=pb.FATE_CONFIRMED, fate_at=self.now)
            return pb.SubmitReply(number=statement.revision)
        taken = self.roster.take(signed, self.now)
        self.statements.append(signed)
        if isinstance(taken, Rekey):
            self.private_key = self._spare
            self.keys.public_key, self.keys.next_public_key = text_of(self.private_key), ""
        return pb.SubmitReply(number=taken.serial)

    def _commit(self, signed: Signed, commit: Commit | Rehearse, content: dict[str, bytes]) -> pb.SubmitReply:
        self.roster.vouch(signed, commit)
        if self.deadline:
            raise Refusal(Why.PENDING, "waits to be confirmed", "revision")
        if commit.revision != len(self.commits) + 1 or commit.follows != self.digest:
            raise Refusal(Why.STALE, f"does not follow the last, {len(self.commits)}", "follows")
        sections = {}
        for name in SECTIONS.values():
            wanted = getattr(commit, name)
            nothing = b"" if wanted == canonical.digest(b"") else None
            sections[name] = content.get(name) or self.contents.get(wanted.hex(), nothing)
            if sections[name] is None or canonical.digest(sections[name]) != wanted:
                raise Refusal(Why.INVALID, "is not there", name)
        try:
            peers.parse(sections["peers"])
            from_json(sections["ruleset"])
        except SettingsError as error:
            raise Refusal(Why.INVALID, error.why, error.path) from None
        if isinstance(commit, Commit):
            self.contents |= {getattr(commit, name).hex(): data for name, data in sections.items()}
            fate = pb.FATE_AWAITS if commit.confirm else pb.FATE_STANDS
            self.commits.append(Kept(commit, signed, fate, self.now))
            self.deadline = time.monotonic() + commit.confirm if commit.confirm else 0.0
        return pb.SubmitReply(number=commit.revision, kept=3, ended=1)

    def section(self, name: str, revision: int = 0) -> bytes:
        commit = self.commits[(revision or self.active) - 1].commit
        return self.contents[getattr(commit, name).hex()]

    def explain(self, request: pb.ExplainPacketRequest) -> pb.PacketExplanation:
        """What the filter would say that goes by the rules in force, and knows the flows that tests have opened."""
        numbers = {one.name: one.number for one in self.peers()}
        digest = self.commits[self.active - 1].commit.ruleset if self.active else bytes(32)
        if self.engine is None or self.engine[0] != digest:
            rules = from_json(self.section("ruleset")) if self.active else RuleSet()
            self.engine = digest, Engine(rules)
        side, peer = Side(request.side), numbers.get(request.peer, 0)
        found = self.engine[1].explain(request.raw, side, peer, 10.0, time.time())
        shown = pb.PacketExplanation(
            verdict=pb.Verdict.ValueType(int(found.verdict)),
            rule=0 if found.rule is None else found.rule + 1,
            why=found.why,
            tracking=found.tracking,
            state=found.state,
            digest=digest.hex(),
        )
        for name, value in self.explanation_lies.items():
            setattr(shown, name, value)
        return shown

    def peers(self) -> tuple[peers.PeerEntry, ...]:
        return peers.parse(self.section("peers")) if self.active else ()


def text_of(key: PrivateKey) -> str:
    return base64.b64encode(bytes(key.public_key)).decode()


def b64(letter: bytes) -> str:
    return base64.b64encode(letter * 32).decode()


def status_of(name: str) -> pb.Status:
    """A box as it would say of itself."""
    domains = []
    for i, (domain, component) in enumerate(
        (one, one) for one in ("rng", "log", "store", "config", "keymgr", "filter", "red", "black", "admin")
    ):
        counters = [pb.Counter(name="passed", value=1000 * i)] if domain in ("filter", "red") else []
        domains.append(
            pb.Domain(
                name=domain,
                component=component,
                state="running",
                memory=20 << 20,
                heartbeat_age=0.2,
                counters=counters,
                cpu_seconds=1.5 * i,
            )
        )
    joints = [pb.Joint(client="red.plain_out", server="filter.red_in", schema="packets")]
    return pb.Status(
        name=name,
        assembly="vpn-managed",
        backend="process",
        uptime=7201.5,
        domains=domains,
        channels=joints,
        listen_port=51820,
        tunnel="wg0",
        addresses=["10.0.0.1/24", "fd00::1/64"],
    )


# gRPC -----------------------------------------------------------------------------------------------------------------


class _Services:
    """The service over ``box``: one class for all of its services."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    def add(self, server: grpc.Server) -> None:
        for name in ("Box", "Peers", "Keys", "Rules", "Configuration", "Audit", "Enrollment"):
            getattr(services, f"add_{name}Servicer_to_server")(self, server)

    def _caller(self, context: Any, least: Role | None = Role.VIEWER) -> Any:
        """Who calls, by the certificate of the connection."""
        if self._box.delay:
            time.sleep(self._box.delay)
        port = int(context.peer().rpartition(":")[2])
        key = bytes.fromhex(self._box.relay.whose.get(port, ""))
        who = self._box.roster.holder(key) if key else None
        if least is not None and who is None:
            self._abort(context, code_pb2.UNAUTHENTICATED, "no certificate of an administrator")
        if least is not None and who.role < least:
            self._abort(context, code_pb2.PERMISSION_DENIED, f"{who.name} is {who.role}; this takes {least}")
        return who

    def _abort(self, context: Any, code: int, text: str, reason: str = "", path: str = "") -> None:
        status = status_pb2.Status(code=code, message=text)
        if reason:
            _pack(status, error_details_pb2.ErrorInfo(reason=reason, domain="septum"))
        if path:
            violation = error_details_pb2.BadRequest.FieldViolation(field=path, description=text)
            _pack(status, error_details_pb2.BadRequest(field_violations=[violation]))
        context.abort_with_status(rpc_status.to_status(status))

    # Box

    def GetVersion(self, request: Any, context: Any) -> pb.Version:
        self._caller(context)
        box = self._box
        return pb.Version(septum="0.1.0", python="3.11.2", box=box.box, name=box.name, time=box.now)

    def GetStatus(self, request: Any, context: Any) -> pb.Status:
        self._caller(context)
        return self._status()

    def _status(self) -> pb.Status:
        box = self._box
        with box.lock:
            box.tick()
            found = pb.Status()
            found.CopyFrom(box.status)
            head = box.head()
            found.time, found.revision, found.confirm_left_ms = box.now, head.active, head.confirm_left_ms
            found.peers = len(box.peers())
        return found

    def WatchStatus(self, request: Any, context: Any) -> Iterator[pb.Status]:
        self._caller(context)
        while context.is_active():
            yield self._status()
            time.sleep(request.period_ms / 1000)

    def RestartDomain(self, request: Any, context: Any) -> pb.RestartDomainReply:
        self._caller(context, Role.OPERATOR)
        for domain in self._box.status.domains:
            if domain.name == request.name:
                domain.restarts += 1
                self._box.restarted.append(request.name)
                return pb.RestartDomainReply()
        self._abort(context, code_pb2.NOT_FOUND, f"there is no domain {request.name}")
        raise AssertionError("aborted")

    # Peers, Keys, Rules

    def ListPeers(self, request: Any, context: Any) -> pb.ListPeersReply:
        self._caller(context)
        start, size = int(request.page_token or 0), request.page_size or 100
        everybody = self._box.peers()
        page = [self._peer(one) for one in everybody[start : start + size]]
        more = str(start + size) if start + size < len(everybody) else ""
        return pb.ListPeersReply(peers=page, next_page_token=more, total=len(everybody))

    def GetPeer(self, request: Any, context: Any) -> pb.Peer:
        self._caller(context)
        for one in map(self._peer, self._box.peers()):
            if request.name in (one.name, one.public_key):
                return one
        self._abort(context, code_pb2.NOT_FOUND, f"there is no peer {request.name}")
        raise AssertionError("aborted")

    def _peer(self, entry: peers.PeerEntry) -> pb.Peer:
        made = pb.Peer(number=entry.number, name=entry.name, public_key=base64.b64encode(entry.public_key).decode())
        made.allowed_ips.extend(entry.allowed_ips)
        made.configured_endpoint, made.keepalive = entry.endpoint, entry.keepalive
        made.has_preshared_key = bool(entry.preshared_key)
        if (state := self._box.states.get(entry.public_key)) is not None:
            made.MergeFrom(state)
        return made

    def GetKeys(self, request: Any, context: Any) -> pb.BoxKeys:
        self._caller(context)
        box = self._box
        found = pb.BoxKeys()
        found.CopyFrom(box.keys)
        keys = [base64.b64decode(one) for one in (found.public_key, found.sealing_key, found.next_public_key)]
        found.proof = prove(crypto_scalarmult(bytes(box.private_key), request.challenge), request.challenge, *keys)
        for name, key in box.lies.items():
            setattr(found, name, key)
        return found

    def GetRules(self, request: Any, context: Any) -> pb.RulesText:
        self._caller(context)
        return pb.RulesText(text=self._box.section("rules").decode(), revision=self._box.active)

    def GetCounters(self, request: Any, context: Any) -> pb.RuleCounters:
        self._caller(context)
        return pb.RuleCounters(rules=self._box.rule_counters, sums=self._box.sums, digest="00")

    def ExplainPacket(self, request: Any, context: Any) -> pb.PacketExplanation:
        self._caller(context)
        return self._box.explain(request)

    def DiffRules(self, requests: Any, context: Any) -> pb.RulesDifference:
        self._abort(context, code_pb2.UNIMPLEMENTED, "septumctl compares rules itself")
        raise AssertionError("aborted")

    # Configuration

    def GetHead(self, request: Any, context: Any) -> pb.ConfigurationHead:
        self._caller(context)
        with self._box.lock:
            self._box.tick()
            return self._box.head()

    def ListHistory(self, request: Any, context: Any) -> pb.ListHistoryReply:
        self._caller(context)
        box = self._box
        with box.lock:
            if request.chain == pb.CHAIN_ROSTER:
                rows = [pb.SignedStatement(statement=one.statement, signature=one.signature) for one in box.statements]
            else:
                rows = [
                    pb.SignedStatement(
                        statement=one.signed.statement,
                        signature=one.signed.signature,
                        fate=one.fate,
                        fate_at=one.fate_at,
                        has_content=True,
                    )
                    for one in box.commits
                ]
        last = request.before - 1 if request.before else len(rows)
        size = request.page_size or 50
        return pb.ListHistoryReply(statements=list(reversed(rows[max(0, last - size) : last])))

    def Download(self, request: Any, context: Any) -> Iterator[pb.Piece]:
        self._caller(context)
        data = self._box.section(SECTIONS[request.section], request.revision)
        for start in range(0, max(len(data), 1), 61_440):
            yield pb.Piece(total=len(data), data=data[start : start + 61_440])

    def Submit(self, requests: Iterator[pb.SubmitRequest], context: Any) -> pb.SubmitReply:
        self._caller(context)
        header = next(requests).header
        content: dict[str, bytes] = {}
        for one in requests:
            name = SECTIONS[one.piece.section]
            content[name] = content.get(name, b"") + one.piece.data
        if any(len(content.get(name, b"")) != getattr(header, name) for name in SECTIONS.values()):
            self._abort(context, code_pb2.INVALID_ARGUMENT, "not as long as the header says", "MALFORMED")
        try:
            with self._box.lock:
                return self._box.take(header, content)
        except Refusal as refusal:
            self._refuse(context, refusal)
            raise AssertionError("aborted") from None

    def _refuse(self, context: Any, refusal: Refusal) -> None:
        self._abort(context, CODES[refusal.why], str(refusal), refusal.why.name, refusal.path)

    # Audit

    def QueryLog(self, request: Any, context: Any) -> pb.LogLines:
        self._caller(context)
        return self._lines(request)

    def _lines(self, request: Any) -> pb.LogLines:
        found = [
            line
            for line in self._box.log
            if line.number > request.after
            and (not request.severity or line.severity < request.severity)
            and (not request.domain or line.domain == request.domain)
        ]
        most = request.lines or 200
        return pb.LogLines(life=1, lines=found[-most:] if request.newest else found[:most])

    def FollowLog(self, request: Any, context: Any) -> Iterator[pb.LogLines]:
        self._caller(context)
        while context.is_active():
            page = self._lines(request)
            if page.lines:
                request.after = page.lines[-1].number
                yield page
            time.sleep(0.02)

    # Enrollment

    def WhoAmI(self, request: Any, context: Any) -> pb.Identity:
        who, roster = self._caller(context, None), self._box.roster
        return pb.Identity(
            name=who.name if who else "",
            role=str(who.role) if who else "",
            box=self._box.box,
            certificate_until=round(time.time()) + 3600,
            serial=roster.serial,
            roster_digest=roster.digest,
        )

    def Enroll(self, request: Any, context: Any) -> pb.Certificate:
        box = self._box
        asked = x509.load_der_x509_csr(request.request)
        signed = Signed(request.statement, request.signature)
        try:
            with box.lock:
                taken = box.roster.take(signed, box.now)
                box.statements.append(signed)
        except Refusal as refusal:
            self._refuse(context, refusal)
            raise AssertionError("aborted") from None
        return pb.Certificate(chain=box.authority.for_administrator(taken.by, taken.key, asked.public_key()))

    def Renew(self, request: Any, context: Any) -> pb.Certificate:
        who = self._caller(context)
        asked = x509.load_der_x509_csr(request.request)
        return pb.Certificate(chain=self._box.authority.for_administrator(who.name, who.key, asked.public_key()))


def _pack(status: Any, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
