"""The agent's reader of ONNX files against the onnx package, and against bytes that nobody meant well with."""

from dataclasses import replace
from pathlib import Path

import numpy
import onnx
import pytest
from agent_harness import conv_model
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser
from onnx_reference import contents_of
from protobuf_bytes import field, nested_graphs, number_field, onnx_model

from device_agent.benchmark import FailureReason
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes.onnx_scan import (
    EXTERNAL_LIMIT,
    GRAPH_DEPTH_LIMIT,
    NAME_LIMIT,
    ExternalTensor,
    GraphInput,
    OnnxContents,
    scan,
)
from device_agent.runtimes.protobuf_fields import FIELD_LIMIT, TEXT_LIMIT_BYTES

TEN_MB = 10 << 20
SHIPPED_MODELS = sorted(Path(onnx.__file__).parent.glob("backend/test/data/*/*/model.onnx"))

BRANCHES = """
<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3, "local" : 1]>
agraph (float[batch, 3] x, bool flag, int64[1] weight) => (float[batch, 3] y)
  <int64[1] weight = {1}>
{
  c = If (flag) <
    then_branch = yes () => (float[batch, 3] a) {
      a = Loop (limit, flag, x) <body = turn (int64 i, bool c0, float[batch, 3] s) => (bool c1, float[batch, 3] t) {
        c1 = Identity (c0)
        t = Sigmoid (s)
      }>
    },
    else_branch = no () => (float[batch, 3] b) { b = local.twice (x) }
  >
  limit = Constant <value = int64 {3}> ()
  d = ai.onnx.ml.Scaler <offset = [0.0, 1.0, 2.0], scale = [1.0, 1.0, 1.0]> (c)
  y = ai.onnx.Relu (d)
}
<domain: "local", opset_import: ["" : 17]>
twice (v) => (w) { w = Add (v, v) }
"""


def invalid(data: bytes) -> str:
    """Return why bytes are refused."""
    with pytest.raises(BenchmarkFailedError) as caught:
        scan(data)
    assert caught.value.reason is FailureReason.INVALID_MODEL
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outcome(data: bytes) -> type | FailureReason:
    """Return the reason why bytes are refused, or the type of what they hold."""
    try:
        return type(scan(data))
    except BenchmarkFailedError as error:
        return error.reason


def test_contents_of_a_model_with_branches_loops_and_functions():
    model = parser.parse_model(BRANCHES)
    assert scan(model.SerializeToString()) == OnnxContents(
        ir_version=8,
        operators={
            "": frozenset({"If", "Loop", "Identity", "Sigmoid", "Constant", "Relu", "Add"}),
            "ai.onnx.ml": frozenset({"Scaler"}),
            "local": frozenset({"twice"}),
        },
        functions=frozenset({("local", "twice")}),
        external_tensors=(),
        stored_elements={"int64": 2},
        inputs=(
            GraphInput(name="x", element_type="float32", dimensions=("batch", 3)),
            GraphInput(name="flag", element_type="bool", dimensions=()),
        ),
    )
    assert contents_of(model) == scan(model.SerializeToString())


def test_the_onnx_package_ships_models_to_agree_on():
    assert len(SHIPPED_MODELS) > 100


@pytest.mark.parametrize("path", SHIPPED_MODELS, ids=lambda path: path.parent.name)
def test_contents_agree_with_the_onnx_package(path: Path):
    data = path.read_bytes()
    assert scan(data) == contents_of(onnx.load_model_from_string(data))


names = st.text("abc.é", max_size=3)
domains = st.sampled_from(["", "ai.onnx", "ai.onnx.ml", "com.example"])
sizes = st.integers(-5, 5) | st.sampled_from([-(1 << 63), (1 << 63) - 1])


