"""Every call x role, through TLS and HTTP/2: who may is let in, who may not is told so and nothing else happens."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import message_factory
from septum.admin.v1 import admin_pb2 as pb

from appliance.signed.statements import Role
from components.admin.roles import NEEDS, Need
from components.admin.status import Code
from tests.unit.admin.box import Box, Failed

PEOPLE = {"": Need.ANYBODY, "vera": Need.VIEWER, "oscar": Need.OPERATOR, "console": Need.SECURITY_OFFICER}
REFUSALS = {int(Code.PERMISSION_DENIED), int(Code.UNAUTHENTICATED)}


def box() -> Box:
    made = Box()
    made.config.chain.add("vera", Role.VIEWER)
    made.config.chain.add("oscar", Role.OPERATOR)
    made.config.commit()
    made.run(made.people.refresh())
    return made


def asked_well() -> dict[str, Any]:
    """For each call a request that is within bounds, where an empty one is not."""
    signed = {"statement": b"{}", "signature": bytes(64)}
    return {
        "/septum.admin.v1.Box/WatchStatus": pb.WatchStatusRequest(period_ms=1000),
        "/septum.admin.v1.Box/RestartDomain": pb.RestartDomainRequest(name="rng"),
        "/septum.admin.v1.Peers/GetPeer": pb.GetPeerRequest(name="alice"),
        "/septum.admin.v1.Rules/ExplainPacket": pb.ExplainPacketRequest(raw=b"x"),
        "/septum.admin.v1.Rules/DiffRules": pb.DiffRulesRequest(header=pb.DiffRulesHeader(before=1)),
        "/septum.admin.v1.Configuration/ListHistory": pb.ListHistoryRequest(chain=1),
        "/septum.admin.v1.Configuration/Download": pb.DownloadRequest(section=1),
        "/septum.admin.v1.Configuration/Submit": pb.SubmitRequest(header=pb.SubmitHeader(**signed)),
        "/septum.admin.v1.Enrollment/Enroll": pb.EnrollRequest(**signed, request=b"x"),
        "/septum.admin.v1.Enrollment/Renew": pb.RenewRequest(request=b"x"),
    }


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("path", sorted(NEEDS))
def test_a_call_is_let_in_by_role_alone(path: str, name: str) -> None:
    world = box()
    caller = world.call(name)
    request = asked_well().get(path, b"")
    number = caller.begin(path, request, end=not path.endswith("ServerReflectionInfo"))
    world.turn(0.1)
    if PEOPLE[name] >= NEEDS[path]:
        if caller.is_over(number):
            assert caller.status(number).code not in REFUSALS, caller.status(number)
        else:
            assert caller.streams[number]["headers"].get(":status") == "200"
    else:
        refusal = caller.status(number)
        assert caller.is_over(number) and refusal.code in REFUSALS
        assert refusal.code == (Code.PERMISSION_DENIED if name else Code.UNAUTHENTICATED)
        assert refusal.reason == ("NOT_PERMITTED" if name else "NO_CERTIFICATE")
        assert not caller.messages(number, pb.Version)
    assert bytes(world.orders[:8]) == (b"\1" + bytes(7) if "Restart" in path and PEOPLE[name] >= 2 else bytes(8))


def test_every_call_of_the_service_is_in_the_table_and_no_other() -> None:
    calls = {
        f"/{service.full_name}/{method.name}"
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert calls == {path for path in NEEDS if path.startswith("/septum.")}
    assert set(box().service.methods) == set(NEEDS)


def test_what_changes_nothing_is_all_that_a_viewer_may() -> None:
    changing = {"RestartDomain", "Submit"}
    for path, need in NEEDS.items():
        if path.rpartition("/")[2] in changing:
            assert need >= Need.OPERATOR


@pytest.mark.parametrize(
    "path", ["/nothing", "/", "/septum.admin.v1.Box/", "/septum.admin.v1.Box/__init__", "*" * 5000]
)
def test_what_is_no_call_is_said_to_be_none(path: str) -> None:
    caller = box().call()
    number = caller.begin(path, b"")
    assert caller.status(number).code == Code.UNIMPLEMENTED


def test_an_operator_hands_over_no_statement_of_the_roster() -> None:
    world = box()
    signed = world.config.chain.invite("mallory", Role.SECURITY_OFFICER, by="oscar")
    header = pb.SubmitHeader(statement=signed.statement, signature=signed.signature)
    with pytest.raises(Failed) as refused:
        world.call("oscar").call(
            "/septum.admin.v1.Configuration/Submit", pb.SubmitRequest(header=header), pb.SubmitReply
        )
    assert refused.value.code == Code.PERMISSION_DENIED and world.config.chain.roster.serial == 4


def test_who_is_revoked_is_not_heard_any_more_and_his_connections_end() -> None:
    world = box()
    vera, other = world.call("vera"), world.call("vera")
    watching = other.begin("/septum.admin.v1.Box/WatchStatus", pb.WatchStatusRequest(period_ms=1000))
    assert vera.call("/septum.admin.v1.Enrollment/WhoAmI", pb.WhoAmIRequest(), pb.Identity).role == "viewer"
    signed = world.config.chain.revoke("vera")
    header = pb.SubmitHeader(statement=signed.statement, signature=signed.signature)
    reply = world.call().call("/septum.admin.v1.Configuration/Submit", pb.SubmitRequest(header=header), pb.SubmitReply)
    assert reply.number == 5 and world.roster_changes == 1
    number = vera.begin("/septum.admin.v1.Box/GetVersion", b"")
    assert vera.status(number).code == Code.UNAUTHENTICATED and vera.status(number).reason == "REVOKED"
    assert vera.client.is_over and not other.is_over(watching), "the shell dismisses those who wait: test_shell"


def test_names_of_messages_are_those_of_the_schema() -> None:
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            assert message_factory.GetMessageClass(method.input_type) is getattr(pb, method.input_type.name)
