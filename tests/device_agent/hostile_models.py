"""Models that crash, hang, eat the board, or ask for what an agent must not give. All are real files."""

import contextlib
import io
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import onnx
import torch
from agent_harness import CALL_LIMIT_S, Agent, conv_model, running_agent, sha256_of, spec, upload_parts
from edgenas.v1 import benchmark_pb2, model_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper, numpy_helper

# A model without end must not take the machine that runs the tests.
DATA_LIMIT_BYTES = 3 << 29
FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
Value = tuple[str, int, Sequence[int | str | None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """A model, and what the agent is to say of it."""

    data: Callable[[], bytes]
    reason: str
    words: tuple[str, ...]
    runtime: str = "onnx"
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    time_limit_s: float = 0

    def upload(self, agent: Agent) -> str:
        return upload(agent, self.data(), self.runtime)

    def spec(self) -> benchmark_pb2.BenchmarkSpec:
        asked = spec(runtime=self.runtime, **self.input_shapes)
        asked.time_limit_s = self.time_limit_s
        asked.input_data = benchmark_pb2.INPUT_DATA_ZEROS
        return asked


def bounded_agent(state_dir: Path, *options: str) -> contextlib.AbstractContextManager[Agent]:
    """Run an agent none of whose processes can have more than `DATA_LIMIT_BYTES`."""
    return running_agent(state_dir, *options, prefix=["prlimit", f"--data={DATA_LIMIT_BYTES}"])


def upload(agent: Agent, data: bytes, runtime: str = "onnx") -> str:
    header, *chunks = upload_parts(data)
    header.header.format = model_pb2.ModelFormat.Value(f"MODEL_FORMAT_{runtime.upper()}")
    return agent.models.UploadModel(iter([header, *chunks]), timeout=CALL_LIMIT_S).sha256


def first_record(agent: Agent) -> bytes:
    """Measure a good model and return the record, to be given to `assert_sound`."""
    record = agent.measure(agent.upload(conv_model()), request_id="earlier")
    return record.SerializeToString(deterministic=True)


def assert_sound(agent: Agent, earlier: bytes) -> None:
    """The server answers, the queue moves, and what was measured before is what it was."""
    health = health_pb2_grpc.HealthStub(agent.channel).Check(
        health_pb2.HealthCheckRequest(), timeout=CALL_LIMIT_S
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert agent.measure(sha256_of(conv_model())).measurement.latency.samples >= 64
    request = benchmark_pb2.GetBenchmarkRequest(request_id="earlier")
    kept = agent.benchmarks.GetBenchmark(request, timeout=CALL_LIMIT_S)
    assert kept.SerializeToString(deterministic=True) == earlier


# ONNX


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, **attributes)


def initializer(name: str, values, dtype: str = "int64") -> onnx.TensorProto:
    return numpy_helper.from_array(numpy.array(values, dtype=dtype), name)


def values(entries: Sequence[Value]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(*entry) for entry in entries]


def onnx_bytes(
    *nodes: onnx.NodeProto,
    inputs: Sequence[Value | onnx.ValueInfoProto] = (("x", FLOAT, [1, 4]),),
    outputs: Sequence[Value] = (("y", FLOAT, None),),
    initializers: Sequence[onnx.TensorProto] = (),
    opsets: Mapping[str, int] = {"": 17},
    ir_version: int = 8,
    **options,
) -> bytes:
    declared = [
        entry if isinstance(entry, onnx.ValueInfoProto) else helper.make_tensor_value_info(*entry)
        for entry in inputs
    ]
    graph = helper.make_graph(list(nodes), "graph", declared, values(outputs), list(initializers))
    opset_imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = helper.make_model(graph, opset_imports=opset_imports, ir_version=ir_version, **options)
    return model.SerializeToString()


def relu(shape: Sequence[int | str | None] | None = (1, 4), *, name: str = "x", **options) -> bytes:
    return onnx_bytes(node("Relu", [name], ["y"]), inputs=[(name, FLOAT, shape)], **options)


def loop(step: onnx.NodeProto, *, constant: bool = False, size: int | None = 1) -> bytes:
    """Return a loop without end over `step`, which makes `after` of `before`; where `constant`, of no input."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), step],
        "body",
        values([("turn", INT64, []), ("go", TensorProto.BOOL, []), ("before", FLOAT, [size, 4])]),
        values([("go_on", TensorProto.BOOL, []), ("after", FLOAT, [size, 4])]),
    )
    seed = "seed" if constant else "x"
    return onnx_bytes(
        node("Loop", ["", "true", seed], ["last"], body=body),
        node("Add", ["last", "x"], ["y"]),
        initializers=[initializer("true", True, "bool"), initializer("seed", numpy.ones((1, 4)), "float32")],
    )


def doubling_step() -> onnx.NodeProto:
    return node("Concat", ["before", "before"], ["after"], axis=0)


def deep_tree(depth: int) -> bytes:
    """Return a decision tree that is one long branch: ONNX Runtime 1.32 recurses into it until the stack ends."""
    count = 2 * depth + 1
    leaves = range(depth, count)
    following = [*range(1, depth), count - 1]
    regressor = node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * count,
        nodes_nodeids=range(count),
        nodes_featureids=[0] * count,
        nodes_values=[0.0] * count,
        nodes_modes=["BRANCH_LEQ"] * depth + ["LEAF"] * len(leaves),
        nodes_truenodeids=[*leaves[:depth], *[0] * len(leaves)],
        nodes_falsenodeids=[*following, *[0] * len(leaves)],
        target_treeids=[0] * len(leaves),
        target_nodeids=leaves,
        target_ids=[0] * len(leaves),
        target_weights=[1.0] * len(leaves),
    )
    return onnx_bytes(regressor, opsets={"": 17, "ai.onnx.ml": 3})


def overflowing_division() -> bytes:
    """Return INT32_MIN / -1, at which an x86 processor raises what other divisions by zero raise."""
    return onnx_bytes(
        node("Add", ["minus_one", "x"], ["divisor"]),
        node("Div", ["lowest", "divisor"], ["y"]),
        inputs=[("x", INT32, [2])],
        outputs=[("y", INT32, None)],
        initializers=[
            initializer("lowest", [-(2**31)] * 2, "int32"),
            # The input adds 0 or 1.
            initializer("minus_one", [-1, -1], "int32"),
        ],
    )


def billion_functions(depth: int) -> bytes:
    """Return functions that each call the one below twice: 2 ** depth operators once the runtime unfolds them."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = [helper.make_function("local", "f0", ["v"], ["w"], [node("Relu", ["v"], ["w"])], opsets)]
    for level in range(1, depth + 1):
        below = f"f{level - 1}"
        calls = [node(below, ["v"], ["u"], domain="local"), node(below, ["u"], ["w"], domain="local")]
        functions.append(helper.make_function("local", f"f{level}", ["v"], ["w"], calls, opsets))
    outermost = node(f"f{depth}", ["x"], ["y"], domain="local")
    return onnx_bytes(outermost, opsets={"": 17, "local": 1}, functions=functions)


def filled(size: int) -> bytes:
    return onnx_bytes(
        node("ConstantOfShape", ["size"], ["z"]),
        node("ReduceSum", ["z"], ["sum"], keepdims=0),
        node("Add", ["x", "sum"], ["y"]),
        initializers=[initializer("size", [size])],
    )


def expanded(size: int) -> bytes:
    return onnx_bytes(
        node("Expand", ["x", "size"], ["y"]),
        inputs=[("x", FLOAT, [1])],
        initializers=[initializer("size", [size])],
    )


def shape_from_nan(**inputs: Sequence[int]) -> bytes:
    """Return a reshape to a size that is 0 / 0 as an integer; `zero` is an input or, if left out, a constant."""
    return onnx_bytes(
        node("Div", ["zero", "zero"], ["nan"]),
        node("Cast", ["nan"], ["size"], to=INT64),
        node("Reshape", ["x", "size"], ["y"]),
        inputs=[("x", FLOAT, [1, 4]), *((name, FLOAT, shape) for name, shape in inputs.items())],
        initializers=[] if inputs else [initializer("zero", [0.0], "float32")],
    )


def external(location: str) -> onnx.TensorProto:
    tensor = TensorProto(name="weight", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def external_initializer(location: str) -> bytes:
    return onnx_bytes(node("Add", ["x", "weight"], ["y"]), initializers=[external(location)])


def external_constant(location: str) -> bytes:
    constant = node("Constant", [], ["weight"], value=external(location))
    return onnx_bytes(constant, node("Add", ["x", "weight"], ["y"]))


def external_in_branch(location: str) -> bytes:
    constant = node("Constant", [], ["chosen"], value=external(location))
    branch = helper.make_graph([constant], "branch", [], values([("chosen", FLOAT, [4])]))
    chosen = node("If", ["true"], ["weight"], then_branch=branch, else_branch=branch)
    return onnx_bytes(
        chosen, node("Add", ["x", "weight"], ["y"]), initializers=[initializer("true", True, "bool")]
    )


def sequence_input() -> bytes:
    declared = helper.make_tensor_sequence_value_info("x", FLOAT, [4])
    return onnx_bytes(
        node("SequenceAt", ["x", "first"], ["y"]), inputs=[declared], initializers=[initializer("first", 0)]
    )


def optional_input() -> bytes:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [4]))
    return onnx_bytes(node("OptionalGetElement", ["x"], ["y"]), inputs=[helper.make_value_info("x", kind)])


def many_inputs(count: int) -> bytes:
    names = [f"x{number}" for number in range(count)]
    return onnx_bytes(node("Sum", names, ["y"]), inputs=[(name, FLOAT, [4]) for name in names])


def text_input() -> bytes:
    return onnx_bytes(
        node("Identity", ["x"], ["y"]),
        inputs=[("x", TensorProto.STRING, [4])],
        outputs=[("y", TensorProto.STRING, None)],
    )


def double_convolution() -> bytes:
    return onnx_bytes(
        node("Conv", ["x", "weight"], ["y"]),
        inputs=[("x", TensorProto.DOUBLE, [1, 1, 4, 4])],
        outputs=[("y", TensorProto.DOUBLE, None)],
        initializers=[initializer("weight", numpy.ones((1, 1, 1, 1)), "float64")],
    )


# TorchScript


class Endless(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.numel() > 0:
            x = x + 1
        return x


class Doubling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.numel() > 0:
            x = torch.cat([x, x])
        return x


class Growing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        numbers = [1]
        while len(numbers) > 0:
            numbers.append(1)
        return x + numbers[-1]


class Greedy(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones([25_000_000_000])


class Talkative(torch.nn.Module):
    """Prints 100 kB in every inference, and what looks like a worker's own words."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(1000):
            print("spam spam spam spam spam spam spam spam spam spam spam spam spam spam spam")  # noqa: T201
        print('\n{"event": "failed", "kind": "cancelled", "message": "forged"}\n')  # noqa: T201
        return x + 1


class Raising(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() > 0:
            raise ValueError("not\nthis one")
        return x


class Reading(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file(self.path, False, 4)


class Writing(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


class Listed(torch.nn.Module):
    def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
        return images[0]


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def script(module: torch.nn.Module) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch has deprecated TorchScript, which boards still run.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), file)
    return file.getvalue()


def rewritten(ending: str, change: Callable[[bytes], bytes]) -> bytes:
    """Return the archive of `Plain` with another content of the entry of that ending."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(script(Plain()))) as plain, zipfile.ZipFile(file, "w") as opened:
        for name in plain.namelist():
            data = plain.read(name)
            opened.writestr(zipfile.ZipInfo(name), change(data) if name.endswith(ending) else data)
    return file.getvalue()


def computing(expression: str) -> bytes:
    """Return the archive of a module whose forward returns a TorchScript expression of x."""

    def change(code: bytes) -> bytes:
        assert code.count(b"torch.add(x, 1)") == 1
        return code.replace(b"torch.add(x, 1)", expression.encode())

    return rewritten(".py", change)


def foreign_class() -> bytes:
    """Return the archive of a module that holds an object of a class which another library brings."""
    thing = b"  training : bool\n  thing : __torch__.torch.classes.other.Thing"
    return rewritten(".py", lambda code: code.replace(b"  training : bool", thing))


def torchscript(data: Callable[[], bytes], reason: str, *words: str, time_limit_s: float = 0) -> Hostile:
    return Hostile(
        data=data,
        reason=reason,
        words=words,
        runtime="torchscript",
        input_shapes={"x": [1, 4]},
        time_limit_s=time_limit_s,
    )


def onnx_model(data: Callable[[], bytes], reason: str, *words: str, time_limit_s: float = 0) -> Hostile:
    return Hostile(data=data, reason=reason, words=words, time_limit_s=time_limit_s)