@st.composite
def tensors(draw: st.DrawFn) -> onnx.TensorProto:
    tensor = TensorProto(
        dims=draw(st.lists(st.integers(0, 9), max_size=3)),
        data_type=draw(st.integers(0, 30)),
        name=draw(names),
        raw_data=draw(st.binary(max_size=200)),
        int32_data=draw(st.lists(st.integers(-3, 300), max_size=3)),
        float_data=draw(st.lists(st.floats(width=32), max_size=3)),
    )
    for key in draw(st.lists(st.sampled_from(["location", "offset"]), max_size=2)):
        tensor.external_data.add(key=key, value=draw(names))
    if draw(st.booleans()):
        tensor.data_location = draw(st.sampled_from([TensorProto.DEFAULT, TensorProto.EXTERNAL]))
    return tensor


@st.composite
def sparse_tensors(draw: st.DrawFn) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=draw(st.none() | tensors()), indices=draw(st.none() | tensors()))


def attributes(graphs: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(
        onnx.AttributeProto,
        name=names,
        i=st.none() | st.integers(-5, 5),
        f=st.none() | st.floats(width=32),
        ints=st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=8),
        floats=st.lists(st.floats(width=32), max_size=8),
        strings=st.lists(st.binary(max_size=3), max_size=2),
        t=st.none() | tensors(),
        tensors=st.lists(tensors(), max_size=1),
        g=st.none() | graphs,
        graphs=st.lists(graphs, max_size=1),
        sparse_tensor=st.none() | sparse_tensors(),
    )


