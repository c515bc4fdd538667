"""Bytes and messages: our codecs against protobuf's own, and what comes out of hostile bytes."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import pytest
from google.protobuf.message import Message as Theirs
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.vchan.codec import Codec
from appliance.vchan.generate import schema_names
from appliance.vchan.message import Message
from appliance.vchan.messages import FLAT, Datagrams, Frames, Packets
from appliance.vchan.schema import FieldRule, MessageRule, Type, schema
from appliance.vchan.wireformat import Violation

RULES = [rule for name in schema_names() for rule in (schema(name).forward, schema(name).backward) if rule is not None]
FLAT_RULES = [rule for rule in RULES if rule.name in FLAT]

by_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
by_flat_rule = pytest.mark.parametrize("rule", FLAT_RULES, ids=lambda rule: rule.name)


# legal messages of any rule


def integers(field: FieldRule) -> st.SearchStrategy[int]:
    if field.enum_values is not None:
        return st.sampled_from(sorted(v for v in field.enum_values if field.low <= v <= field.high))
    return st.one_of(st.integers(field.low, field.high), st.sampled_from([field.low, field.high]))


def values(field: FieldRule) -> st.SearchStrategy[Any]:
    if field.message is not None:
        return messages(field.message)
    if field.type == Type.STRING:
        characters = st.characters(max_codepoint=0x7F)
        return st.text(characters, min_size=field.low, max_size=min(field.high, 80))
    if field.type == Type.BYTES:
        small = st.binary(min_size=field.low, max_size=min(field.high, field.low + 80))
        return st.one_of(small, st.sampled_from([bytes(field.low), b"\xff" * field.high]))
    if field.type == Type.BOOL:
        return st.booleans()
    return integers(field)


@st.composite
def messages(draw: st.DrawFn, rule: MessageRule) -> Message:
    chosen = {draw(st.sampled_from(members)) for members in rule.oneofs.values()}
    skipped = {name for members in rule.oneofs.values() for name in members} - chosen
    found = {}
    for field in rule.fields:
        if field.name in skipped:
            continue
        if field.max_items is not None:
            found[field.name] = draw(st.lists(values(field), max_size=min(field.max_items, 4)))
        else:
            found[field.name] = draw(values(field))
    return rule.message_class(**found)


def flat_of(rule: MessageRule, message: Any) -> Any:
    return FLAT[rule.name](*(getattr(message, field.name) for field in rule.fields))


# protobuf's own, as protoc generates it


def their_class(rule: MessageRule) -> type[Theirs]:
    module = importlib.import_module(rule.message_class.__module__ + "_pb2")
    found: type[Theirs] = getattr(module, rule.message_class.__name__)
    return found


def theirs_of(rule: MessageRule, message: Message) -> Theirs:
    def item(field: FieldRule, value: Any) -> Any:
        return value if field.message is None else theirs_of(field.message, value)

    found = {}
    for field in rule.fields:
        if hasattr(message, field.name):
            value = getattr(message, field.name)
            found[field.name] = item(field, value) if field.max_items is None else [item(field, one) for one in value]
    return their_class(rule)(**found)


def ours_of(rule: MessageRule, message: Theirs) -> Message:
    def item(field: FieldRule, value: Any) -> Any:
        return value if field.message is None else ours_of(field.message, value)

    found = {}
    for field in rule.fields:
        if not field.has_presence or message.HasField(field.name):
            value = getattr(message, field.name)
            found[field.name] = item(field, value) if field.max_items is None else [item(field, one) for one in value]
    return rule.message_class(**found)


# legal messages


@by_rule
def test_legal_messages_survive_the_round_trip(rule: MessageRule) -> None:
    codec = Codec(rule)

    @settings(max_examples=60, deadline=None)
    @given(messages(rule))
    def check(message: Message) -> None:
        ours = flat_of(rule, message) if rule.name in FLAT else message
        encoded = b"".join(codec.encode(ours))
        assert encoded == theirs_of(rule, message).SerializeToString(deterministic=True)
        assert len(encoded) <= rule.max_bytes
        assert codec.decode(encoded) == ours

    check()


@by_flat_rule
def test_a_received_blob_is_a_view_of_the_one_copy_and_a_sent_one_is_not_copied(rule: MessageRule) -> None:
    codec = Codec(rule)
    blob = bytes(range(200))
    kind = FLAT[rule.name]
    rest = {Packets: (40, 7), Datagrams: (40, b"\x7f\0\0\1", 51820), Frames: (40, b"\2" * 14)}[kind]
    pieces = codec.encode(kind(blob, *rest))
    assert any(piece is blob for piece in pieces)
    encoded = b"".join(pieces)
    received = codec.decode(encoded)[0]
    assert received.obj is encoded
    assert received.readonly


def test_blobs_may_be_any_buffer() -> None:
    codec = Codec(schema("packets").forward)
    want = b"".join(codec.encode(Packets(b"\x45" * 64, 32)))
    for blob in (bytearray(b"\x45" * 64), memoryview(b"\x45" * 64), memoryview(b"\x45" * 64).cast("I")):
        assert b"".join(codec.encode(Packets(blob, 32))) == want


# our own mistakes


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Packets(bytes(19), 20), "packets"),
        (Packets(bytes(65536), 20), "packets"),
        (Packets(bytes(20), 19), "size"),
        (Packets(bytes(20), 65536), "size"),
        (Packets(bytes(20), -1), "size"),
        (Packets(bytes(20), 20, 65536), "peer"),
        (Datagrams(bytes(32), 32, bytes(3), 1), "address"),
        (Datagrams(bytes(32), 32, bytes(17), 1), "address"),
        (Datagrams(bytes(32), 32, bytes(4), 0), "port"),
        (Datagrams(bytes(32), 31, bytes(4), 1), "size"),
        (Datagrams(bytes(31), 32, bytes(4), 1), "datagrams"),
    ],
)
def test_a_message_that_breaks_its_bounds_is_not_encoded(message: Packets | Datagrams, field: str) -> None:
    codec = Codec(schema(type(message).__name__.lower()).forward)
    with pytest.raises(Violation, match=field) as caught:
        codec.encode(message)
    assert caught.value.path == field


def test_a_message_of_another_kind_is_not_encoded() -> None:
    packets, records = Codec(schema("packets").forward), Codec(schema("records").forward)
    with pytest.raises(TypeError, match="Packets"):
        packets.encode((bytes(20), 20, 0))
    with pytest.raises(TypeError, match="Record"):
        records.encode(Packets(bytes(20), 20))


# hostile bytes


def judged(rule: MessageRule, codec: Codec, untrusted: bytes) -> None:
    """Nothing but Violation, and whatever is taken means what protobuf says it means."""
    try:
        message = codec.decode(untrusted)
    except Violation:
        return
    theirs = their_class(rule).FromString(untrusted)
    assert message == (flat_of(rule, theirs) if rule.name in FLAT else ours_of(rule, theirs))
    assert theirs.SerializeToString(deterministic=True) == untrusted == b"".join(codec.encode(message))


@by_rule
def test_random_bytes(rule: MessageRule) -> None:
    codec = Codec(rule)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=300))
    def check(untrusted: bytes) -> None:
        judged(rule, codec, untrusted)

    check()


@by_rule
def test_mutated_messages(rule: MessageRule) -> None:
    codec = Codec(rule)
    edits = st.lists(st.tuples(st.integers(0, 400), st.sampled_from("sdi"), st.integers(0, 255)), max_size=4)

    @settings(max_examples=200, deadline=None)
    @given(messages(rule), edits)
    def check(message: Message, edits: list[tuple[int, str, int]]) -> None:
        bytes_ = bytearray(theirs_of(rule, message).SerializeToString())
        for place, kind, byte in edits:
            at = place % (len(bytes_) + 1)
            bytes_[at : at + (kind != "i")] = b"" if kind == "d" else bytes((byte,))
        judged(rule, codec, bytes(bytes_))

    check()


@by_rule
def test_pieces_of_wire_format_in_any_order(rule: MessageRule) -> None:
    """Valid fields, repeated, reordered, with long varints and unknown numbers: accepted only where canonical."""
    codec = Codec(rule)
    varint = st.sampled_from([b"\0", b"\x01", b"\x20", b"\x40", b"\x80\0", b"\xa0\0", b"\xff\xff\x03", b"\xff" * 10])
    integer = st.builds(lambda n, v: bytes((n << 3,)) + v, st.integers(1, 5), varint)
    blob = st.builds(lambda n, v: bytes((n << 3 | 2, len(v))) + v, st.integers(1, 5), st.binary(max_size=40))

    @settings(max_examples=400, deadline=None)
    @given(st.lists(st.one_of(integer, blob), max_size=5))
    def check(pieces: list[bytes]) -> None:
        judged(rule, codec, b"".join(pieces))

    check()


@functools.cache
def legal(name: str) -> bytes:
    codec = Codec(schema(name).forward)
    if name == "packets":
        return b"".join(codec.encode(Packets(bytes(30), 20, 3)))
    return b"".join(codec.encode(Datagrams(bytes(40), 32, b"\x0a\0\0\1", 51820)))


PACKETS = legal("packets")  # 0a 1e <30 bytes> 10 14 18 03


@pytest.mark.parametrize(
    ("untrusted", "why"),
    [
        (PACKETS[:-1], "middle"),
        (PACKETS[:-2] + b"\x18\x83\x00", "longer than it need be"),
        (PACKETS[:-2] + b"\x18\x00", "spelled out"),
        (PACKETS[:-2] + b"\x18" + b"\xff" * 10 + b"\x01", "64 bits"),
        (PACKETS[:-2] + b"\x18\x80\x80\x04", "65536, not 0 to 65535"),
        (PACKETS + b"\x18\x03", "repeated or misplaced"),
        (PACKETS + b"\x20\x01", "unknown"),
        (PACKETS[:32] + b"\x18\x03\x10\x14", "size: 0, not 20"),
        (PACKETS[:32], "size: 0, not 20"),
        (PACKETS[32:], "packets: 0 bytes"),
        (b"\x0a\x1f" + PACKETS[2:32], "31 bytes, but only 30"),
        (b"\x0a\x13" + bytes(19) + b"\x10\x14", "19 bytes, not 20"),
        (b"\x08\x1e" + PACKETS[2:], "packets: 0 bytes"),
        (b"", "packets: 0 bytes"),
        (bytes(65548), "65548 bytes, at most 65547"),
    ],
)
def test_what_the_flat_parser_says(untrusted: bytes, why: str) -> None:
    with pytest.raises(Violation, match=why):
        Codec(schema("packets").forward).decode(untrusted)


def test_unknown_fields_are_refused_at_any_depth() -> None:
    from septum.v1.sending import SendForget, SendOrder

    codec = Codec(schema("sending").forward)
    assert codec.decode(b"\x2a\x02\x08\x01") == SendOrder(forget=SendForget(peer=1))
    with pytest.raises(Violation, match="forget: unknown, repeated or misplaced field at byte 4"):
        codec.decode(b"\x2a\x04\x08\x01\x48\x01")
    with pytest.raises(Violation, match=r"^unknown, repeated or misplaced field at byte 4"):
        codec.decode(b"\x2a\x02\x08\x01\x48\x01")


def test_too_many_items_are_not_encoded() -> None:
    from septum.v1.sending import SendOrder, SendPeer, SendPrefix

    codec = Codec(schema("sending").forward)
    order = SendOrder(peer=SendPeer(peer=1, allowed_ips=[SendPrefix(address=bytes(4), bits=8)] * 1025))
    with pytest.raises(Violation, match=r"peer\.allowed_ips: 1025 items, not 0 to 1024"):
        codec.encode(order)
    order.peer.allowed_ips[7:] = [SendPrefix(address=bytes(4), bits=129)]
    with pytest.raises(Violation, match=r"peer\.allowed_ips\[7\]\.bits: 129, not 0 to 128"):
        codec.encode(order)


def test_of_a_oneof_exactly_one_is_set() -> None:
    codec = Codec(schema("sending").forward)
    for untrusted, why in ((b"", "order: nothing is set"), (b"\x22\x02\x08\x01\x2a\x02\x08\x01", "more than one")):
        with pytest.raises(Violation, match=why):
            codec.decode(untrusted)


def test_a_field_of_another_type_is_not_encoded() -> None:
    from septum.v1.sending import SendForget, SendKeepalive, SendOrder

    codec = Codec(schema("sending").forward)
    wrong: Any = SendKeepalive(peer=1)
    number: Any = 1.5
    for order in (SendOrder(forget=wrong), SendOrder(forget=SendForget(peer=number))):
        with pytest.raises(TypeError, match="cannot be of type"):
            codec.encode(order)


def test_messages_do_not_show_their_bytes_and_what_is_absent_cannot_be_read() -> None:
    from septum.v1.sending import SendOrder, SendSession

    order = SendOrder(session=SendSession(peer=7, key=b"K" * 32))
    assert order.WhichOneof("order") == "session"
    assert "key=<32 bytes>" in repr(order) and "KKK" not in repr(order)
    with pytest.raises(AttributeError, match="peer"):
        _ = order.peer
    assert order != SendOrder(session=SendSession(peer=7, key=b"k" * 32))
    assert order != order.session
