"""Connections: who does not speak the protocol, or not at all, does not read, or does too much."""

from __future__ import annotations

import datetime
import random
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from septum.admin.v1 import admin_pb2 as pb

from appliance.management import authority
from appliance.signed.statements import public_key
from components.admin import grpcwire, tls
from components.admin.certificates import Issuer
from components.admin.client import MOST_OUTPUT, MOST_PENDING, OPENINGS, TIMES
from components.admin.ratelimit import LOCKED, MOST_REMEMBERED, OFFENCES, Buckets, LockOut
from components.admin.status import Code
from tests.unit.admin.box import WALL, Box, Caller, Failed, certificate_of, identity, made, request_for
from tests.unit.signed.box import seed

VERSION = "/septum.admin.v1.Box/GetVersion"
WATCH = "/septum.admin.v1.Box/WatchStatus"


def raw(box: Box, data: bytes) -> Caller:
    caller = Caller(box, certificate_of("console"), "192.0.2.9", handshake=False)
    box.callers.append(caller)
    caller.raw = data
    box.turn()
    return caller


# TLS ----------------------------------------------------------------------------------------------------------------


def test_only_tls_1_3_and_http_2_are_spoken() -> None:
    box = Box()
    for change in ("version", "alpn"):
        caller = Caller(box, None, "192.0.2.9")
        if change == "version":
            caller.context.maximum_version = ssl.TLSVersion.TLSv1_2
        else:
            caller.context.set_alpn_protocols(["http/1.1"])
        caller.tls = caller.context.wrap_bio(caller._in, caller._out, server_hostname="box.septum")
        box.callers.append(caller)
        box.turn()
        assert caller.client.is_over and caller.client.offence.startswith("TLS: ") and not caller.client.is_established


@pytest.mark.parametrize(("of", "days"), [("other", 0.0), ("", -31.0), ("", 2.0)])
def test_a_certificate_of_another_box_or_another_time_ends_in_the_handshake(of: str, days: float) -> None:
    box = Box()
    caller = Caller(box, certificate_of("console", of, days), "192.0.2.9")
    box.callers.append(caller)
    box.turn()
    assert caller.client.is_over and not caller.client.is_established, "the server found it bad"
    assert caller.error, "and says so to the caller, by an alert"


def test_a_certificate_that_expires_while_it_is_used_ends_the_connection_at_the_next_call() -> None:
    box = Box()
    caller = box.call()
    caller.call(VERSION, b"", pb.Version)
    box.wall += 30.1 * 86400
    with pytest.raises(Failed) as refused:
        caller.call(VERSION, b"", pb.Version)
    assert refused.value.code == Code.UNAUTHENTICATED and refused.value.reason == "EXPIRED" and caller.client.is_over


def test_a_certificate_that_expires_ends_what_goes_on() -> None:
    box = Box()
    caller, nobody = box.call(), box.call("")
    number = caller.begin(WATCH, pb.WatchStatusRequest(period_ms=60_000))
    nobody.begin("/grpc.health.v1.Health/Watch", b"")
    box.wall += 29.9 * 86400
    box.look(1)
    assert not caller.is_over(number)
    box.wall += 0.2 * 86400
    box.look(1)
    assert caller.status(number).code == Code.UNAUTHENTICATED and caller.status(number).reason == "EXPIRED"
    assert caller.client.is_over and not caller.client.offence and not nobody.client.is_over


