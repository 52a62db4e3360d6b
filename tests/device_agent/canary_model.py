"""Writes `canary.onnx`, the reference model that every agent runs beside the models it measures.

    python tests/device_agent/canary_model.py

Its file is fixed: a figure says something about a board's speed only as long as the model stays the same.
Two branches run one after the other, because boards slow down in two ways: dense 3×3 convolutions, whose
4.5 MB of weights live in the outer caches, and depthwise-separable ones, which are bound by activations and by
how fast threads find each other. On a shared virtual machine (AMD EPYC, one thread, 0.3 s windows in turn with
60 ms of each branch, n = 62 a model) the spread of 2 s medians shrank, corrected by both: mobilenet_v2 2.5 % to
1.3 %, squeezenet1_1 1.4 to 0.7 %, resnet18 1.5 to 0.6 %; by the dense branch alone resnet18 did not improve,
by the separable one alone mobilenet_v2 hardly did.

The weights are constants that the runtime expands when it loads the graph, so the file stays small.
"""

from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

CANARY_FILE = Path(__file__).parents[2] / "device_agent/measuring/canary.onnx"
IMAGE_SIZE = 160
DENSE_SIZE = 64
# input channels, output channels, kernel, stride, groups
DENSE = ((3, 64, 3, 2, 1), (64, 64, 3, 1, 1), (64, 128, 3, 2, 1), (128, 128, 3, 1, 1), (128, 256, 3, 2, 1), (256, 256, 3, 1, 1))  # fmt: skip
SEPARABLE = ((32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1))
SEPARABLE_REPEATS = 2


class Branch:
    """A chain of convolutions with ReLU in the making; every weight is one over its fan-in."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.output = source
        self.nodes: list[onnx.NodeProto] = []
        self.shapes: list[onnx.TensorProto] = []

    def convolve(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        """Append one convolution and its ReLU."""
        prefix = f"{self.name}{len(self.shapes)}"
        shape = numpy.array([outputs, inputs // groups, kernel, kernel], dtype="int64")
        value = numpy.array([1 / (inputs // groups * kernel * kernel)], dtype="float32")
        self.shapes.append(numpy_helper.from_array(shape, f"{prefix}_shape"))
        self.nodes += [
            helper.make_node("ConstantOfShape", [f"{prefix}_shape"], [f"{prefix}_weight"], value=numpy_helper.from_array(value)),
            helper.make_node("Conv", [self.output, f"{prefix}_weight"], [f"{prefix}_sums"], pads=[kernel // 2] * 4, strides=[stride, stride], group=groups),
            helper.make_node("Relu", [f"{prefix}_sums"], [prefix]),
        ]  # fmt: skip
        self.output = prefix


def build() -> bytes:
    """Return the model as bytes; the same in every run."""
    dense = Branch("dense", "patch")
    for layer in DENSE:
        dense.convolve(*layer)
    separable = Branch("separable", "image")
    separable.convolve(3, 32, 3, 2, 1)
    for inputs, outputs, stride in SEPARABLE:
        separable.convolve(inputs, inputs, 3, stride, inputs)
        separable.convolve(inputs, outputs, 1, 1, 1)
    for _ in range(SEPARABLE_REPEATS):
        separable.convolve(256, 256, 3, 1, 256)
        separable.convolve(256, 256, 1, 1, 1)
    graph = helper.make_graph(
        [*separable.nodes, *dense.nodes],
        "canary",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, IMAGE_SIZE, IMAGE_SIZE]),
            helper.make_tensor_value_info("patch", TensorProto.FLOAT, [1, 3, DENSE_SIZE, DENSE_SIZE]),
        ],
        [
            helper.make_tensor_value_info(branch.output, TensorProto.FLOAT, None)
            for branch in (separable, dense)
        ],
        [*separable.shapes, *dense.shapes],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=6, producer_name="edgenas"
    )
    return model.SerializeToString(deterministic=True)


if __name__ == "__main__":
    CANARY_FILE.write_bytes(build())
