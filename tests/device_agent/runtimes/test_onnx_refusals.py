"""What the agent says of ONNX files that no runtime gets to see."""

from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest
from agent_harness import conv_model, lookup_model
from onnx import TensorProto, helper, numpy_helper, parser
from protobuf_bytes import field, number_field, onnx_model, varint

from device_agent.benchmark import FailureReason
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes.onnx_file import RUNTIME_DOMAINS, check

NAN = -(1 << 63)


def refusal(path: Path, data: bytes) -> tuple[FailureReason, str]:
    path.write_bytes(data)
    with pytest.raises(BenchmarkFailedError) as caught:
        check(path)
    assert "\n" not in str(caught.value)
    return caught.value.reason, str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def graph_of(*nodes: onnx.NodeProto, shape=(1, 4), **options) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        **options,
    )


def model_of(graph: onnx.GraphProto, **options) -> bytes:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, **options)
    return model.SerializeToString()


def relu(shape=(1, 4)) -> bytes:
    return model_of(graph_of(helper.make_node("Relu", ["x"], ["y"]), shape=shape))


def external(name: str = "weight", location: str = "../../etc/passwd") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="16")
    return tensor


@pytest.mark.parametrize("data", [conv_model(), lookup_model(), relu()])
def test_a_model_that_the_runtime_loads_is_let_through(path: Path, data: bytes):
    path.write_bytes(data)
    assert {entry.name for entry in check(path).inputs} == {
        entry.name for entry in onnxruntime.InferenceSession(data).get_inputs()
    }


@pytest.mark.parametrize("data", [b"", b"no model", bytes(1000), relu()[:-3]])
def test_a_file_that_is_no_model_is_refused(path: Path, data: bytes):
    reason, message = refusal(path, data)
    assert reason is FailureReason.INVALID_MODEL
    assert message.startswith("the file is no ONNX model: ")


def constant(**attribute) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **attribute)


SPARSE = onnx.SparseTensorProto(
    values=numpy_helper.from_array(numpy.ones(1, "float32"), "weight"), indices=external("places"), dims=[4]
)
BRANCH = helper.make_graph([constant(value=external())], "branch", [], [])
EXTERNAL_PLACES = {
    "initializer": graph_of(helper.make_node("Relu", ["x"], ["y"]), initializer=[external()]),
    "constant": graph_of(constant(value=external())),
    "sparse constant": graph_of(constant(sparse_value=SPARSE)),
    "sparse initializer": graph_of(constant(), sparse_initializer=[SPARSE]),
    "subgraph": graph_of(helper.make_node("If", ["x"], ["y"], then_branch=BRANCH, else_branch=BRANCH)),
    "list of subgraphs": graph_of(helper.make_node("Other", [], ["y"], branches=[BRANCH])),
    "list of tensors": graph_of(helper.make_node("Other", [], ["y"], several=[external()])),
}


@pytest.mark.parametrize("graph", EXTERNAL_PLACES.values(), ids=EXTERNAL_PLACES.keys())
def test_external_data_is_refused_wherever_it_is(path: Path, graph: onnx.GraphProto):
    reason, message = refusal(path, model_of(graph))
    assert reason is FailureReason.EXTERNAL_DATA
    assert "keeps its values in the file '../../etc/passwd'" in message
    assert "save it as one, e.g. onnx.save(onnx.load(path), new_path, save_as_external_data=False)" in message


def test_external_data_in_functions_is_refused(path: Path):
    default = helper.make_attribute("value", external("default"))
    function = onnx.FunctionProto(name="f", domain="local", node=[constant(value=external("inner"))])
    function.attribute_proto.append(default)
    data = model_of(graph_of(helper.make_node("Relu", ["x"], ["y"])), functions=[function])
    assert refusal(path, data) == (
        FailureReason.EXTERNAL_DATA,
        "tensor 'inner' keeps its values in the file '../../etc/passwd' (and 1 more like it), and this agent reads no "
        "file but the model; save it as one, e.g. onnx.save(onnx.load(path), new_path, save_as_external_data=False)",
    )


def test_external_data_without_its_mark_is_refused(path: Path):
    tensor = external(location="weights.bin")
    tensor.ClearField("data_location")
    reason, message = refusal(path, model_of(graph_of(constant(), initializer=[tensor])))
    assert reason is FailureReason.EXTERNAL_DATA
    assert "tensor 'weight' keeps its values in the file 'weights.bin'" in message


def test_a_tensor_without_a_name_is_named_by_its_operator(path: Path):
    _, message = refusal(path, model_of(graph_of(constant(value=external(name="")))))
    assert message.startswith("tensor 'Constant' keeps")


def test_what_onnx_saves_beside_the_model_is_refused_and_its_advice_works(path: Path):
    model = onnx.load_model_from_string(conv_model())
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(BenchmarkFailedError, match="tensor 'weight' keeps its values in the file 'weights"):
        check(path)
    one_file = path.with_name("one.onnx")
    onnx.save(onnx.load(path), one_file, save_as_external_data=False)
    assert check(one_file).stored_elements == {"float32": 216}


@pytest.mark.parametrize(("embed_mode", "refused"), [(0, True), (1, False), (None, False)])
def test_a_compiled_network_in_another_file_is_refused(path: Path, embed_mode: int | None, refused: bool):
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=embed_mode, ep_cache_context="/dev/mem"
    )
    data = model_of(graph_of(node))
    if refused:
        reason, message = refusal(path, data)
        assert reason is FailureReason.EXTERNAL_DATA
        assert message.startswith("tensor 'EPContext' keeps its values in the file '/dev/mem'")
    else:
        path.write_bytes(data)
        assert check(path).operators == {"com.microsoft": {"EPContext"}}