def test_a_certificate_of_an_issuing_authority_that_was_replaced_is_good_for_a_while_and_no_longer() -> None:
    box, old = Box(), made()
    root = x509.load_pem_x509_certificate(old.root.certificate.encode())
    root_key = serialization.load_pem_private_key(old.root.key.encode(), None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    key, now = authority.new_key(), datetime.datetime.fromtimestamp(WALL, datetime.UTC)
    issuing = authority.pem(authority.appoint("t0", root, root_key, key, now))
    pair = issuing, authority.key_pem(key)
    issuer = Issuer(*pair, old.issuing.certificate, WALL + 10 * 86400)
    box.service._world = box.service._world._replace(issuer=issuer)
    caller = box.call()
    caller.call(VERSION, b"", pb.Version)
    watching = caller.begin(WATCH, pb.WatchStatusRequest(period_ms=60_000))
    box.wall += 10.1 * 86400
    box.look(1)
    assert caller.status(watching).reason == "EXPIRED" and caller.client.is_over
    again = box.call()
    assert again.client.is_established, "OpenSSL looks for the root alone"
    assert again.status(again.begin(VERSION, b"")).reason == "EXPIRED"
    new = authority.new_key()
    chain = issuer.issue(request_for(new), "console", public_key(seed("console")), WALL, 9) + issuing
    renewed = Caller(box, (chain, authority.key_pem(new)), "192.0.2.9")
    box.callers.append(renewed)
    assert renewed.call(VERSION, b"", pb.Version).name == "t0"


def test_the_server_shows_its_whole_chain_and_no_session_is_resumed() -> None:
    box = Box()
    caller = box.call("")
    assert caller.tls.version() == "TLSv1.3" and caller.tls.selected_alpn_protocol() == "h2"
    assert caller.tls.session is None or not caller.tls.session.has_ticket


# protocol -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9) + b"\xff" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff\xff\xff\x01\x04\0\0\0\1",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\5\x01\x04\0\0\0\1\xff\xff\xff\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\1\x09\x04\0\0\0\1\x82",
    ],
)
def test_what_is_not_http_2_ends_the_connection_and_is_an_offence(data: bytes) -> None:
    caller = raw(Box(), data)
    assert caller.client.is_over and caller.client.offence.startswith("HTTP/2: ")


def test_random_and_damaged_bytes_kill_nothing() -> None:
    """Thousands of damaged conversations; whatever becomes of each, the box answers the next caller."""
    box = Box()
    chance = random.Random(7)
    model = Caller(box, certificate_of("console"), "192.0.2.9")
    for _ in range(3):
        number = model.h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "https"), (":path", VERSION), (":authority", "b")]
        model.h2.send_headers(number, [*headers, ("te", "trailers"), ("content-type", "application/grpc")])
        model.h2.send_data(number, bytes(5), end_stream=True)
    good = model.h2.data_to_send()
    for i in range(1500):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(24, len(data))
            match chance.randrange(4):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at : at + chance.randrange(1, 9)]
                case 2:
                    data[at:at] = chance.randbytes(chance.randrange(1, 9))
                case 3:
                    data[at:at] = data[24 : 24 + chance.randrange(40)]
        wire = grpcwire.Connection()
        try:
            for event in wire.received(bytes(data)):
                if isinstance(event, grpcwire.Opened):
                    wire.reply(event.stream, b"x" * 100)
                    wire.finish(event.stream)
        except grpcwire.Broken:
            pass
        assert wire.output() is not None and wire.pending < 1000 and i >= 0
    for data in (good[:-1], good + chance.randbytes(500)):
        raw(box, bytes(data))
    assert box.call().call(VERSION, b"", pb.Version).name == "t0"


def test_damaged_messages_are_told_apart_from_damaged_calls() -> None:
    box = Box()
    caller = box.call()
    chance = random.Random(3)
    for path, method in box.service.methods.items():
        if method.goes_on or path.endswith(("Watch", "Info", "Enroll", "Submit", "Renew")):
            continue
        for _ in range(20):
            number = caller.begin(path, chance.randbytes(chance.randrange(1, 40)))
            assert caller.is_over(number), path
        box.now += 60
    assert caller.call(VERSION, b"", pb.Version).name == "t0"
    assert not [text for event, text in box.said if event == "failed"]


def test_a_message_that_is_too_long_compressed_or_torn_ends_its_call_alone() -> None:
    box = Box()
    caller = box.call()
    watching = caller.begin(WATCH, pb.WatchStatusRequest(period_ms=1000))
    for prefix, code in ((b"\0\xff\xff\xff\xff", 8), (b"\1\0\0\0\1x", 12), (b"\0\0\0\0\5abc", 13)):
        number = caller.h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "https"), (":path", VERSION), (":authority", "b")]
        caller.h2.send_headers(number, [*headers, ("te", "trailers"), ("content-type", "application/grpc")])
        caller.streams[number] = {"headers": {}, "data": b"", "ended": False, "takes": True}
        caller.h2.send_data(number, prefix, end_stream=True)
        box.turn()
        assert caller.status(number).code == code
    box.turn(1.0)
    assert len(caller.messages(watching, pb.Status)) == 2


