"""The schemas that there are, and what a .proto must not do to become one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.message import Message as Theirs
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc
from septum.v1 import options_pb2

from appliance.vchan import layout
from appliance.vchan.codec import Codec
from appliance.vchan.frame import frame_bytes
from appliance.vchan.generate import schema_names, source
from appliance.vchan.layout import Orders
from appliance.vchan.message import Message
from appliance.vchan.schema import Kind, MessageRule, Schema, SchemaError, Type, WhenFull, schema
from appliance.vchan.structured import Structured
from appliance.vchan.wireformat import Violation

PROTO = Path(options_pb2.__file__).parents[2]
NAMES = list(schema_names())


def test_every_proto_is_a_schema() -> None:
    files = {path.stem for path in (PROTO / "septum/v1").glob("*.proto")} - {"options"}
    assert set(NAMES) == files
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_frames_fit_their_rings(name: str) -> None:
    shape = schema(name)
    assert shape.name == name
    layout.check(shape.orders)
    assert frame_bytes(shape.forward.max_bytes) <= 1 << shape.orders.left
    if shape.backward is None:
        assert shape.kind is Kind.STREAM
        assert shape.orders.right == 10
    else:
        assert shape.kind is Kind.CALL
        assert 2 * frame_bytes(shape.backward.max_bytes) <= 1 << shape.orders.right
        assert shape.orders.right == 10 or 2 * frame_bytes(shape.backward.max_bytes) > 1 << shape.orders.right - 1


def largest(rule: MessageRule, pick: tuple[str, ...]) -> Message:
    """The message with every field at its bound, and the fields ``pick`` of its oneofs."""
    found: dict[str, object] = {}
    alternatives = {name for members in rule.oneofs.values() for name in members}
    for field in rule.fields:
        if field.name in alternatives and field.name not in pick:
            continue
        if field.message is not None:
            value: object = largest(field.message, ())
        elif field.type == Type.BYTES:
            value = b"\xff" * field.high
        elif field.type == Type.STRING:
            value = "x" * field.high
        else:
            value = field.high
        found[field.name] = value if field.max_items is None else [value] * field.max_items
    return rule.message_class(**found)


@pytest.mark.parametrize("name", NAMES)
def test_max_bytes_is_the_size_of_the_largest_legal_message(name: str) -> None:
    for rule in filter(None, (schema(name).forward, schema(name).backward)):
        biggest = [largest(rule, pick) for pick in itertools.product(*rule.oneofs.values())]
        encoder = Structured(rule)
        assert max(len(encoder.encode(message)[0]) for message in biggest) == rule.max_bytes


def test_labels_are_those_of_all_fields_at_any_depth() -> None:
    assert schema("random").forward.labels == {"CONTROL"}
    assert schema("random").labels == {"CONTROL", "KEY"}
    assert schema("sending").forward.labels == {"CONTROL", "BLACK", "KEY"}
    assert schema("packets").labels == {"RED", "CONTROL"}
    assert schema("records").labels == {"PUBLIC"}


def test_shapes() -> None:
    packets, blobs = schema("packets"), schema("blobs")
    assert (packets.kind, packets.when_full, packets.orders) == (Kind.STREAM, WhenFull.DROP, Orders(19, 10))
    assert (blobs.kind, blobs.when_full, blobs.orders) == (Kind.CALL, WhenFull.BLOCK, Orders(17, 18))
    assert blobs.backward is not None
    assert blobs.backward.name == "septum.v1.BlobReply"


@pytest.mark.parametrize("name", ["", "options", "nothing", "../packets", "Packets", "packets_pb2.x"])
def test_there_is_no_such_schema(name: str) -> None:
    with pytest.raises(SchemaError):
        schema(name)


# breaking the rules

GOOD = """
syntax = "proto3";
package septum.test;
import "septum/v1/options.proto";
option (septum.v1.channel) = { kind: STREAM, forward: "Order", when_full: DROP, ring_order: 12 };
enum Colour { COLOUR_UNSPECIFIED = 0; GREEN = 1; BLUE = 3; }
message Part {
  uint64 weight = 1 [(septum.v1.rule) = { label: RED, min: 1, max: 300 }];
}
message Order {
  uint32 number = 1 [(septum.v1.rule) = { label: CONTROL, min: 1, max: 99 }];
  bytes blob = 2 [(septum.v1.rule) = { label: BLACK, min_bytes: 2, max_bytes: 9 }];
  repeated Part parts = 3 [(septum.v1.rule) = { max_items: 3 }];
  repeated uint32 sizes = 4 [(septum.v1.rule) = { label: CONTROL, max: 1000, max_items: 5 }];
  repeated string names = 5 [(septum.v1.rule) = { label: PUBLIC, max_bytes: 4, max_items: 2 }];
  Colour colour = 6 [(septum.v1.rule) = { label: CONTROL, max: 3 }];
  bool loud = 7 [(septum.v1.rule) = { label: CONTROL, max: 1 }];
  optional uint32 maybe = 8 [(septum.v1.rule) = { label: CONTROL, min: 5, max: 7 }];
  oneof which {
    Part part = 9 [(septum.v1.rule) = { max_items: 1 }];
    uint32 code = 10 [(septum.v1.rule) = { label: KEY, max: 5 }];
  }
}
"""


def compiled(text: str, folder: Path) -> tuple[Schema, type[Theirs]]:
    """The schema in ``text``, as protoc and generate.py read it; and protobuf's class for its ``Order``."""
    (folder / "test.proto").write_text(text)
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{folder}", f"-I{PROTO}", f"-I{well_known}", "--include_imports"]
    assert protoc.main(["protoc", *arguments, f"--descriptor_set_out={folder}/set", "test.proto"]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((folder / "set").read_bytes()).file:
        pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    file = pool.FindFileByName("test.proto")
    made: dict[str, Schema] = {"__name__": "test"}  # type: ignore[dict-item]
    exec(source("test", file), made)  # noqa: S102 - what `make proto` would write to a file
    return made["SCHEMA"], GetMessageClass(file.message_types_by_name["Order"])


def test_the_good_one_is_good(tmp_path: Path) -> None:
    shape, _ = compiled(GOOD, tmp_path)
    assert shape.forward.labels == {"CONTROL", "BLACK", "RED", "PUBLIC", "KEY"}
    assert shape.forward.oneofs == {"which": ("part", "code")}
    biggest = [largest(shape.forward, pick) for pick in (("maybe", "part"), ("maybe", "code"))]
    codec = Codec(shape.forward)
    assert max(len(codec.encode(message)[0]) for message in biggest) == shape.forward.max_bytes


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (" [(septum.v1.rule) = { label: CONTROL, min: 1, max: 99 }]", "", "number: has no .rule."),
        ("label: CONTROL, min: 1, max: 99", "min: 1, max: 99", "number: needs a label"),
        ("label: CONTROL, min: 1, max: 99", "label: CONTROL", "number: needs max"),
        ("label: CONTROL, min: 1, max: 99", "label: CONTROL, min: 100, max: 99", "no value is between 100 and 99"),
        ("label: CONTROL, min: 1, max: 99", "label: CONTROL, max: 4294967296", "more than its type holds"),
        ("label: CONTROL, min: 1, max: 99", "label: CONTROL, max: 99, max_bytes: 3", "max_bytes means nothing"),
        ("label: CONTROL, min: 1, max: 99", "label: CONTROL, max: 99, max_items: 3", "max_items means nothing"),
        ("label: BLACK, min_bytes: 2, max_bytes: 9", "label: BLACK", "blob: needs max_bytes"),
        ("label: BLACK, min_bytes: 2, max_bytes: 9", "label: BLACK, max: 9, max_bytes: 9", "max means nothing"),
        ("{ max_items: 3 }", "{ label: RED, max_items: 3 }", "parts: is a message"),
        ("{ max_items: 3 }", "{ label: LABEL_UNSPECIFIED }", "parts: is repeated"),
        ("{ max_items: 1 }", "{ max_items: 2 }", "part: is a single message"),
        ("max: 1000, max_items: 5", "max: 1000", "sizes: is repeated"),
        ("label: CONTROL, max: 1 }", "label: CONTROL, max: 2 }", "loud: max 2"),
        ("label: RED, min: 1, max: 300", "label: RED", "Part.weight: needs max"),
        ("uint32 number", "sint32 number", "number: has a type"),
        ("uint32 number", "fixed32 number", "number: has a type"),
        ("uint32 number", "double number", "number: has a type"),
        ("uint64 weight = 1", "Order again = 2 [(septum.v1.rule) = { max_items: 1 }]; uint64 weight = 1", "itself"),
        ("Part parts", "Order parts", "contains itself"),
        ("option (septum.v1.channel)", "// ", "no option .channel."),
        ("kind: STREAM, ", "", "needs kind"),
        ("when_full: DROP, ", "", "needs kind and when_full"),
        ('forward: "Order"', 'forward: "Nothing"', "'Nothing' is not in this file"),
        ('forward: "Order"', 'forward: "Order", backward: "Part"', "a stream has none"),
        ("kind: STREAM", "kind: CALL", "a call has a backward"),
        ("ring_order: 12", "ring_order: 9", "order 9"),
        ("ring_order: 12", "ring_order: 21", "order 21"),
        ("max_bytes: 9", "max_bytes: 4096", "a ring of order 12 holds 4096"),
    ],
)
def test_what_breaks_the_rules_does_not_load(old: str, new: str, why: str, tmp_path: Path) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(SchemaError, match=why):
        compiled(GOOD.replace(old, new), tmp_path)


