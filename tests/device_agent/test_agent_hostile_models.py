"""An agent that is given models which crash, hang, eat memory or make no sense, and goes on."""

import platform
from collections.abc import Iterator

import hostile_models as hm
import pytest
from agent_harness import Agent, spec
from edgenas.v1 import benchmark_pb2
from hostile_models import assert_sound, bounded_agent, first_record, onnx_model, torchscript, upload

LONG_NAME = "very long name " * 200

SHAPES = {
    "a negative size": ([1, -5], "[1, -5]"),
    "a size of zero": ([1, 0], "[1, 0]"),
    "the largest number": ([2**63 - 1], "[9223372036854775807]"),
    "a NaN that became an integer": ([-(2**63), 4], "[-9223372036854775808, 4]"),
    "sizes whose product overflows": ([2**40, 2**40], "[1099511627776, 1099511627776]"),
}
HOSTILE = {
    # The runtime crashes.
    "a tree deeper than the stack": onnx_model(
        lambda: hm.deep_tree(100_000), "WORKER_DIED", "was killed by SIGSEGV", "run it alone to see"
    ),
    "code deeper than the stack": torchscript(
        lambda: hm.computing("(" * 100_000 + "x" + ")" * 100_000), "WORKER_DIED", "was killed by SIGSEGV"
    ),
    # It allocates without end.
    "a tensor that doubles": onnx_model(
        lambda: hm.loop(hm.doubling_step(), size=None),
        "OUT_OF_MEMORY",
        "running Concat node",
        "measure a smaller model or batch",
    ),
    "100 GB at once": onnx_model(
        lambda: hm.expanded(25 * 10**9), "OUT_OF_MEMORY", "requested buffer of size 100000000000"
    ),
    "an output of 4 GB": onnx_model(lambda: hm.expanded(10**9), "OUT_OF_MEMORY", "size 4000000000"),
    "more than can be addressed": onnx_model(lambda: hm.expanded(2**62), "OUT_OF_MEMORY", "overflow"),
    "a constant of 4 GB": onnx_model(lambda: hm.filled(10**9), "OUT_OF_MEMORY", "cannot"),
    "an input of 16 TiB": onnx_model(
        lambda: hm.relu([2**40, 4]), "OUT_OF_MEMORY", "cannot make the inputs: Unable to allocate"
    ),
    "a TorchScript tensor that doubles": torchscript(
        lambda: hm.script(hm.Doubling()), "OUT_OF_MEMORY", "can't allocate memory: you tried to allocate"
    ),
    "a TorchScript list that grows": torchscript(
        lambda: hm.script(hm.Growing()), "OUT_OF_MEMORY", "bad_alloc"
    ),
    "a TorchScript tensor of 100 GB": torchscript(
        lambda: hm.script(hm.Greedy()), "OUT_OF_MEMORY", "tried to allocate 100000000000 bytes"
    ),
    # It never returns.
    "a loop without end": onnx_model(
        lambda: hm.loop(hm.node("Relu", ["before"], ["after"])),
        "TIMED_OUT",
        "longer than its time limit of 1 s",
        "raise time_limit_s and the agent's --job-timeout-s",
        time_limit_s=1,
    ),
    "a loop without end over constants": onnx_model(
        lambda: hm.loop(hm.node("Relu", ["before"], ["after"]), constant=True),
        "TIMED_OUT",
        "longer than its time limit of 1 s",
        time_limit_s=1,
    ),
    "a billion functions": onnx_model(
        lambda: hm.billion_functions(60), "TIMED_OUT", "longer than its time limit of 1 s", time_limit_s=1
    ),
    "a TorchScript loop without end": torchscript(
        lambda: hm.script(hm.Endless()), "TIMED_OUT", "longer than its time limit of 6 s", time_limit_s=6
    ),
    # Shapes.
    **{
        name: onnx_model(
            lambda shape=shape: hm.relu(shape), "INVALID_SHAPE", f"the shape {shown}, and no array"
        )
        for name, (shape, shown) in SHAPES.items()
    },
    "axes of the name nan": onnx_model(
        lambda: hm.relu(["nan", "nan"]),
        "OPEN_SHAPE",
        "input 'x' has open axes in [nan, nan]; give its full shape",
    ),
    "an axis without a size": onnx_model(
        lambda: hm.relu([1, None, -1]),
        "OPEN_SHAPE",
        "input 'x' has open axes in [1, ?, ?]; give its full shape",
    ),
    "a size computed as NaN": onnx_model(
        lambda: hm.shape_from_nan(zero=[1]), "INVALID_MODEL", "got -9223372036854775808"
    ),
    "a constant size of NaN": onnx_model(
        lambda: hm.shape_from_nan(), "INVALID_MODEL", "Invalid dimension value: -9223372036854775808"
    ),
    "a TorchScript input without a shape": hm.Hostile(
        data=lambda: hm.script(hm.Plain()),
        reason="OPEN_SHAPE",
        words=("the model declares no shape for its input 'x'",),
        runtime="torchscript",
    ),
    "a TorchScript size below zero": torchscript(
        lambda: hm.computing("torch.ones([-5])"), "INVALID_MODEL", "negative dimension -5: [-5]"
    ),
    # Too new.
    "an operator set of the future": onnx_model(
        lambda: hm.relu(opsets={"": 99}),
        "UNSUPPORTED_OPSET",
        "Opset 99 is under development",
        "export the model for an older operator set or install a newer runtime",
    ),
    "a format of the future": onnx_model(
        lambda: hm.relu(ir_version=99), "UNSUPPORTED_OPSET", "Unsupported model IR version: 99"
    ),
    "a TorchScript format of the future": torchscript(
        lambda: hm.rewritten("/version", lambda _: b"99\n"), "UNSUPPORTED_OPSET", "with version 99"
    ),
    # Operators.
    "an operator that ONNX lacks": onnx_model(
        lambda: hm.onnx_bytes(hm.node("Frobnicate", ["x"], ["y"])),
        "UNSUPPORTED_OPERATOR",
        "No Op registered for Frobnicate",
    ),
    "an operator that the runtime's own domain lacks": onnx_model(
        lambda: hm.onnx_bytes(
            hm.node("Frobnicate", ["x"], ["y"], domain="com.microsoft"), opsets={"": 17, "com.microsoft": 1}
        ),
        "UNSUPPORTED_OPERATOR",
        "com.microsoft:Frobnicate(-1) is not a registered function/op",
    ),
    "an operator without a kernel for its type": onnx_model(
        hm.double_convolution, "UNSUPPORTED_OPERATOR", "Could not find an implementation for Conv(11)"
    ),
    "an operator of torchvision": torchscript(
        lambda: hm.computing("ops.torchvision.nms(x, x, 0.5)"),
        "UNSUPPORTED_OPERATOR",
        "Unknown builtin op: torchvision::nms",
    ),
    "a class of another library": torchscript(
        hm.foreign_class,
        "CUSTOM_OPERATOR",
        "Unknown type name '__torch__.torch.classes.other.Thing'",
        "this agent loads no library of operators",
    ),
    "a custom operator": onnx_model(
        lambda: hm.onnx_bytes(
            hm.node("Magic", ["x"], ["y"], domain="com.example"), opsets={"": 17, "com.example": 1}
        ),
        "CUSTOM_OPERATOR",
        "uses Magic of the domain 'com.example'",
    ),
    # Other files.
    "weights in another file": onnx_model(
        lambda: hm.external_initializer("weights.bin"), "EXTERNAL_DATA", "in the file 'weights.bin'"
    ),
    "TorchScript that writes a file": torchscript(
        lambda: hm.script(hm.Writing("/nowhere")), "EXTERNAL_DATA", "the code of the model names 'save'"
    ),
    # Inputs and outputs that cannot be.
    "an input of text": onnx_model(hm.text_input, "INVALID_MODEL", "input 'x' is a tensor(string)"),
    "an input of a sequence": onnx_model(hm.sequence_input, "INVALID_MODEL", "is a seq(tensor(float))"),
    "an input that is optional": onnx_model(
        hm.optional_input, "INVALID_MODEL", "is a optional(tensor(float))"
    ),
    "a TorchScript input of a list": torchscript(
        lambda: hm.script(hm.Listed()), "INVALID_MODEL", "argument 'images' of forward is a List[Tensor]"
    ),
    "10,000 inputs": onnx_model(
        lambda: hm.many_inputs(10_000),
        "INVALID_MODEL",
        "more than 20000 operators, functions and axes of inputs",
    ),
    "no output": onnx_model(
        lambda: hm.onnx_bytes(hm.node("Relu", ["x"], ["y"]), outputs=()), "INVALID_MODEL", "one output"
    ),
    "an input whose name breaks the line": onnx_model(
        lambda: hm.relu(["n", "\nh\x1b[2J"], name="\r\nx\x1b[31m漢字"),
        "OPEN_SHAPE",
        "input ' x?[31m漢字' has open axes in [n, h?[2J]",
    ),
    "an input whose name does not end": onnx_model(
        lambda: hm.relu(["n", "h"], name=LONG_NAME),
        "OPEN_SHAPE",
        "input 'very long name",
        " ... ",
        "1,3,224,224",
    ),
    "an input whose name is no text": onnx_model(
        lambda: hm.relu(name="QQQQ").replace(b"QQQQ", b"\xff\xfe\xfdQ"), "INVALID_MODEL", "is no text"
    ),
    # Broken TorchScript.
    "TorchScript that raises": torchscript(
        lambda: hm.script(hm.Raising()), "INVALID_MODEL", "builtins.ValueError: not this one"
    ),
    "code that calls itself": torchscript(
        lambda: hm.computing("(self).forward(x, )"), "INVALID_MODEL", "Recursive calls are not supported"
    ),
    "code that is none": torchscript(
        lambda: hm.computing("ret urn (x"), "INVALID_MODEL", "torch cannot load"
    ),
    "no archive": torchscript(lambda: b"no archive " * 9, "INVALID_MODEL", "is no TorchScript archive"),
    "a pickle that runs a program": torchscript(
        lambda: hm.rewritten("/data.pkl", lambda _: b"cposix\nsystem\n(S'false'\ntR."),
        "INVALID_MODEL",
        "PROTO",
    ),
    "a pickle of marks alone": torchscript(
        lambda: hm.rewritten("/data.pkl", lambda _: b"\x80\x02" + b"(" * 100_000 + b"."),
        "INVALID_MODEL",
        "stack",
    ),
    "no pickle": torchscript(
        lambda: hm.rewritten("/data.pkl", lambda _: b""), "INVALID_MODEL", "Unexpected end"
    ),
}
if platform.machine() == "x86_64":
    # Other processors divide on.
    HOSTILE["a division that overflows"] = onnx_model(
        hm.overflowing_division,
        "WORKER_DIED",
        "was killed by SIGFPE",
        "the model may have crashed the runtime",
    )
