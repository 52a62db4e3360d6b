"""The command in a home of its own, and model files to measure."""

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Command, command, environment
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def edgenas(home: Path) -> Command:
    """Return a function that runs the `edgenas` command in the test's home."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            timeout=240,
            env=environment(home),
            check=False,
        )

    return run


def write_linear(path: Path, inputs: int, outputs: int) -> Path:
    """Write a linear layer, `inputs` × `outputs` float32 weights, as ONNX."""
    weight = np.random.default_rng(0).standard_normal((inputs, outputs)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, inputs))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, outputs))],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture
def small_onnx(tmp_path: Path) -> Path:
    """Return a model of 16 kB."""
    return write_linear(tmp_path / "small.onnx", 64, 64)


@pytest.fixture
def large_onnx(tmp_path: Path) -> Path:
    """Return a model of 200 MB."""
    return write_linear(tmp_path / "large.onnx", 7072, 7072)
