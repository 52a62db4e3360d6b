"""What the agent makes of the words in which runtimes of several versions say what is wrong."""

import pytest

from device_agent import worker

# From ONNX Runtime's sources and from reports of its users, the version before each.
ONNX_RUNTIME_SAYS = [
    ("1.1", "Could not find an implementation for the node Relu(1)", "unsupported_operator"),
    ("1.4", "Failed to find kernel for MemcpyFromHost(1) (node Memcpy_1)", "unsupported_operator"),
    ("1.5", "Unknown model file format version.", "unsupported_opset"),
    (
        "1.5",
        "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 13 "
        "is under development and support for this is limited. Current official support for domain ai.onnx is till "
        "opset 12.",
        "unsupported_opset",
    ),
    ("1.7", "Fatal error: _DCNv2 is not a registered function/op", "unsupported_operator"),
    (
        "1.7",
        "This is an invalid model. Error in Node: : No Op registered for ModulatedDeformConvFunction with domain_version of 12",
        "unsupported_operator",
    ),
    ("1.13", "Unsupported model IR version: 9, max supported IR version: 8", "unsupported_opset"),
    (
        "1.16",
        "Fatal error: my_bev_pool:bev_pool_v2(-1) is not a registered function/op",
        "unsupported_operator",
    ),
    (
        "1.16",
        "Non-zero status code returned while running ArgMin node. Available memory of 0 is smaller than requested bytes "
        "of 701267968",
        "out_of_memory",
    ),
    (
        "1.22",
        "Failed to find kernel for com.microsoft.EPContext(1) (node:'QNNContext' ep:'CPUExecutionProvider'). Kernel not "
        "found",
        "unsupported_operator",
    ),
    ("1.32", "Exception during initialization: std::bad_alloc", "out_of_memory"),
    ("1.32", "Failed to allocate memory for requested buffer of size 4000000000", "out_of_memory"),
    ("1.32", "Calculation for Tensor storage size overflowed", "out_of_memory"),
    ("1.32", "Could not find an implementation for Conv(11) node with name ''", "unsupported_operator"),
    ("1.32", "This is an invalid model. Error: the graph is not acyclic.", "invalid_model"),
    ("1.32", "", "invalid_model"),
]
TORCH_SAYS = [
    (
        "1.8",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12",
        "out_of_memory",
    ),
    ("1.10", "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.", "out_of_memory"),
    ("1.10", "CUDA out of memory. Tried to allocate 20.00 MiB", "out_of_memory"),
    ("1.10", "\"addmm_impl_cpu_\" not implemented for 'Half'", "unsupported_operator"),
    ("1.10", "Unknown builtin op: torchvision::nms.", "unsupported_operator"),
    ("1.10", "'Tensor' object has no attribute or method 'vecdot'.", "unsupported_operator"),
    (
        "1.13",
        "Could not run 'aten::thnn_conv2d_forward' with arguments from the 'QuantizedCPU' backend.",
        "unsupported_operator",
    ),
    (
        "1.13",
        "Tried to instantiate class 'other.Thing', but it does not exist! Ensure that it is registered via torch::class_",
        "custom_operator",
    ),
    (
        "2.14",
        "Attempted to read a PyTorch file with version 99, but the maximum supported version for reading is 10.",
        "unsupported_opset",
    ),
    ("2.14", "Storage size calculation overflowed with sizes=[4611686018427387904, 8]", "out_of_memory"),
    ("2.14", "ZeroDivisionError", "invalid_model"),
]


def spoken(said: list[tuple[str, str, str]]) -> list:
    return [
        pytest.param(text, kind, id=f"{version} {text[:40]}".rstrip("\\ '\"")) for version, text, kind in said
    ]


@pytest.mark.parametrize(("text", "kind"), spoken(ONNX_RUNTIME_SAYS))
def test_words_of_onnx_runtime_are_understood(text: str, kind: str):
    assert worker.OnnxRuntime().fault(RuntimeError(text), "load").kind == kind


@pytest.mark.parametrize(("text", "kind"), spoken(TORCH_SAYS))
def test_words_of_torch_are_understood(text: str, kind: str):
    assert worker.TorchScriptRuntime().fault(RuntimeError(text), "run").kind == kind


def test_place_in_the_sources_of_onnx_runtime_is_left_out():
    told = worker.OnnxRuntime().fault(
        RuntimeError(
            "[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:256 "
            "onnxruntime::Model::Model(onnx::ModelProto&&, const std::function<void(int)>&, bool) Unsupported model IR "
            "version: 99, max supported IR version: 14"
        ),
        "load",
    )
    assert str(told) == (
        "onnxruntime cannot load the model: [ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:Unsupported model "
        "IR version: 99, max supported IR version: 14; export the model for an older operator set or install a newer runtime"
    )


def test_reason_counts_behind_any_length_of_torchscript_code():
    code = "    x = torch.add(x, 1)\n" * 500
    told = worker.TorchScriptRuntime().fault(
        RuntimeError(
            "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript (most recent call last):\n"
            f"{code}    return torch.ones([9])\n           ~~~~~~~~~~ <--- HERE\n    return x\n"
            "RuntimeError: [enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.\n"
        ),
        "run",
    )
    assert told.kind == "out_of_memory"
    assert str(told) == (
        "torch cannot run the model: RuntimeError: [enforce fail] DefaultCPUAllocator: not enough memory: you tried to "
        "allocate 9 bytes.; measure a smaller model or batch"
    )


def test_long_text_keeps_its_beginning_and_its_end():
    text = "begin " + "middle " * 200 + "end"
    short = worker.shortened(text, 60)
    assert (len(short), short[:6], short[-3:]) == (60, "begin ", "end")
    assert " ... " in short
    assert worker.shortened("as it is", 8) == "as it is"


def test_text_of_a_model_is_shown_in_one_line():
    assert worker.printable(" a\r\n\tb\x1b[31m\u202e\ud800漢 ") == "a b?[31m??漢"
