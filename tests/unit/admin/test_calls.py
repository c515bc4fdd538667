"""The calls themselves: what is shown of the box, what is carried to config, who becomes an administrator."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from septum.admin.v1 import admin_pb2 as pb
from septum.v1.peers import PeerState

from appliance.guest import boxpage
from appliance.management import authority
from appliance.signed import canonical
from appliance.signed.peers import PeerEntry, encode
from appliance.signed.refusal import Refusal, Why
from appliance.signed.statements import Commit, Rehearse, Role, Signed, parse, sign
from components.admin.grpcwire import _percent
from components.admin.holding import CODES, Lock
from components.admin.service import ENROLL_RATE, ENROLL_RATE_OF_ALL, REMARK_RATE, UNKNOWN_RATE
from components.admin.status import Code, RpcError
from components.admin.tasks import Clock, Task
from tests.unit.admin.box import Box, Caller, Failed, certificate_of, request_for
from tests.unit.signed.box import seed

A = "/septum.admin.v1."


def peers(count: int) -> tuple[PeerEntry, ...]:
    def key(n: int) -> bytes:
        return canonical.digest(b"peer %d" % n)

    return tuple(
        PeerEntry(n, f"peer{n}", key(n), (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32",)) for n in range(1, count + 1)
    )


def submit(caller: Caller, signed: Signed, **sections: bytes) -> Any:
    numbers = {"peers": 1, "ruleset": 2, "rules": 3}
    header = pb.SubmitHeader(statement=signed.statement, signature=signed.signature)
    for name, data in sections.items():
        setattr(header, name, len(data))
    messages = [pb.SubmitRequest(header=header)]
    for name, data in sections.items():
        for at in range(0, len(data), 61_440):
            piece = pb.SubmitPiece(section=numbers[name], data=data[at : at + 61_440])
            messages.append(pb.SubmitRequest(piece=piece))
    number = caller.begin(A + "Configuration/Submit", *messages)
    for _ in range(100):
        if caller.is_over(number):
            break
        caller.box.turn(0.1)
    if caller.streams[number]["headers"].get("grpc-status") != "0":
        raise caller.status(number)
    (reply,) = caller.messages(number, pb.SubmitReply)
    return reply


# the box ------------------------------------------------------------------------------------------------------------


def test_status_says_what_the_monitor_tells_and_where_config_stands() -> None:
    box = Box()
    box.config.commit()
    caller = box.call()
    status = caller.call(A + "Box/GetStatus", b"", pb.Status)
    assert [one.name for one in status.domains] == ["rng", "keymgr", "filter", "admin"] and status.revision == 1
    assert status.domains[0].memory == 7000 << 10 and status.domains[0].counters[0].name == "requests"
    box.players["config"].is_away = True
    assert caller.call(A + "Box/GetStatus", b"", pb.Status).revision == 0, "what can be seen is shown without config"


def test_status_counts_the_peers_in_force_though_nobody_lists_them() -> None:
    box = Box()
    caller = box.call()
    assert caller.call(A + "Box/GetStatus", b"", pb.Status).peers == 0
    for count in (3, 5000, 1):
        box.config.commit(encode(peers(count)))
        assert caller.call(A + "Box/GetStatus", b"", pb.Status).peers == count
        asked = box.players["config"].asked
        assert caller.call(A + "Box/GetStatus", b"", pb.Status).peers == count
        assert box.players["config"].asked == asked + 1, "the section is read once"


def test_a_watch_shows_the_box_again_and_again() -> None:
    box = Box()
    caller = box.call()
    number = caller.begin(A + "Box/WatchStatus", pb.WatchStatusRequest(period_ms=500))
    for _ in range(4):
        box.turn(0.5)
    assert len(caller.messages(number, pb.Status)) == 5 and not caller.is_over(number)
    caller.h2.reset_stream(number)
    box.turn()
    assert caller.client.calls == 0


def test_a_domain_is_ordered_anew_by_its_number_and_not_again_soon() -> None:
    box = Box()
    caller = box.call()
    caller.call(A + "Box/RestartDomain", pb.RestartDomainRequest(name="filter"), pb.RestartDomainReply)
    assert boxpage.ordered(box.orders) == (1, 2) and box.said[-1] == ("restart", "console has filter built anew")
    with pytest.raises(Failed) as refused:
        caller.call(A + "Box/RestartDomain", pb.RestartDomainRequest(name="nope"), pb.RestartDomainReply)
    assert refused.value.code == Code.NOT_FOUND and refused.value.path == "name"
    again = pb.RestartDomainRequest(name="filter")
    with pytest.raises(Failed) as refused:
        caller.call(A + "Box/RestartDomain", again, pb.RestartDomainReply)
    assert refused.value.code == Code.RESOURCE_EXHAUSTED and 0 < refused.value.retry <= 600
    assert boxpage.ordered(box.orders)[0] == 1
    for _ in range(5):
        box.now += 600.0
        box.turn()
        caller.call(A + "Box/RestartDomain", again, pb.RestartDomainReply)
    assert boxpage.ordered(box.orders)[0] == 6


# peers, keys, rules -------------------------------------------------------------------------------------------------


def test_ten_thousand_peers_are_read_in_pages_each_once_with_what_keymgr_knows() -> None:
    box = Box()
    section = encode(peers(10_000))
    box.config.commit(section)
    box.states = [
        PeerState(
            number=n, public_key=canonical.digest(b"peer %d" % n), handshake=n, address=bytes([192, 0, 2, 1]), port=9
        )
        for n in range(1, 10_001, 3)
    ]
    caller = box.call()
    seen, token = [], ""
    for _ in range(100):
        asked = pb.ListPeersRequest(page_size=1000, page_token=token)
        reply = caller.call(A + "Peers/ListPeers", asked, pb.ListPeersReply)
        assert reply.total == 10_000 and len(reply.peers) <= 1000
        seen += reply.peers
        token = reply.next_page_token
        if not token:
            break
    assert [one.number for one in seen] == list(range(1, 10_001))
    assert seen[0].endpoint == "192.0.2.1:9" and seen[0].handshake == 1 and seen[1].endpoint == ""
    assert box.players["keymgr"].asked < 40
    asked_before = box.players["config"].asked
    assert len(caller.call(A + "Peers/ListPeers", b"", pb.ListPeersReply).peers) == 100
    assert box.players["config"].asked == asked_before + 1, "what is in force is not asked for twice"
    key = base64.b64encode(canonical.digest(b"peer 7")).decode()
    for name in ("peer7", key):
        assert caller.call(A + "Peers/GetPeer", pb.GetPeerRequest(name=name), pb.Peer).number == 7
    for name, code in (("nobody", Code.NOT_FOUND), ("", Code.INVALID_ARGUMENT)):
        with pytest.raises(Failed) as refused:
            caller.call(A + "Peers/GetPeer", pb.GetPeerRequest(name=name), pb.Peer)
        assert refused.value.code == code


def test_what_keymgr_says_of_a_number_that_is_another_peers_now_is_not_shown() -> None:
    box = Box()
    box.config.commit(encode(peers(2)))
    box.states = [PeerState(number=1, public_key=b"other" + bytes(27), handshake=5)]
    caller = box.call()
    assert [one.handshake for one in caller.call(A + "Peers/ListPeers", b"", pb.ListPeersReply).peers] == [0, 0]
    box.players["keymgr"].is_away = True
    assert len(caller.call(A + "Peers/ListPeers", b"", pb.ListPeersReply).peers) == 2


def test_keys_rules_and_counters_are_shown() -> None:
    box = Box()
    caller = box.call()
    assert caller.call(A + "Rules/GetRules", b"", pb.RulesText).revision == 0
    box.config.commit(rules=b"pass all\n")
    rules = caller.call(A + "Rules/GetRules", b"", pb.RulesText)
    assert (rules.text, rules.revision) == ("pass all\n", 1)
    keys = caller.call(A + "Keys/GetKeys", b"", pb.BoxKeys)
    assert base64.b64decode(keys.public_key) == b"P" * 32 and base64.b64decode(keys.sealing_key) == b"S" * 32
    box.hits = 1300
    counted = caller.call(A + "Rules/GetCounters", b"", pb.RuleCounters)
    assert [one.number for one in counted.rules] == list(range(1, 1301)) and counted.rules[700].packets == 700
    assert counted.digest == (b"D" * 32).hex() and counted.sums[0].what == "passed"
    box.players["keymgr"].is_away = True
    with pytest.raises(Failed) as refused:
        caller.call(A + "Keys/GetKeys", b"", pb.BoxKeys)
    assert refused.value.code == Code.UNAVAILABLE and refused.value.reason == "AWAY" and refused.value.retry > 0


# the log ------------------------------------------------------------------------------------------------------------


def test_the_log_is_queried_by_severity_domain_and_number() -> None:
    box = Box()
    for i in range(300):
        box.log(f"line {i}", severity=4 if i % 10 == 0 else 6, domain="red" if i % 2 else "black")
    caller = box.call()

    def query(**asked: Any) -> Any:
        return caller.call(A + "Audit/QueryLog", pb.QueryLogRequest(**asked), pb.LogLines)

    assert [one.text for one in query().lines] == [f"line {i}" for i in range(200)]
    assert [one.text for one in query(newest=True, lines=2).lines] == ["line 298", "line 299"]
    assert [one.number for one in query(severity=5, lines=1000).lines] == list(range(1, 301, 10))
    assert {one.domain for one in query(domain="red", lines=1000).lines} == {"red"}
    found = query(after=290)
    assert [one.number for one in found.lines] == list(range(291, 301)) and found.lost == 0
    assert len(query(after=290, life=1).lines) == 200, "that number was of another life of the log"


def test_who_follows_gets_every_line_once_also_when_the_log_was_built_anew() -> None:
    from components.log.tail import Tail

    box = Box()
    box.log("before")
    caller = box.call()
    numbers = [caller.begin(A + "Audit/FollowLog", b"") for _ in range(3)]
    for i in range(40):
        box.log(f"a{i}")
        box.turn(0.1)
    box.turn(0.5)
    box.tail = Tail(life=99)
    box.players["tail"]._answer = box.tail.answer
    for i in range(20):
        box.log(f"b{i}")
    box.turn(0.5)
    box.turn(0.5)
    for number in numbers:
        texts = [line.text for one in caller.messages(number, pb.LogLines) for line in one.lines]
        assert texts == ["before", *(f"a{i}" for i in range(40)), *(f"b{i}" for i in range(20))]
    assert box.players["tail"].asked < 150


# configuration ------------------------------------------------------------------------------------------------------


def test_a_commit_is_carried_with_its_sections_and_read_back_to_the_byte() -> None:
    box = Box()
    caller = box.call()
    section, rules = encode(peers(3000)), b"# rules\n" * 10_000
    box.config.works = 5
    chain = box.config.chain
    signed = chain.commit("console", section)
    chain.commits.clear()
    reply = submit(caller, signed, peers=section, ruleset=b"{}", rules=rules)
    assert reply.number == 1 and box.config.sections[1, 1] == section and box.config.sections[1, 3] == rules
    number = caller.begin(A + "Configuration/Download", pb.DownloadRequest(section=1))
    pieces = caller.messages(number, pb.Piece)
    assert b"".join(one.data for one in pieces) == section and {one.total for one in pieces} == {len(section)}
    head = caller.call(A + "Configuration/GetHead", b"", pb.ConfigurationHead)
    assert head.revision == 1 and head.digest == canonical.digest(signed.statement)
    asked = pb.ListHistoryRequest(chain=pb.CHAIN_COMMITS)
    (shown,) = caller.call(A + "Configuration/ListHistory", asked, pb.ListHistoryReply).statements
    assert (shown.statement, shown.signature) == (signed.statement, signed.signature)
    assert box.said[-1][0] == "submit"


def test_history_is_paged_from_the_newest() -> None:
    box = Box()
    for _ in range(7):
        box.config.commit()
    caller = box.call()

    def page(before: int) -> list[bytes]:
        asked = pb.ListHistoryRequest(chain=pb.CHAIN_COMMITS, before=before, page_size=3)
        reply = caller.call(A + "Configuration/ListHistory", asked, pb.ListHistoryReply)
        return [one.statement for one in reply.statements]

    newest_first = [one.statement for one in reversed(box.config.chain.commits)]
    assert (
        page(0) == newest_first[:3] and page(5) == newest_first[3:6] and page(2) == newest_first[6:] and page(1) == []
    )


def test_a_rehearsal_is_a_statement_of_its_own_and_changes_nothing() -> None:
    box = Box()
    box.config.chain.add("oscar", Role.OPERATOR)
    box.run(box.people.refresh())
    commit = parse(box.config.chain.commit("oscar", b"x").statement)
    box.config.chain.commits.clear()
    assert isinstance(commit, Commit)
    signed = sign(Rehearse(*commit), seed("oscar"))
    assert submit(box.call("oscar"), signed, peers=b"x").number == 1
    assert not box.config.chain.commits and box.roster_changes == 0 and not box.said


@pytest.mark.parametrize("why", list(Why))
def test_what_config_refuses_the_caller_hears_with_its_name_and_place(why: Why) -> None:
    box = Box()
    box.config.refuses = Refusal(why, "is wrong", "peers[3].name")
    signed = box.config.chain.commit("console", b"x")
    box.config.chain.commits.clear()
    with pytest.raises(Failed) as refused:
        submit(box.call(), signed)
    assert refused.value.code == CODES[why] and refused.value.reason == why.name
    assert refused.value.path == "peers[3].name" and str(refused.value) == "peers[3].name: is wrong"


def test_sections_must_be_what_the_header_says() -> None:
    box = Box()
    caller = box.call()
    signed = box.config.chain.commit("console", b"x")
    box.config.chain.commits.clear()
    header = pb.SubmitHeader(statement=signed.statement, signature=signed.signature, peers=3)
    first = pb.SubmitRequest(header=header)

    def piece(data: bytes, section: int = 1) -> Any:
        return pb.SubmitRequest(piece=pb.SubmitPiece(section=section, data=data))

    wrong: list[tuple[list[Any], str]] = [
        ([], "header"),
        ([piece(b"abc")], "header"),
        ([first, first], "header"),
        ([first, piece(b"ab")], "header.peers"),
        ([first, piece(b"abcd")], "piece.data"),
        ([first, piece(b"abc"), piece(b"d", 2)], "piece.section"),
        ([pb.SubmitRequest(header=pb.SubmitHeader(statement=b"{}", signature=bytes(64)))], "header.statement.kind"),
    ]
    for messages, path in wrong:
        number = caller.begin(A + "Configuration/Submit", *messages)
        assert caller.status(number).path == path and caller.status(number).code == Code.INVALID_ARGUMENT, path
    assert len(box.config.sections) == 0


def test_two_submissions_do_not_mix_their_sections() -> None:
    box = Box()
    box.config.works = 3
    one, two = box.call(), box.call()
    chain = box.config.chain
    chain.add("oscar", Role.OPERATOR)
    box.run(box.people.refresh())
    signed = [chain.rehearse("console", b"A" * 100_000), chain.commit("console", b"B" * 100_000)]
    chain.commits.clear()
    numbers = []
    for caller, statement, letter in ((one, signed[0], b"A"), (two, signed[1], b"B")):
        header = pb.SubmitHeader(statement=statement.statement, signature=statement.signature, peers=100_000)
        number = caller.begin(A + "Configuration/Submit", pb.SubmitRequest(header=header), end=False)
        caller.send(number, pb.SubmitRequest(piece=pb.SubmitPiece(section=1, data=letter * 50_000)))
        numbers.append(number)
    for caller, number, letter in ((two, numbers[1], b"B"), (one, numbers[0], b"A")):
        caller.send(number, pb.SubmitRequest(piece=pb.SubmitPiece(section=1, data=letter * 50_000)), end=True)
    for _ in range(20):
        box.turn(0.1)
    assert one.is_over(numbers[0]) and two.is_over(numbers[1])
    assert box.config.sections[1, 1] == b"B" * 100_000


def test_who_was_not_the_fastest_hears_so_before_config_has_work_with_it() -> None:
    box = Box()
    box.config.works = 3
    chain = box.config.chain
    rivals = []
    for name in (b"A", b"B"):
        rivals.append(chain.commit("console", name))
        chain.commits.clear()
    one, two, late = box.call(), box.call(), box.call()
    numbers = []
    for caller, signed, letter in ((one, rivals[0], b"A"), (two, rivals[1], b"B")):
        header = pb.SubmitHeader(statement=signed.statement, signature=signed.signature, peers=1)
        number = caller.begin(A + "Configuration/Submit", pb.SubmitRequest(header=header), end=False)
        piece = pb.SubmitPiece(section=1, data=letter)
        caller.send(number, pb.SubmitRequest(piece=piece), end=True)
        numbers.append(number)
    for _ in range(20):
        box.turn(0.1)
    assert one.streams[numbers[0]]["headers"]["grpc-status"] == "0"
    refused = two.status(numbers[1])
    assert (refused.code, refused.reason, refused.path) == (Code.ABORTED, "STALE", "follows")
    assert box.config.sections[1, 1] == b"A" and len(chain.commits) == 1
    header = pb.SubmitHeader(statement=rivals[1].statement, signature=rivals[1].signature, peers=4 << 20)
    asked = box.players["config"].asked
    number = late.begin(A + "Configuration/Submit", pb.SubmitRequest(header=header), end=False)
    assert late.status(number).reason == "STALE" and late.is_over(number), "before its sections come"
    assert box.players["config"].asked == asked


def test_hundreds_who_come_too_late_are_told_so_at_once() -> None:
    async def one(name: int) -> None:
        async with lock:
            told.append(name)
            if name in (0, 250):
                await clock.sleep(1.0)

    lock, clock, told = Lock(), Clock(), []
    tasks = [Task(one(name), ended.append) for ended in [[]] for name in range(500)]
    for task in tasks:
        task.step()
    assert told == [0]
    clock.turn(1.0)
    assert told == list(range(251)), "in the order in which they came, until one of them waits"
    tasks[300].cancel()
    clock.turn(2.0)
    assert told == [*range(300), *range(301, 500)]
    again = Task(one(1000), told.append)
    again.step()
    assert told[-2:] == [1000, None], "nobody holds it any more"


# administrators -----------------------------------------------------------------------------------------------------


def enrolling(box: Box, name: str) -> tuple[pb.EnrollRequest, Any]:
    signed = box.config.chain.enroll(name)
    key = authority.new_key()
    return pb.EnrollRequest(statement=signed.statement, signature=signed.signature, request=request_for(key)), key


def test_an_invited_administrator_is_enrolled_once_and_calls_with_his_certificate() -> None:
    box = Box()
    submit(box.call(), box.config.chain.invite("vera", Role.VIEWER))
    nobody = box.call("")
    who = nobody.call(A + "Enrollment/WhoAmI", b"", pb.Identity)
    assert who.name == "" and who.serial == 1 and who.roster_digest == box.config.chain.roster.digest
    request, key = enrolling(box, "vera")
    issued = nobody.call(A + "Enrollment/Enroll", request, pb.Certificate)
    pems = issued.chain.split("-----END CERTIFICATE-----\n")
    assert len(pems) == 4 and box.config.chain.roster.find("vera") is not None
    vera = Caller(box, (issued.chain, authority.key_pem(key)), "192.0.2.77")
    box.callers.append(vera)
    box.turn()
    assert vera.call(A + "Enrollment/WhoAmI", b"", pb.Identity).role == "viewer"
    renewed = vera.call(
        A + "Enrollment/Renew", pb.RenewRequest(request=request_for(authority.new_key())), pb.Certificate
    )
    assert renewed.chain != issued.chain
    # The statement is in the roster for all to read: whoever repeats it gets nothing
    with pytest.raises(Failed) as refused:
        nobody.call(A + "Enrollment/Enroll", request, pb.Certificate)
    assert refused.value.code == Code.ABORTED and refused.value.reason == "STALE"


def test_a_bad_request_for_a_certificate_does_not_use_an_invitation_up() -> None:
    box = Box()
    submit(box.call(), box.config.chain.invite("vera", Role.VIEWER))
    request, _ = enrolling(box, "vera")
    nobody = box.call("")
    good = bytearray(request.request)
    good[-3] ^= 1
    for bad in (b"x", bytes(good), request.request[:-1]):
        asked = pb.EnrollRequest(statement=request.statement, signature=request.signature, request=bad)
        with pytest.raises(Failed) as refused:
            nobody.call(A + "Enrollment/Enroll", asked, pb.Certificate)
        assert refused.value.code == Code.INVALID_ARGUMENT and refused.value.path == "request"
    assert box.config.chain.roster.serial == 1
    nobody.call(A + "Enrollment/Enroll", request, pb.Certificate)


def test_strangers_hand_few_statements_over_wherever_they_come_from() -> None:
    box = Box()
    request = pb.EnrollRequest(statement=b"{}", signature=bytes(64), request=b"x")
    codes = []
    for i in range(60):
        caller = box.call("", source=f"192.0.2.{i % 10}")
        number = caller.begin(A + "Enrollment/Enroll", request)
        codes.append(caller.status(number).code)
    let_in = [code for code in codes if code != Code.RESOURCE_EXHAUSTED]
    assert len(let_in) == ENROLL_RATE_OF_ALL[1] and set(let_in) == {Code.INVALID_ARGUMENT}
    box.turn(60.0)
    caller = box.call("")
    codes = [caller.status(caller.begin(A + "Enrollment/Enroll", request)).code for _ in range(15)]
    assert codes.count(Code.INVALID_ARGUMENT) == ENROLL_RATE[1], "one source does not take it all"
    other = box.call("", source="192.0.2.200")
    assert other.status(other.begin(A + "Enrollment/Enroll", request)).code == Code.INVALID_ARGUMENT


def test_an_administrator_does_not_fill_the_log_by_what_he_may_not_and_by_renewing() -> None:
    box = Box()
    box.config.chain.add("vera", Role.VIEWER)
    box.run(box.people.refresh())
    vera = box.call("vera")
    renew = pb.RenewRequest(request=request_for(authority.new_key()))
    for _ in range(40):
        vera.begin(A + "Box/RestartDomain", pb.RestartDomainRequest(name="rng"))
        vera.call(A + "Enrollment/Renew", renew, pb.Certificate)
    events = [event for event, _ in box.said]
    assert events.count("refused") == events.count("renew") == REMARK_RATE[1]
    box.turn(5.0)
    vera.begin(A + "Box/RestartDomain", pb.RestartDomainRequest(name="rng"))
    assert box.said[-1][0] == "refused" and len(box.said) == 2 * REMARK_RATE[1] + 1


def test_who_may_call_is_not_known_before_config_has_said_so() -> None:
    box = Box()
    box.config.chain.add("vera", Role.VIEWER)
    box.people.is_known = False
    vera = box.call("vera")
    with pytest.raises(Failed) as refused:
        vera.call(A + "Box/GetVersion", b"", pb.Version)
    assert refused.value.code == Code.UNAVAILABLE and not vera.client.is_over
    box.run(box.people.refresh())
    vera.call(A + "Box/GetVersion", b"", pb.Version)


def test_a_certificate_of_no_administrator_is_none() -> None:
    box = Box()
    chain, key = certificate_of("stranger")
    caller = Caller(box, (chain, key), "192.0.2.9")
    box.callers.append(caller)
    box.turn()
    number = caller.begin(A + "Enrollment/WhoAmI", b"")
    assert caller.status(number).code == Code.UNAUTHENTICATED and caller.client.offence


# gRPC's own ---------------------------------------------------------------------------------------------------------


def test_health_is_checked_and_watched() -> None:
    box = Box()
    caller = box.call("")
    kind, request = health_pb2.HealthCheckResponse, health_pb2.HealthCheckRequest
    assert caller.call("/grpc.health.v1.Health/Check", request(), kind).status == kind.SERVING
    assert (
        caller.call("/grpc.health.v1.Health/Check", request(service="septum.admin.v1.Box"), kind).status == kind.SERVING
    )
    with pytest.raises(Failed) as refused:
        caller.call("/grpc.health.v1.Health/Check", request(service="nope"), kind)
    assert refused.value.code == Code.NOT_FOUND
    number = caller.begin("/grpc.health.v1.Health/Watch", request())
    box.people.is_known = False
    box.turn(6.0)
    assert [one.status for one in caller.messages(number, kind)] == [kind.SERVING, kind.NOT_SERVING]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_the_service_with_its_bounds(version: str) -> None:
    box = Box()
    caller = box.call("")
    ask, kind = reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
    number = caller.begin(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", end=False)
    for asked in (
        ask(list_services=""),
        ask(file_containing_symbol="septum.admin.v1.Configuration"),
        ask(file_by_filename="septum/admin/v1/admin.proto"),
        ask(all_extension_numbers_of_type="google.protobuf.FieldOptions"),
        ask(file_containing_symbol="nope.nope"),
        ask(),
    ):
        caller.send(number, asked)
    listed, symbol, named, extensions, unknown, empty = caller.messages(number, kind)
    assert "septum.admin.v1.Box" in [one.name for one in listed.list_services_response.service]
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(f) for f in symbol.file_descriptor_response.file_descriptor_proto
    ]
    assert {"septum/admin/v1/admin.proto", "septum/v1/options.proto"} <= {one.name for one in files}
    assert (
        named.file_descriptor_response.file_descriptor_proto
        and 50001 in extensions.all_extension_numbers_response.extension_number
    )
    assert (
        unknown.error_response.error_code == Code.NOT_FOUND and empty.error_response.error_code == Code.INVALID_ARGUMENT
    )


def test_each_thing_that_reflection_is_asked_for_counts() -> None:
    box = Box()
    caller = box.call("")
    number = caller.begin("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", end=False)
    for _ in range(40):
        caller.send(number, reflection_pb2.ServerReflectionRequest(list_services=""))
    refused = caller.status(number)
    assert caller.is_over(number) and refused.code == Code.RESOURCE_EXHAUSTED and refused.reason == "RATE"
    most = int(UNKNOWN_RATE[1])
    assert len(caller.messages(number, reflection_pb2.ServerReflectionResponse)) == most


# what a hostile statement, or half a roster, may do -----------------------------------------------------------------


def test_text_that_is_none_kills_nobody() -> None:
    box = Box()
    nobody = box.call("")
    statement = rb'{"\ud800":1,"kind":"enroll"}'
    asked = pb.EnrollRequest(statement=statement, signature=bytes(64), request=b"x")
    with pytest.raises(Failed) as refused:
        nobody.call(A + "Enrollment/Enroll", asked, pb.Certificate)
    assert refused.value.code == Code.INVALID_ARGUMENT
    assert nobody.call(A + "Enrollment/WhoAmI", b"", pb.Identity).box
    assert _percent("\ud800%\n\u00fc") == "?%25%0A%C3%BC"


def test_a_roster_that_has_not_changed_is_not_made_again_and_another_one_is() -> None:
    box = Box()
    box.config.chain.add("vera", Role.VIEWER)
    box.run(box.people.refresh())
    before, asked = box.people.roster, box.players["config"].asked
    box.run(box.people.refresh())
    assert box.people.roster is before and box.players["config"].asked == asked + 1
    box.config.chain = box.config.chain.__class__()
    box.config.chain.add("oscar", Role.OPERATOR)
    box.run(box.people.refresh())
    assert box.people.roster.serial == before.serial and box.people.roster.find("oscar")
    assert not box.people.roster.find("vera"), "another store was put in: what is known comes from it alone"


def test_nobody_is_anybody_by_half_a_roster() -> None:
    """A reborn admin, and a config that goes away in the midst: who was revoked later on is not heard meanwhile."""
    box = Box()
    chain = box.config.chain
    chain.add("oscar", Role.OPERATOR)
    chain.take(chain.revoke("oscar"))
    people = box.people
    fresh = people.__class__(people._trust, box.world.holding)
    box.service._world = box.service._world._replace(people=fresh)
    player, answered = box.players["config"], 0

    def answer(request: Any) -> Any:
        nonlocal answered
        answered += 1
        player.is_away = answered >= 3  # the head, and two statements
        return box.config.answer(request)

    player._answer = answer
    with pytest.raises(RpcError):
        box.run(fresh.refresh())
    assert fresh.roster.serial == 0 and not fresh.is_known
    oscar, console = box.call("oscar"), box.call()
    with pytest.raises(Failed) as refused:
        oscar.call(A + "Box/GetVersion", b"", pb.Version)
    assert refused.value.code == Code.UNAVAILABLE
    console.call(A + "Box/GetVersion", b"", pb.Version)
    player.is_away, player._answer = False, box.config.answer
    box.run(fresh.refresh())
    with pytest.raises(Failed) as refused:
        oscar.call(A + "Box/GetVersion", b"", pb.Version)
    assert refused.value.code == Code.UNAUTHENTICATED and refused.value.reason == "REVOKED"