def nodes(graphs: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(
        onnx.NodeProto,
        op_type=names,
        domain=domains,
        input=st.lists(names, max_size=2),
        attribute=st.lists(attributes(graphs), max_size=2),
    )


@st.composite
def inputs(draw: st.DrawFn) -> onnx.ValueInfoProto:
    entry = onnx.ValueInfoProto(name=draw(names))
    kind = draw(st.sampled_from(["tensor", "ranked tensor", "sequence", "none"]))
    if kind == "sequence":
        entry.type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    elif kind != "none":
        entry.type.tensor_type.elem_type = draw(st.integers(0, 28))
    if kind == "ranked tensor":
        entry.type.tensor_type.shape.SetInParent()
        for size in draw(st.lists(st.none() | sizes | names, max_size=3)):
            axis = entry.type.tensor_type.shape.dim.add()
            if isinstance(size, int):
                axis.dim_value = size
            elif size is not None:
                axis.dim_param = size
    return entry


@st.composite
def graphs(draw: st.DrawFn) -> onnx.GraphProto:
    inner = st.deferred(graphs)
    return onnx.GraphProto(
        node=draw(st.lists(nodes(inner), max_size=2)),
        initializer=draw(st.lists(tensors(), max_size=2)),
        sparse_initializer=draw(st.lists(sparse_tensors(), max_size=1)),
        input=draw(st.lists(inputs(), max_size=2, unique_by=lambda entry: entry.name)),
        doc_string=draw(st.none() | st.just("long " * 50)),
    )


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    function = st.builds(
        onnx.FunctionProto,
        name=names,
        domain=domains,
        node=st.lists(nodes(graphs()), max_size=1),
        attribute_proto=st.lists(attributes(graphs()), max_size=1),
    )
    opset = st.builds(onnx.OperatorSetIdProto, domain=domains, version=st.integers(-1, 30))
    return onnx.ModelProto(
        ir_version=draw(st.integers(1, 14)),
        graph=draw(graphs()),
        opset_import=draw(st.lists(opset, max_size=2)),
        functions=draw(st.lists(function, max_size=1)),
    )


def unordered(contents: OnnxContents) -> OnnxContents:
    """Return contents whose external tensors stand in one order: each reader finds them in its own."""
    ordered = sorted(contents.external_tensors, key=lambda tensor: (tensor.name, tensor.location))
    return replace(contents, external_tensors=tuple(ordered))


@given(models())
def test_contents_agree_with_the_onnx_package_on_any_model(model: onnx.ModelProto):
    assert unordered(scan(model.SerializeToString())) == unordered(contents_of(model))


@given(models(), models())
def test_pieces_of_a_message_are_merged(first: onnx.ModelProto, second: onnx.ModelProto):
    data = first.SerializeToString() + second.SerializeToString()
    merged = onnx.ModelProto.FromString(data)
    names = [entry.name for entry in merged.graph.input]
    if len(set(names)) == len(names):
        assert unordered(scan(data)) == unordered(contents_of(merged))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_model_or_refused(data: bytes):
    assert outcome(data) in (OnnxContents, FailureReason.INVALID_MODEL)


@given(st.data())
def test_a_damaged_model_is_a_model_or_refused(data: st.DataObject):
    damaged = bytearray(parser.parse_model(BRANCHES).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(bytes(damaged)) in (OnnxContents, FailureReason.INVALID_MODEL)


def test_a_model_that_is_cut_off_is_refused_wherever_the_cut_is():
    data = conv_model()
    for end in range(len(data)):
        try:
            model = onnx.ModelProto.FromString(data[:end])
        except Exception:
            model = onnx.ModelProto()
        if model.HasField("graph") and model.ir_version:
            assert scan(data[:end]) == contents_of(model)
        else:
            invalid(data[:end])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it has no graph"),
        (b"PK\x03\x04" + bytes(100), "the field at byte 2 has the number 0"),
        (number_field(1, 8), "it has no graph"),
        (field(7, b""), "its format version is missing"),
        (number_field(1, -1) + field(7, b""), "its format version is -1"),
        (onnx_model(b"\x0b\x0c"), "the field at byte 4 has the wire type 3"),
        (onnx_model(b"\x0c"), "the field at byte 4 has the wire type 4"),
        (onnx_model(b"\x0e"), "the field at byte 4 has the wire type 6"),
        (onnx_model(b"\x02\x00"), "the field at byte 4 has the number 0"),
        (onnx_model(b"\xf8\xff\xff\xff\x7f\x00"), "the field at byte 4 has the number 4294967295"),
        (onnx_model(b"\x08"), "the number at byte 5 does not end"),
        (onnx_model(b"\x08" + b"\xff" * 10 + b"\x01"), "the number at byte 5 does not end"),
        (onnx_model(b"\x0a\x05\x22\x01a"), "ends 2 bytes behind its message"),
        (onnx_model(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "bytes behind its message"),
        (onnx_model(b"\x0d\x01\x02\x03"), "ends 1 bytes behind its message"),
        (onnx_model(b"\x09\x01\x02\x03"), "ends 5 bytes behind its message"),
        (onnx_model(field(5, field(1, b"\x01\x80"))), "does not end"),
        (onnx_model(field(1, field(5, b"\x40\x01" * 9 + b"\x40\xff"))), "does not end"),
        (onnx_model(field(1, field(4, b"x" * (TEXT_LIMIT_BYTES + 1)))), "the name at byte"),
    ],
)
def test_what_is_no_onnx_model_is_refused(data: bytes, why: str):
    message = invalid(data)
    assert why in message
    assert message.endswith("export the model again and upload that file")


def test_fields_of_a_later_version_are_stepped_over():
    unknown = number_field(999, 7) + field(1000, b"anything") + b"\xc5\x3e1234" + b"\xc1\x3e12345678"
    contents = scan(onnx_model(unknown + field(1, unknown + field(4, b"Relu")), rest=unknown))
    assert contents.operators == {"": {"Relu"}}


def test_a_field_of_another_wire_type_is_not_the_one_meant():
    # op_type as a number: protobuf takes it for an unknown field.
    assert scan(onnx_model(field(1, number_field(4, 1)))).operators == {"": {""}}


def test_the_last_of_several_values_counts():
    node = field(4, b"Relu") + field(7, b"com.example") + field(4, b"Sigmoid") + field(7, b"")
    assert scan(onnx_model(field(1, node))).operators == {"": {"Sigmoid"}}


def test_axes_are_read_packed_and_unpacked():
    unpacked = field(5, number_field(2, 1) + number_field(1, 2) + number_field(1, 3))
    packed = field(5, number_field(2, 1) + field(1, b"\x04\x05"))
    assert scan(onnx_model(unpacked + packed)).stored_elements == {"float32": 26}


def test_pieces_of_one_tensor_are_merged():
    first, second = number_field(2, 10) + number_field(1, 4), number_field(1, 5) + field(8, b"halves")
    attribute = field(5, first) + field(5, second + number_field(14, 1))
    contents = scan(onnx_model(field(1, field(5, attribute))))
    assert contents.stored_elements == {"float16": 20}
    assert contents.external_tensors == (ExternalTensor(name="halves", location=""),)


def test_the_last_kind_of_a_type_counts():
    tensor, sequence = field(1, number_field(1, 1)), field(4, b"")
    last_sequence = field(11, field(1, b"x") + field(2, tensor + sequence))
    last_tensor = field(11, field(1, b"y") + field(2, sequence + tensor))
    assert [entry.element_type for entry in scan(onnx_model(last_sequence + last_tensor)).inputs] == [
        None,
        "float32",
    ]


def test_numbers_that_a_tensor_claims_are_bounded():
    claims = b"".join(number_field(1, (1 << 63) - 1) for _ in range(1000))
    negative = field(5, number_field(2, 7) + number_field(1, -3))
    contents = scan(onnx_model(field(5, number_field(2, 1) + claims) + negative))
    assert contents.stored_elements == {"float32": 1 << 62, "int64": 0}


def test_graphs_nest_as_deep_as_protobuf_reads():
    deepest = nested_graphs(GRAPH_DEPTH_LIMIT - 1)
    assert onnx.load_model_from_string(deepest).ir_version == scan(deepest).ir_version
    assert "nests graphs more than 34 deep" in invalid(nested_graphs(GRAPH_DEPTH_LIMIT))
    assert "nests graphs more than 34 deep" in invalid(nested_graphs(10_000))


@pytest.mark.parametrize(
    "graph",
    [
        number_field(99, 1) * (TEN_MB // 3),
        b"\x0a\x00" * (TEN_MB // 2),
        field(5, number_field(2, 1)) * (TEN_MB // 4),
        field(5, field(1, b"\x01" * TEN_MB)),
        field(1, field(5, b"\x4a\x00" * (TEN_MB // 2))),
        field(1, field(5, field(6, b""))) * (TEN_MB // 6),
    ],
    ids=["unknown fields", "nodes", "tensors", "packed axes", "texts", "subgraphs"],
)
def test_looking_through_many_small_fields_is_given_up(graph: bytes):
    assert f"more than {FIELD_LIMIT} fields" in invalid(onnx_model(graph))


@pytest.mark.parametrize("numbers", [b"\x40\x01", b"\x3d\x00\x00\x80\x3f", b"\x40" + b"\xff" * 9 + b"\x01"])
def test_long_lists_of_numbers_are_stepped_over(numbers: bytes):
    attribute = numbers * (TEN_MB // len(numbers)) + field(5, number_field(2, 1))
    assert scan(onnx_model(field(1, field(5, attribute)))).stored_elements == {"float32": 1}


@pytest.mark.parametrize(
    "entry",
    [
        lambda number: field(1, field(4, b"Op%d" % number)),
        lambda number: field(11, field(1, b"input%d" % number)),
        lambda number: field(11, field(2, field(1, field(2, b"\x0a\x00" * 9)))),
    ],
    ids=["operators", "inputs", "axes"],
)
def test_names_to_keep_are_bounded(entry):
    graph = b"".join(map(entry, range(NAME_LIMIT + 1)))
    assert f"names more than {NAME_LIMIT} operators, functions and axes" in invalid(onnx_model(graph))


def test_external_tensors_to_keep_are_bounded():
    graph = field(5, number_field(14, 1)) * (EXTERNAL_LIMIT + 1)
    assert len(scan(onnx_model(graph)).external_tensors) == EXTERNAL_LIMIT


def test_names_that_are_no_text_are_read():
    assert scan(onnx_model(field(1, field(4, b"\xff\xfe")))).operators == {"": {"\ufffd\ufffd"}}


def test_names_of_initializers_take_inputs_away_in_any_order():
    weight = numpy_helper.from_array(numpy.zeros((0,), "float32"), "roi")
    roi = helper.make_tensor_value_info("roi", TensorProto.FLOAT, [0])
    before = field(11, roi.SerializeToString()) + field(5, weight.SerializeToString())
    after = field(5, weight.SerializeToString()) + field(11, roi.SerializeToString())
    assert scan(onnx_model(before)).inputs == scan(onnx_model(after)).inputs == ()