@pytest.mark.parametrize("other", [{"content_type": "application/json"}, {"grpc_encoding": "gzip"}])
def test_another_content_or_encoding_is_refused(other: dict[str, str]) -> None:
    caller = Box().call()
    number = caller.begin(VERSION, b"", **other)
    headers = caller.streams[number]["headers"]
    assert headers[":status"] == "415" or headers["grpc-status"] == "12"


# deadlines and silences ---------------------------------------------------------------------------------------------


def test_the_callers_deadline_is_kept_and_the_call_forgotten() -> None:
    box = Box()
    caller = box.call()
    number = caller.begin(WATCH, pb.WatchStatusRequest(period_ms=3_600_000), timeout="2S")
    box.turn(1.9)
    assert not caller.is_over(number)
    box.turn(0.2)
    assert caller.status(number).code == Code.DEADLINE_EXCEEDED and caller.client.calls == 0
    for wrong in ("2", "S", "123456789S", "-1S", "1x"):
        assert caller.status(caller.begin(VERSION, b"", timeout=wrong)).code == Code.INVALID_ARGUMENT


def test_a_deadline_of_ten_thousand_years_is_not_kept_in_mind() -> None:
    box = Box()
    caller = box.call()
    for _ in range(20):
        number = caller.begin(WATCH, pb.WatchStatusRequest(period_ms=1000), timeout="99999999H")
        assert not caller.is_over(number)
        caller.h2.reset_stream(number)
        box.turn(0.1)
    box.turn(TIMES.longest_deadline)
    assert caller.client.calls == 0 and not box.clock._due


def test_a_call_that_asks_a_domain_that_is_silent_ends_by_itself() -> None:
    box = Box()
    caller = box.call()
    box.players["config"].ask = lambda request, then, seconds=5.0: None  # type: ignore[method-assign]
    number = caller.begin("/septum.admin.v1.Configuration/GetHead", b"")
    box.look(TIMES.call - 1)
    assert not caller.is_over(number)
    box.look(3)
    assert caller.status(number).code == Code.DEADLINE_EXCEEDED


def test_who_says_nothing_is_not_waited_for() -> None:
    box = Box()
    mute = Caller(box, None, "192.0.2.9", handshake=False)
    mute.reads = False
    silent = box.call()  # in TLS, and then nothing
    box.look(TIMES.greeting - 1)
    mute.client.look(box.now)
    assert not mute.client.is_over and not silent.client.is_over
    box.look(2)
    mute.client.look(box.now)
    assert mute.client.offence == "it says nothing"
    assert silent.client.is_over and not silent.client.offence, "it may have looked at the certificate alone"


def test_an_idle_connection_is_ended_in_order_and_one_with_a_watch_is_not() -> None:
    box = Box()
    idle, watching = box.call(), box.call()
    idle.call(VERSION, b"", pb.Version)
    watching.begin(WATCH, pb.WatchStatusRequest(period_ms=60_000))
    box.look(TIMES.idle + 1)
    assert idle.client.is_over and idle.client.offence == "" and not watching.client.is_over


def test_a_caller_that_is_gone_without_a_word_is_asked_and_then_forgotten() -> None:
    box = Box()
    caller = box.call()
    caller.begin("/septum.admin.v1.Audit/FollowLog", b"")
    box.look(TIMES.ping + 5)
    assert not caller.client.is_over, "it answers"
    caller.reads = False
    box.callers.remove(caller)  # the network is down
    for _ in range(int(2 * (TIMES.ping + TIMES.answer + 2))):
        box.turn(0.5)
        caller.client.look(box.now)
    assert caller.client.is_over and caller.client.offence


# too much -----------------------------------------------------------------------------------------------------------