def test_maps_do_not_load(tmp_path: Path) -> None:
    text = GOOD.replace(
        "oneof which", "map<uint32, uint32> m = 20 [(septum.v1.rule) = { max_items: 3 }];\n oneof which"
    )
    with pytest.raises(SchemaError, match=r"has no \(rule\)"):
        compiled(text, tmp_path)


LEGAL = 'number: 1 blob: "ab" parts { weight: 1 } sizes: 7 names: "n" colour: BLUE code: 0'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LEGAL, None),
        (LEGAL + " maybe: 5 loud: true", None),
        ('number: 1 blob: "ab" part { weight: 9 }', None),
        (LEGAL.replace("number: 1", ""), "number: 0, not 1 to 99"),
        (LEGAL.replace("number: 1", "number: 100"), "number: 100, not 1 to 99"),
        (LEGAL.replace('"ab"', '"a"'), "blob: 1 bytes, not 2 to 9"),
        (LEGAL.replace('"ab"', '"1234567890"'), "blob: 10 bytes, not 2 to 9"),
        (LEGAL + " parts { weight: 301 }", r"parts\[1\].weight: 301, not 1 to 300"),
        (LEGAL + " parts { }", r"parts\[1\].weight: 0, not 1 to 300"),
        (LEGAL + " parts { weight: 1 }" * 3, "parts: more than 3 items"),
        (LEGAL + " sizes: [1, 1001]", r"sizes\[2\]: 1001, not 0 to 1000"),
        (LEGAL + " sizes: [1, 2, 3, 4, 5]", "sizes: more than 5 items"),
        (LEGAL + ' names: "\u00e4\u00e4\u00e4"', r"names\[1\]: 6 bytes, not 0 to 4"),
        (LEGAL.replace("BLUE", "2"), "colour: 2 is not declared"),
        (LEGAL.replace("BLUE", "4"), "colour: 4, not 0 to 3"),
        (LEGAL.replace("BLUE", "-1"), f"colour: {2**64 - 1}, not 0 to 3"),
        (LEGAL + " maybe: 0", "maybe: 0, not 5 to 7"),
        (LEGAL.replace("code: 0", ""), "which: nothing is set"),
        (LEGAL.replace("code: 0", "part { }"), "part.weight: 0"),
        (LEGAL.replace("code: 0", "code: 6"), "code: 6, not 0 to 5"),
    ],
)
def test_bounds_of_values(text: str, why: str | None, tmp_path: Path) -> None:
    shape, theirs = compiled(GOOD, tmp_path)
    codec = Codec(shape.forward)
    untrusted = text_format.Parse(text, theirs()).SerializeToString(deterministic=True)
    if why is None:
        assert b"".join(codec.encode(codec.decode(untrusted))) == untrusted
    else:
        with pytest.raises(Violation, match=why):
            codec.decode(untrusted)
