"""Bounds: every field of every message has one, and what is out of it is refused with the path of the field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from septum.admin.v1 import admin_pb2 as pb
from septum.v1 import options_pb2

from components.admin.bounds import Bounds, fields
from components.admin.status import Code, RpcError

REQUESTS = [m.input_type for s in pb.DESCRIPTOR.services_by_name.values() for m in s.methods]


def bounds() -> Bounds:
    made = Bounds()
    for kind in REQUESTS:
        made.learn(kind)
    return made


def ways(kind: Any, before: tuple[FieldDescriptor, ...] = ()) -> list[tuple[FieldDescriptor, ...]]:
    """Every way from a message to a field that is none."""
    found = []
    for field in kind.fields:
        way = (*before, field)
        found += ways(field.message_type, way) if field.message_type is not None else [way]
    return found


CASES = [(kind, way) for kind in dict.fromkeys(REQUESTS) for way in ways(kind)]


def filled(kind: Any, way: tuple[FieldDescriptor, ...], value: Any) -> Any:
    """A request within its bounds everywhere but at the end of ``way``."""
    request = getattr(pb, kind.name)()
    at = request
    for field in way[:-1]:
        at = getattr(at, field.name)
    _fill(at)
    if kind is not at.DESCRIPTOR:
        at.SetInParent()
    setattr(at, way[-1].name, value)
    return request


def _fill(message: Any) -> None:
    for field in message.DESCRIPTOR.fields:
        rule = field.GetOptions().Extensions[options_pb2.rule]
        if field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, field.name, bytes(rule.min_bytes))
        elif field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, "x" * rule.min_bytes)
        elif field.message_type is None:
            setattr(message, field.name, type(getattr(message, field.name))(rule.min))


@pytest.mark.parametrize(
    ("kind", "way"), CASES, ids=lambda case: case.name if hasattr(case, "name") else ".".join(f.name for f in case)
)
def test_a_field_is_held_to_its_bound_and_named(kind: Any, way: tuple[FieldDescriptor, ...]) -> None:
    check = bounds().check
    field = way[-1]
    path = ".".join(one.name for one in way)
    rule = field.GetOptions().Extensions[options_pb2.rule]
    good: list[Any]
    bad: list[Any]
    if field.type == FieldDescriptor.TYPE_BYTES:
        good, bad = [bytes(rule.min_bytes), bytes(rule.max_bytes)], [bytes(rule.max_bytes + 1)]
        bad += [bytes(rule.min_bytes - 1)] if rule.min_bytes else []
    elif field.type == FieldDescriptor.TYPE_STRING:
        good, bad = ["x" * rule.max_bytes], ["x" * (rule.max_bytes + 1), "ü" * (rule.max_bytes // 2 + 1)]
        bad += [""] if rule.min_bytes else []
    elif field.type == FieldDescriptor.TYPE_BOOL:
        good, bad = [True, False], []
    else:
        widest = 2**64 - 1 if field.type == FieldDescriptor.TYPE_UINT64 else 2**31 - 1
        good, bad = [rule.min, rule.max], [rule.max + 1] if rule.max < widest else []
        bad += [rule.min - 1] if rule.min else []
    for value in good:
        check(filled(kind, way, value))
    for value in bad:
        with pytest.raises(RpcError) as refused:
            check(filled(kind, way, value))
        assert refused.value.code == Code.INVALID_ARGUMENT and refused.value.path == path, value


def test_every_field_has_a_bound() -> None:
    seen = {field.full_name for kind in REQUESTS for field in fields(kind)}
    assert len(seen) > 25
    with pytest.raises(ValueError, match="has no bound"):
        Bounds().learn(DescriptorProto.DESCRIPTOR)


def test_a_field_that_this_box_does_not_know_is_not_passed_over() -> None:
    request = pb.ListPeersRequest.FromString(pb.GetPeerRequest(name="alice").SerializeToString() + b"\xa0\x06\x01")
    with pytest.raises(RpcError, match="older than yours"):
        bounds().check(request)
    piece = pb.SubmitRequest(piece=pb.SubmitPiece(section=1, data=b"x")).SerializeToString()
    inner = pb.SubmitRequest.FromString(piece[:1] + bytes([piece[1] + 3]) + piece[2:] + b"\xa0\x06\x01")
    with pytest.raises(RpcError) as refused:
        bounds().check(inner)
    assert refused.value.path == "piece"