def test_who_does_not_read_is_given_no_more_and_then_ended_and_others_do_not_notice() -> None:
    box = Box()
    slow, quick = box.call(), box.call()
    box.config.commit(rules=b"#" * 1_000_000)
    slow.call(VERSION, b"", pb.Version)
    numbers = [slow.begin("/septum.admin.v1.Rules/GetRules", b"", takes=False) for _ in range(20)]
    most = 0
    for _ in range(int(2 * TIMES.unread) + 10):
        slow.begin("/septum.admin.v1.Rules/GetRules", b"", takes=False) if not slow.client.is_over else None
        most = max(most, slow.client.waiting)
        quick.call(VERSION, b"", pb.Version)
        box.turn(0.5)
        for one in (slow, quick):
            one.client.look(box.now)
    assert most < MOST_PENDING + MOST_OUTPUT + 2_000_000
    assert numbers and slow.client.is_over and slow.client.offence == "it reads nothing"
    assert not quick.client.is_over


def test_a_watch_that_is_not_read_makes_nothing_more() -> None:
    box = Box()
    caller = box.call()
    caller.begin(WATCH, pb.WatchStatusRequest(period_ms=200), takes=False)
    for _ in range(3000):
        box.turn(0.2)
    assert caller.client.waiting < 2 * 65_536 + 10_000


def test_a_flood_of_calls_ends_the_connection() -> None:
    box = Box()
    caller = box.call()
    for _ in range(int(OPENINGS[1]) + 50):
        if caller.client.is_over:
            break
        number = caller.begin(WATCH, pb.WatchStatusRequest(period_ms=1000), end=True)
        if not caller.is_over(number) and not caller.client.is_over:
            caller.h2.reset_stream(number)  # as in CVE-2023-44487
    box.turn()
    assert caller.client.is_over and caller.client.offence == "a flood of calls" and caller.client.calls == 0


def test_an_administrators_calls_are_limited_and_he_is_told_when_to_come_again() -> None:
    box = Box()
    caller, other = box.call(), box.call()
    with pytest.raises(Failed) as refused:
        for i in range(400):
            (caller if i % 2 else other).call(VERSION, b"", pb.Version)
    assert refused.value.code == Code.RESOURCE_EXHAUSTED and refused.value.reason == "RATE" and refused.value.retry > 0
    box.turn(refused.value.retry + 0.1)
    caller.call(VERSION, b"", pb.Version)


def test_nobody_may_do_little_and_by_source() -> None:
    box = Box()
    path = "/septum.admin.v1.Enrollment/WhoAmI"
    with pytest.raises(Failed) as refused:
        for _ in range(30):
            box.call("").call(path, b"", pb.Identity)
    assert refused.value.code == Code.RESOURCE_EXHAUSTED
    assert box.call("", source="192.0.2.200").call(path, b"", pb.Identity).name == ""
    assert box.call().call(path, b"", pb.Identity).name == "console"


def test_memory_does_not_grow_with_calls() -> None:
    box = Box()
    caller = box.call()
    for i in range(300):
        caller.call(VERSION, b"", pb.Version)
        box.turn(0.1)
        assert caller.client.calls == 0 and caller.client._wire.calls == 0 and caller.client._wire.pending == 0, i
    assert len(box.clock._due) < 70 * 10  # deadlines of a minute that were cancelled and are not yet past


# sources ------------------------------------------------------------------------------------------------------------


def test_a_source_that_offends_again_and_again_is_locked_out_for_a_while() -> None:
    lock = LockOut()
    assert [lock.offend("a", float(i)) for i in range(OFFENCES)] == [False] * (OFFENCES - 1) + [True]
    assert lock.is_locked("a", 20.0) and not lock.is_locked("b", 20.0)
    assert not lock.is_locked("a", OFFENCES + LOCKED)
    assert not any(lock.offend("slow", i * 10.0) for i in range(100)), "one in ten seconds is a clumsy friend"
    for i in range(3 * MOST_REMEMBERED):
        lock.offend(f"x{i}", 500.0)
    assert len(lock._offences) <= MOST_REMEMBERED


def test_buckets_fill_and_are_forgotten() -> None:
    buckets = Buckets(2.0, 4.0)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0.0] * 4
    assert buckets.take("a", 0.0) == pytest.approx(0.5)
    assert buckets.take("a", 0.6) == 0.0 and buckets.take("b", 0.6) == 0.0
    for i in range(2 * MOST_REMEMBERED):
        buckets.take(f"x{i}", 1.0)
    assert len(buckets._buckets) <= MOST_REMEMBERED