def test_custom_operators_are_refused(path: Path):
    nodes = [helper.make_node(f"Op{number}", ["x"], ["y"], domain="com.example") for number in range(7)]
    assert refusal(path, model_of(graph_of(*nodes))) == (
        FailureReason.CUSTOM_OPERATOR,
        "the model uses Op0, Op1, Op2, Op3, Op4 and 2 more of the domain 'com.example', which ONNX Runtime does not "
        "have, and this agent loads no library of operators; export with standard operators, or as model-local functions",
    )


def test_custom_operators_in_a_subgraph_and_in_a_function_are_refused(path: Path):
    custom = helper.make_node("Custom", [], ["c"], domain="com.example")
    branch = helper.make_graph([custom], "branch", [], [])
    inside = graph_of(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    function = onnx.FunctionProto(name="f", domain="local", node=[custom])
    called = model_of(graph_of(helper.make_node("f", ["x"], ["y"], domain="local")), functions=[function])
    for data in (model_of(inside), called):
        reason, message = refusal(path, data)
        assert reason is FailureReason.CUSTOM_OPERATOR
        assert message.startswith("the model uses Custom of the domain 'com.example'")


def test_functions_of_the_model_are_no_custom_operators(path: Path):
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        agraph (float[1, 4] x) => (float[1, 4] y) { y = local.twice (x) }
        <domain: "local", opset_import: ["" : 17]> twice (v) => (w) { w = Add (v, v) }"""
    )
    data = model.SerializeToString()
    assert onnxruntime.InferenceSession(data).get_outputs()[0].name == "y"
    path.write_bytes(data)
    assert check(path).functions == {("local", "twice")}


def test_an_operator_that_no_function_of_its_domain_defines_is_refused(path: Path):
    function = onnx.FunctionProto(name="known", domain="local")
    data = model_of(graph_of(helper.make_node("unknown", ["x"], ["y"], domain="local")), functions=[function])
    assert refusal(path, data)[0] is FailureReason.CUSTOM_OPERATOR


def test_domains_of_the_installed_runtime_are_known():
    state = onnxruntime.capi.onnxruntime_pybind11_state
    assert {schema.domain for schema in state.get_all_operator_schema()} <= RUNTIME_DOMAINS


def test_operators_that_onnx_runtime_adds_are_no_custom_operators(path: Path):
    node = helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")
    opsets = [helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("com.microsoft", 1)]
    data = helper.make_model(graph_of(node), opset_imports=opsets, ir_version=8).SerializeToString()
    assert onnxruntime.InferenceSession(data).get_outputs()[0].name == "y"
    path.write_bytes(data)
    assert check(path).operators == {"com.microsoft": frozenset({"FastGelu"})}


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ([NAN, 4], "[-9223372036854775808, 4], and no array of values has such an axis 0"),
        ([1, -5], "[1, -5], and no array of values has such an axis 1"),
        (["batch", 0], "[batch, 0], and no array of values has such an axis 1"),
        ([None, 1 << 62], "[?, 4611686018427387904], and no array of values has such an axis 1"),
        ([1 << 40, 1 << 40], "[1099511627776, 1099511627776], and no array of values has such an axis 1"),
    ],
)
def test_a_shape_that_no_array_has_is_refused(path: Path, shape: list, shown: str):
    reason, message = refusal(path, relu(shape))
    assert reason is FailureReason.INVALID_SHAPE
    assert message == (
        f"input 'x' declares the shape {shown}; export the model with sizes of at least 1, and names for the axes it "
        "leaves open"
    )


@pytest.mark.parametrize("shape", [[-1, 4], ["batch", 4], [None, 4]])
def test_axes_that_the_runtime_reads_as_open_are_let_through(path: Path, shape: list):
    data = relu(shape)
    open_axis = onnxruntime.InferenceSession(data).get_inputs()[0].shape[0]
    assert open_axis in (None, "batch")
    path.write_bytes(data)
    assert check(path).inputs[0].dimensions == tuple(shape)


def test_a_large_shape_that_an_array_may_have_is_left_to_the_runtime(path: Path):
    path.write_bytes(relu([1 << 40, 4]))
    assert check(path).inputs[0].dimensions == (1 << 40, 4)


def test_an_input_of_any_rank_is_let_through(path: Path):
    path.write_bytes(relu(None))
    assert check(path).inputs[0].dimensions is None


def test_names_that_would_break_a_message_are_shown_in_one_line(path: Path):
    hostile = b"\x1b[31m\nroot\r" + b"x" * 300
    node = field(4, b"Op") + field(7, hostile)
    _, message = refusal(path, onnx_model(field(1, node)))
    assert "of the domain '\\x1b[31m\\nroot\\r" + "x" * 89 + "...'" in message


def test_a_model_of_2_gb_is_looked_at_without_its_weights(path: Path):
    weight_bytes, weights = 10 << 20, 200
    head = number_field(1, weight_bytes // 4) + number_field(2, 1)
    tensor_head = field(5, head + field(9, bytes(weight_bytes)))[:-weight_bytes]
    graph_bytes = weights * (len(tensor_head) + weight_bytes)
    with path.open("wb") as file:
        file.write(number_field(1, 8) + b"\x3a" + varint(graph_bytes))
        for _ in range(weights):
            file.write(tensor_head)
            file.seek(weight_bytes, 1)
        file.truncate()
    # Reset the high-water mark of this process's memory.
    Path("/proc/self/clear_refs").write_text("5")
    before_kib = peak_memory_kib()
    assert check(path).stored_elements == {"float32": 524_288_000}
    assert peak_memory_kib() - before_kib < 16 << 10


def peak_memory_kib() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