# One of each kind; the others take as long again, several times.
QUICK = (
    "a tree deeper than the stack",
    "a tensor that doubles",
    "a loop without end",
    "a NaN that became an integer",
    "an axis without a size",
    "an operator set of the future",
    "an operator that ONNX lacks",
    "weights in another file",
    "a custom operator",
    "an input whose name breaks the line",
)


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with bounded_agent(tmp_path_factory.mktemp("bounded")) as running:
        yield running


@pytest.fixture(scope="module")
def earlier(bounded: Agent) -> bytes:
    """A record from before all the hostile models."""
    return first_record(bounded)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in HOSTILE]
)
def test_agent_refuses_a_hostile_model_and_goes_on(bounded: Agent, earlier: bytes, name: str):
    hostile = HOSTILE[name]
    failure = bounded.fail(hostile.upload(bounded), hostile.spec())
    assert benchmark_pb2.FailureReason.Name(failure.reason) == f"FAILURE_REASON_{hostile.reason}", failure
    for word in hostile.words:
        assert word in failure.message
    assert failure.message.isprintable()
    assert len(failure.message) <= 1200
    assert_sound(bounded, earlier)


@pytest.mark.slow
def test_agent_measures_what_is_only_odd(bounded: Agent):
    odd = {
        "no input": hm.onnx_bytes(hm.node("Constant", [], ["y"], value_floats=[1.0]), inputs=()),
        "4,000 inputs": hm.many_inputs(4_000),
        "a name with a NUL": hm.relu(name="x\0x"),
        "an open batch of -1": hm.relu([-1, 4]),
    }
    shapes = {}
    for name, data in odd.items():
        record = bounded.measure(upload(bounded, data))
        shapes[name] = [list(shape.dimensions) for shape in record.spec.input_shapes]
    assert shapes == {
        "no input": [],
        "4,000 inputs": [[4]] * 4_000,
        "a name with a NUL": [[1, 4]],
        "an open batch of -1": [[1, 4]],
    }


@pytest.mark.slow
def test_prints_of_a_model_stay_out_of_the_protocol(bounded: Agent):
    sha256 = upload(bounded, hm.script(hm.Talkative()), "torchscript")
    assert bounded.measure(sha256, spec(runtime="torchscript", x=[1, 4])).measurement.latency.samples >= 64