# frames and strangers -----------------------------------------------------------------------------------------------

EMPTY_FRAMES = {
    "ping": bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + bytes(8),
    "settings": bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
    "window": bytes([0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    "unknown": bytes([0, 0, 0, 77, 0, 0, 0, 0, 0]),
    "empty data": bytes([0, 0, 0, 0, 0, 0, 0, 0, 1]),
}


@pytest.mark.parametrize("kind", EMPTY_FRAMES)
def test_a_flood_of_frames_is_counted_before_it_is_read_and_ends_the_connection(kind: str) -> None:
    box = Box()
    caller = box.call()
    if kind == "empty data":
        caller.begin(WATCH, pb.WatchStatusRequest(period_ms=1000), end=False)
    else:
        caller.call(VERSION, b"", pb.Version)
    caller.raw = EMPTY_FRAMES[kind] * 200
    box.turn(1.0)
    assert not caller.client.is_over
    caller.raw = EMPTY_FRAMES[kind] * 5000
    box.turn(1.0)
    assert caller.client.is_over and caller.client.offence.startswith("HTTP/2: ")


@pytest.mark.parametrize("kind", ["ping", "settings", "window", "unknown"])
def test_who_shows_no_certificate_may_send_few_frames(kind: str) -> None:
    box = Box()
    known, nobody = box.call(), box.call("")
    for caller in (known, nobody):
        caller.call("/septum.admin.v1.Enrollment/WhoAmI", b"", pb.Identity)
        caller.raw = EMPTY_FRAMES[kind] * 250
    box.turn()
    assert not nobody.client.is_over
    for caller in (known, nobody):
        caller.raw = EMPTY_FRAMES[kind] * 150
    box.turn(1.0)
    assert nobody.client.offence.startswith("HTTP/2: ") and not known.client.is_over


def test_who_shows_no_certificate_does_not_stay() -> None:
    box = Box()
    refused, watching, known = box.call(""), box.call(""), box.call()
    refused.begin(VERSION, b"")
    watching.begin("/grpc.health.v1.Health/Watch", b"")
    known.call(VERSION, b"", pb.Version)
    box.look(TIMES.unknown_idle + 1)
    assert refused.client.is_over and not watching.client.is_over and not known.client.is_over
    box.look(TIMES.unknown_life)
    assert watching.client.is_over and not known.client.is_over


def framed(kind: int, flags: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 1]) + body


def test_a_list_of_headers_is_not_kept_however_many_frames_it_comes_in() -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    half = framed(1, 0, bytes(8192))
    for bad in (half + framed(9, 0, bytes(8193)), half + framed(9, 0, bytes(4096)) * 2 + framed(9, 0, b"0")):
        wire = grpcwire.Connection()
        with pytest.raises(grpcwire.Broken):
            wire.received(preface + bad)
    wire = grpcwire.Connection()
    assert wire.received(preface + half + framed(9, 0, bytes(8192))) == [], "more of it may come; not more bytes"


def test_a_stranger_may_send_less_at_once_than_an_administrator() -> None:
    box = Box()
    path = "/septum.admin.v1.Enrollment/WhoAmI"
    nobody, known = box.call(""), box.call()
    for caller in (nobody, known):
        caller.call(path, b"", pb.Identity)
    assert nobody.h2.outbound_flow_control_window <= grpcwire.UNKNOWN_WINDOW
    assert grpcwire.UNKNOWN_WINDOW < known.h2.outbound_flow_control_window <= grpcwire.CONNECTION_WINDOW


def test_from_a_suspect_network_only_who_shows_a_certificate_is_heard() -> None:
    box = Box()
    nobody, known = box.call("", must_be_known=True), box.call(must_be_known=True)
    assert nobody.client.is_over and not nobody.client.offence
    assert known.call(VERSION, b"", pb.Version).name == "t0"


def test_an_identity_that_no_pipe_holds_is_refused_and_nobody_waits() -> None:
    of = identity()
    with pytest.raises(OSError, match="File too large"):
        tls.context("x" * (1 << 20), of.key, of.root)
