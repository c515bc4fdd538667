"""The admin domain of a real box, met by programs that are not ours: OpenSSL, gRPC's own client and its reflection; and
by peers who mean no good. One box for all of them: whatever they do, it goes on answering.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from septum.admin.v1 import admin_pb2 as pb
from septum.admin.v1 import admin_pb2_grpc

from appliance.ctl import contexts
from appliance.management import authority
from appliance.monitor.control import ControlError, request
from appliance.signed.statements import Enroll, Invite, Revoke, Role, Signed, public_key, sign
from components.admin.certificates import Issuer

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "adm0"
# Those who mean no good come from other addresses than administrators: who offends is not heard for a while
STRANGER, MUTE, SLOW = "127.0.0.66", "127.0.0.67", "127.0.0.68"
NAMED = (("grpc.ssl_target_name_override", authority.SERVER_NAME),)


@dataclass(frozen=True)
class Managed:
    """A managed box that is up. ``folder`` has the console's context and the box's state."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def console(self) -> contexts.Context:
        """What its root user's septumctl has of it."""
        return contexts.load(NAME)

    def identity(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / "state" / NAME / "management/identity.json").read_text())
        return found

    def channel(self, chain: str = "", key: str = "", anonymous: bool = False) -> grpc.Channel:
        root = self.console.root_pem.encode()
        if anonymous:
            credentials = grpc.ssl_channel_credentials(root)
        else:
            key, chain = key or self.console.tls_key_pem, chain or self.console.chain_pem
            credentials = grpc.ssl_channel_credentials(root, key.encode(), chain.encode())
        return grpc.secure_channel(self.address, credentials, (*NAMED, ("grpc.use_local_subchannel_pool", 1)))

    def restarts(self) -> dict[str, int]:
        return {one["name"]: one["restarts"] for one in request(NAME, "status")["domains"]}

    def log(self) -> str:
        return (self.folder / "log").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    folder = tmp_path_factory.mktemp("admin")
    managed = Managed(folder, free_port())
    with pytest.MonkeyPatch.context() as patch:
        for variable, name in (("SEPTUM_RUN_DIR", "run"), ("SEPTUM_STATE_DIR", "state"), ("SEPTUM_CONFIG", "contexts")):
            patch.setenv(variable, str(folder / name))
        septum = [sys.executable, "-m", "appliance.cli.septum"]
        subprocess.run([*septum, "init", NAME, "--address", managed.address], cwd=REPOSITORY, check=True)
        key = subprocess.run([*septum, "genkey"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
        conf = folder / f"{NAME}.conf"
        conf.touch(mode=0o600)
        conf.write_text(f"[Interface]\nPrivateKey = {key}Address = 10.98.0.1/24\nTable = off\n")
        up = [*septum, "up", str(conf), "--assembly", "vpn-managed", "--admin", managed.address, "--foreground"]
        for attempt in range(3):  # a machine that is busy with other things may take longer than a start may
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(up, cwd=REPOSITORY, stdout=log, stderr=log)
            if wait_until_up(process):
                break
            assert process.wait(30) and attempt < 2, managed.log()
        try:
            yield managed
            assert process.poll() is None, managed.log()
        finally:
            process.terminate()
            process.wait(30)


def wait_until_up(process: subprocess.Popen[bytes]) -> bool:
    """Whether all its domains run; if not, it has ended."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(ControlError):
            if all(one["state"] == "running" for one in request(NAME, "status")["domains"]):
                return True
        time.sleep(0.1)
    process.terminate()
    return False


@pytest.fixture
def unharmed(box: Managed) -> Iterator[None]:
    """Nobody has died of what was done, and the next caller is answered."""
    before = box.restarts()
    wait_out_the_lock(box)
    yield
    wait_out_the_lock(box)
    assert box.restarts() == before, box.log()


# OpenSSL ------------------------------------------------------------------------------------------------------------


def s_client(box: Managed, *options: str) -> tuple[int, str]:
    (box.folder / "root.pem").write_text(box.console.root_pem)
    command = [
        "openssl",
        "s_client",
        "-connect",
        box.address,
        "-bind",
        f"{STRANGER}:0",
        "-CAfile",
        str(box.folder / "root.pem"),
        *options,
    ]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def test_openssl_finds_tls_1_3_its_ciphers_and_the_whole_chain(box: Managed, unharmed: None) -> None:
    code, said = s_client(
        box, "-alpn", "h2", "-verify_return_error", "-servername", authority.SERVER_NAME, "-showcerts"
    )
    assert code == 0 and "New, TLSv1.3, Cipher is TLS_" in said and "ALPN protocol: h2" in said, said
    assert "Verify return code: 0 (ok)" in said and said.count("-----BEGIN CERTIFICATE-----") >= 2
    assert "Server Temp Key: X25519" in said or "Server Temp Key:" in said


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2"])
def test_openssl_finds_no_older_version(box: Managed, version: str, unharmed: None) -> None:
    # Security level 0, or OpenSSL itself would refuse the oldest before the box is asked
    code, said = s_client(box, version, "-alpn", "h2", "-cipher", "ALL:@SECLEVEL=0")
    assert code != 0 and "Cipher is (NONE)" in said, said


def test_openssl_gets_no_further_without_http_2(box: Managed, unharmed: None) -> None:
    _, said = s_client(box, "-alpn", "http/1.1")
    assert "ALPN protocol: http/1.1" not in said


# gRPC's own client --------------------------------------------------------------------------------------------------


def test_a_client_that_knows_nothing_but_reflection_reads_the_status(box: Managed, unharmed: None) -> None:
    """What grpcurl does: no generated code, only what the box says of itself."""
    with box.channel() as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "septum.admin.v1.Box" in database.get_services()
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName("septum.admin.v1.Box").FindMethodByName("GetStatus")
        ask, answer = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
        call = channel.unary_unary(
            f"/septum.admin.v1.Box/{method.name}",
            request_serializer=ask.SerializeToString,
            response_deserializer=answer.FromString,
        )
        status = call(ask(), timeout=20)
        until = time.monotonic() + 10
        while {one.state for one in status.domains} != {"running"} and time.monotonic() < until:
            time.sleep(0.5)  # the monitor tells once a second, and the box is new
            status = call(ask(), timeout=20)
    assert status.name == NAME and {one.name for one in status.domains} >= {"admin", "config", "keymgr"}
    assert {one.state for one in status.domains} == {"running"}


def test_such_a_client_has_a_packet_explained_and_revisions_compared(box: Managed, unharmed: None) -> None:
    with box.channel() as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        explain, diff = (
            pool.FindServiceByName("septum.admin.v1.Rules").FindMethodByName(name)
            for name in ("ExplainPacket", "DiffRules")
        )
        kinds = [message_factory.GetMessageClass(one) for one in (explain.input_type, explain.output_type)]
        call = channel.unary_unary(
            "/septum.admin.v1.Rules/ExplainPacket",
            request_serializer=kinds[0].SerializeToString,
            response_deserializer=kinds[1].FromString,
        )
        headers = {"protocol": "udp", "source": "10.98.0.7", "destination": "192.0.2.7", "destination_port": 53}
        said = call(kinds[0](headers=headers), timeout=20)
        assert said.verdict == pb.VERDICT_DROP and "no rule" in said.why and said.state == "no flow"
        with pytest.raises(grpc.RpcError) as refused:
            call(kinds[0](headers=headers | {"source": "10.98.0.7:53"}), timeout=20)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "headers.source" in refused.value.details() and "like 10.1.0.5" in refused.value.details()
        kinds = [message_factory.GetMessageClass(one) for one in (diff.input_type, diff.output_type)]
        compare = channel.stream_unary(
            "/septum.admin.v1.Rules/DiffRules",
            request_serializer=kinds[0].SerializeToString,
            response_deserializer=kinds[1].FromString,
        )
        rules = b'{"files":["mine"],"rules":[{"action":1,"line":2}]}'
        header = kinds[0](header={"ruleset": len(rules)})
        found = compare(iter([header, kinds[0](piece={"section": pb.SECTION_RULESET, "data": rules})]), timeout=20)
        assert found.added == 1 and (found.changes[0].after.file, found.changes[0].after.line) == ("mine", 2)


def test_errors_carry_what_a_machine_can_read(box: Managed, unharmed: None) -> None:
    with box.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        admin_pb2_grpc.PeersStub(channel).ListPeers(pb.ListPeersRequest(page_size=1001), timeout=20)
    status = rpc_status.from_call(refused.value)
    assert status is not None and "page_size" in status.details[0].value.decode("utf-8", "replace")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_watch_follows_a_restart_that_was_ordered(box: Managed) -> None:
    """A domain is built anew by order, and who watches sees it; twice at most, as the box has it."""
    with box.channel() as channel:
        stub = admin_pb2_grpc.BoxStub(channel)
        before = box.restarts()
        stub.RestartDomain(pb.RestartDomainRequest(name="decrypt"), timeout=20)
        for status in stub.WatchStatus(pb.WatchStatusRequest(period_ms=200), timeout=40):
            (decrypt,) = (one for one in status.domains if one.name == "decrypt")
            if decrypt.restarts > before["decrypt"] and decrypt.state == "running":
                break
        else:
            pytest.fail("it was not built anew")
    after = box.restarts()
    assert {name for name in after if after[name] != before[name]} == {"decrypt"}
    assert "an administrator asked for it" in box.log()


# certificates -------------------------------------------------------------------------------------------------------


def certificate(
    box: Managed, name: str, seed: bytes, days: float = 0.0, of: authority.Made | None = None
) -> tuple[str, str]:
    """A certificate and its key, as the box's own issuing authority would make it (or another's), at another time."""
    identity = box.identity()
    issuing = (of.issuing.certificate, of.issuing.key) if of else (identity["issuing"], identity["issuing_key"])
    key = authority.new_key()
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    der = asked.public_bytes(serialization.Encoding.DER)
    wall = time.time() + days * 86_400
    chain = Issuer(*issuing).issue(der, name, public_key(seed), wall, random.getrandbits(159))
    return chain + issuing[0], authority.key_pem(key)


def refusal(box: Managed, chain: str, key: str) -> grpc.RpcError:
    with box.channel(chain, key) as channel, pytest.raises(grpc.RpcError) as refused:
        admin_pb2_grpc.BoxStub(channel).GetStatus(pb.GetStatusRequest(), timeout=20)
    return refused.value


def test_every_certificate_that_is_none_of_ours_or_of_now_is_refused(box: Managed, unharmed: None) -> None:
    console = box.console.seed()
    good = certificate(box, "console", console)
    with box.channel(*good) as channel:
        assert admin_pb2_grpc.BoxStub(channel).GetStatus(pb.GetStatusRequest(), timeout=20).name == NAME
    other = authority.make(NAME, datetime.datetime.now(datetime.UTC))
    bad = {
        "expired": certificate(box, "console", console, days=-31),
        "not yet": certificate(box, "console", console, days=2),
        "another box's": certificate(box, "console", console, of=other),
        "the box's own server certificate": (box.identity()["chain"], box.identity()["key"]),
    }
    for what, (chain, key) in bad.items():
        error = refusal(box, chain, key)
        assert error.code() is grpc.StatusCode.UNAVAILABLE, f"{what}: {error}"  # in the handshake
    stranger = refusal(box, *certificate(box, "console", os.urandom(32)))
    assert stranger.code() is grpc.StatusCode.UNAUTHENTICATED, "the name is nothing, the key is who one is"
    nobody = box.channel(anonymous=True)
    with nobody, pytest.raises(grpc.RpcError) as refused:
        admin_pb2_grpc.BoxStub(nobody).GetStatus(pb.GetStatusRequest(), timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_an_administrator_is_invited_enrolled_renewed_and_revoked(box: Managed, unharmed: None) -> None:
    """All that a certificate goes through, and every statement signed here, where the keys are."""
    identity, console = box.identity(), box.console.seed()
    of, now = bytes.fromhex(identity["box"]), int(time.time() * 1000)
    token, seed = os.urandom(32), os.urandom(32)

    def place(stub: Any) -> dict[str, Any]:
        head = stub.WhoAmI(pb.WhoAmIRequest(), timeout=20)
        return {"box": of, "serial": head.serial + 1, "follows": bytes(head.roster_digest), "at": now}

    def submit(channel: grpc.Channel, signed: Signed) -> None:
        header = pb.SubmitHeader(statement=signed.statement, signature=signed.signature)
        stub = admin_pb2_grpc.ConfigurationStub(channel)
        stub.Submit(iter([pb.SubmitRequest(header=header)]), timeout=30)

    with box.channel() as officer, box.channel(anonymous=True) as nobody:
        people, stranger = admin_pb2_grpc.EnrollmentStub(officer), admin_pb2_grpc.EnrollmentStub(nobody)
        invite = Invite(
            **place(people), by="console", name="vera", role=Role.VIEWER, key=public_key(token), expires=now + 60_000
        )
        submit(officer, sign(invite, console))
        enroll = sign(Enroll(**place(stranger), by="vera", key=public_key(seed)), token)
        key = authority.new_key()
        asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        request_ = pb.EnrollRequest(
            statement=enroll.statement,
            signature=enroll.signature,
            request=asked.public_bytes(serialization.Encoding.DER),
        )
        chain = stranger.Enroll(request_, timeout=30).chain
        with pytest.raises(grpc.RpcError) as twice:
            stranger.Enroll(request_, timeout=30)
        assert twice.value.code() is grpc.StatusCode.ABORTED
        with box.channel(chain, authority.key_pem(key)) as vera:
            own = admin_pb2_grpc.EnrollmentStub(vera)
            assert own.WhoAmI(pb.WhoAmIRequest(), timeout=20).role == "viewer"
            assert own.Renew(pb.RenewRequest(request=request_.request), timeout=20).chain != chain
            with pytest.raises(grpc.RpcError) as refused:
                admin_pb2_grpc.BoxStub(vera).RestartDomain(pb.RestartDomainRequest(name="rng"), timeout=20)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            watch = admin_pb2_grpc.BoxStub(vera).WatchStatus(pb.WatchStatusRequest(period_ms=500), timeout=30)
            next(watch)
            submit(officer, sign(Revoke(**place(people), by="console", name="vera"), console))
            with pytest.raises(grpc.RpcError) as ended:
                for _ in watch:
                    pass
            assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED, "at once, and not at the next call"
            with pytest.raises(grpc.RpcError) as refused:
                own.WhoAmI(pb.WhoAmIRequest(), timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


# those who mean no good ---------------------------------------------------------------------------------------------


def tls_context(box: Managed) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=box.console.root_pem)
    context.set_alpn_protocols(["h2"])
    file = box.folder / "console.pem"
    file.touch(mode=0o600)
    file.write_text(box.console.tls_key_pem + box.console.chain_pem)
    context.load_cert_chain(file)
    return context


def connect(box: Managed, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", box.port), 20, source_address=(source, 0))


def answers_in(box: Managed) -> float:
    began = time.monotonic()
    with box.channel() as channel:
        admin_pb2_grpc.BoxStub(channel).GetVersion(pb.GetVersionRequest(), timeout=20)
    return time.monotonic() - began


def test_half_open_and_mute_connections_starve_nobody_and_are_ended(box: Managed, unharmed: None) -> None:
    """As many as a source may have that does not say who it is; those who are somebody come from it all the same."""
    with box.channel() as channel:
        stub = admin_pb2_grpc.BoxStub(channel)
        stub.GetVersion(pb.GetVersionRequest(), timeout=20)
        held = []
        for i in range(60):
            end = connect(box, MUTE)
            with contextlib.suppress(OSError):
                end.sendall((b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n")[i % 3])
            held.append(end)
        for _ in range(20):
            stub.GetVersion(pb.GetVersionRequest(), timeout=20)
        until = time.monotonic() + 40
        for end in held:
            end.settimeout(max(0.1, until - time.monotonic()))
            with contextlib.suppress(ConnectionResetError):
                while end.recv(4096):
                    pass  # an alert
            end.close()
        assert time.monotonic() < until, "they are not ended"


def wait_out_the_lock(box: Managed) -> None:
    """The tests are one source: what they did wrong together may have locked them out for a minute."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        with contextlib.suppress(grpc.RpcError):
            answers_in(box)
            return
        time.sleep(1)
    pytest.fail("nobody is heard any more")


def test_slow_readers_hold_up_nobody(box: Managed, unharmed: None) -> None:
    """Watches whose windows are never opened, on connections that are never read."""
    context = tls_context(box)
    import h2.config
    import h2.connection

    ends = []
    for _ in range(10):
        end = context.wrap_socket(connect(box, SLOW), server_hostname=authority.SERVER_NAME)
        wire = h2.connection.H2Connection(h2.config.H2Configuration())
        wire.initiate_connection()
        for _ in range(20):
            number = wire.get_next_available_stream_id()
            headers = [(":method", "POST"), (":scheme", "https"), (":path", "/septum.admin.v1.Box/WatchStatus")]
            wire.send_headers(
                number, [*headers, (":authority", "b"), ("te", "trailers"), ("content-type", "application/grpc")]
            )
            raw = pb.WatchStatusRequest(period_ms=200).SerializeToString()
            wire.send_data(number, b"\0" + len(raw).to_bytes(4, "big") + raw, end_stream=True)
        end.sendall(wire.data_to_send())
        ends.append(end)
    taken = sorted(answers_in(box) for _ in range(10))
    memory = next(one["pss_kib"] for one in request(NAME, "status")["domains"] if one["name"] == "admin")
    assert taken[-1] < 10 and memory < 200 << 10
    for end in ends:
        end.close()


def test_damaged_http_2_and_protobuf_kill_nothing(box: Managed, unharmed: None) -> None:
    context = tls_context(box)
    chance = random.Random(11)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    kinds = (bytes(range(10)), b"\x09\x0a\xff\x42")
    until = time.monotonic() + 15
    count = 0
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            end = context.wrap_socket(connect(box, f"127.0.1.{1 + count // 8}"), server_hostname=authority.SERVER_NAME)
            with end:
                frames = bytearray()
                for _ in range(chance.randrange(1, 30)):
                    body = chance.randbytes(chance.randrange(0, 60))
                    kind = chance.choice(kinds[chance.random() < 0.1])
                    head = len(body).to_bytes(3, "big") + bytes([kind, chance.randrange(256)])
                    frames += head + chance.choice((0, 1, 3, chance.randrange(1 << 31))).to_bytes(4, "big") + body
                end.sendall(preface + frames)
                end.settimeout(0.2)
                end.recv(4096)
        count += 1
    assert count > 5
    with box.channel() as channel:
        raw = channel.unary_unary("/septum.admin.v1.Peers/GetPeer")
        for _ in range(150):
            with contextlib.suppress(grpc.RpcError):
                raw(chance.randbytes(chance.randrange(80)), timeout=20)
    wait_out_the_lock(box)


def test_many_watch_while_others_ask(box: Managed, unharmed: None, report: list[tuple[str, str]]) -> None:
    """Forty watches on four connections, and how long a status takes meanwhile."""
    channels = [box.channel() for _ in range(4)]
    seen: list[int] = []

    def watch(channel: grpc.Channel) -> None:
        count = 0
        with contextlib.suppress(grpc.RpcError):
            for _ in admin_pb2_grpc.BoxStub(channel).WatchStatus(pb.WatchStatusRequest(period_ms=1000), timeout=6):
                count += 1
        seen.append(count)

    threads = [threading.Thread(target=watch, args=(channels[i % 4],)) for i in range(40)]
    for thread in threads:
        thread.start()
    taken = []
    with box.channel() as channel:
        stub = admin_pb2_grpc.BoxStub(channel)
        while any(thread.is_alive() for thread in threads):
            began = time.monotonic()
            stub.GetStatus(pb.GetStatusRequest(), timeout=20)
            taken.append(time.monotonic() - began)
            time.sleep(0.05)
    for thread in threads:
        thread.join()
    for channel in channels:
        channel.close()
    taken.sort()
    assert len(seen) == 40 and min(seen) >= 2
    p99 = taken[int(len(taken) * 0.99)] * 1e3
    report.append(
        ("admin: GetStatus beside 40 watches", f"median {taken[len(taken) // 2] * 1e3:.0f} ms, p99 {p99:.0f} ms")
    )


LISTEN = "0A"  # TCP_LISTEN in <net/tcp_states.h>, as /proc/net/tcp shows it


def test_the_domain_holds_what_it_may_and_nothing_of_the_packets(box: Managed) -> None:
    """No channel, device or clearance of admin's leads to plaintext, ciphertext or keys: as built, and as sealed."""
    status: Any = request(NAME, "status")
    (admin,) = (one for one in status["domains"] if one["name"] == "admin")
    assert admin["clearance"] == ["CONTROL", "PUBLIC"]
    joined = {one["schema"] for one in status["channels"] if "admin." in one["client"] or "admin." in one["server"]}
    assert joined == {"configuring", "peers", "counting", "tail", "records"}
    kinds = [os.readlink(f"/proc/{admin['pid']}/fd/{fd}") for fd in os.listdir(f"/proc/{admin['pid']}/fd")]
    assert not [kind for kind in kinds if "tun" in kind or "packet" in kind]
    # Its sockets are the one that listens, and those of callers, of whom some may just have gone
    sockets = {kind.removeprefix("socket:[").rstrip("]") for kind in kinds if kind.startswith("socket:")}
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {row[9]: row[3] for row in rows if int(row[1].rpartition(":")[2], 16) == box.port}
    assert [ours[one] for one in sockets if one in ours].count(LISTEN) == 1
    others = [row[9] for row in rows if row[9] not in ours]
    for table in ("tcp6", "udp", "udp6", "raw", "raw6", "packet", "unix", "netlink"):
        others += Path(f"/proc/net/{table}").read_text().split()
    assert not sockets & set(others)
