import onnx
from hypothesis import given, settings
from random_networks import networks

from controller.core.network import INPUT, Network, NetworkBuilder
from controller.core.primitives import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
)
from controller.models.module import seeded_module
from controller.models.onnx import onnx_bytes


def exported(network: Network) -> onnx.ModelProto:
    return onnx.load_model_from_string(onnx_bytes(network, seeded_module(network, 0).state_dict()))


def every_primitive() -> Network:
    builder = NetworkBuilder(input_shape=(3, 9, 7))
    with builder.block("stem", "stem"):
        stem = builder.add(
            "relu", ReLU(), builder.add("bn", BatchNorm2d(), builder.add("conv", Conv2d(4, 3), INPUT))
        )
    with builder.block("layer_1", "pool"):
        largest = builder.add("max", MaxPool2d(3), stem)
        added = builder.add("add", Add(), largest, builder.add("mean", AvgPool2d(3), stem), stem)
    with builder.block("head", "head"):
        builder.add("classifier", Linear(10), builder.add("pool", GlobalAvgPool2d(), added))
    return builder.build()


def test_onnx_nodes_are_named_as_the_layers_are():
    nodes = exported(every_primitive()).graph.node
    assert [(node.name, node.op_type) for node in nodes] == [
        ("stem.conv", "Conv"),
        ("stem.bn", "BatchNormalization"),
        ("stem.relu", "Relu"),
        ("layer_1.max", "MaxPool"),
        ("layer_1.mean", "AveragePool"),
        ("layer_1.add", "Sum"),
        ("head.pool", "GlobalAveragePool"),
        ("head.pool.flatten", "Flatten"),
        ("head.classifier", "Gemm"),
    ]


@settings(max_examples=25, deadline=None)
@given(drawn=networks())
def test_onnx_model_holds_every_layer_of_a_network(drawn: Network):
    layers = [layer.name for layer in drawn.layers]
    names = [node.name for node in exported(drawn).graph.node]
    assert [name for name in names if name in layers] == layers
    # What takes several nodes prefixes their names with its own.
    assert all(name in layers or name.rpartition(".")[0] in layers for name in names)


def test_onnx_model_reads_one_image_and_gives_logits():
    graph = exported(every_primitive()).graph
    (image,), (logits,) = graph.input, graph.output
    assert (image.name, [axis.dim_value for axis in image.type.tensor_type.shape.dim]) == (
        "input",
        [1, 3, 9, 7],
    )
    assert (logits.name, [axis.dim_value for axis in logits.type.tensor_type.shape.dim]) == (
        "logits",
        [1, 10],
    )


def test_onnx_model_can_be_read_by_old_runtimes():
    model = exported(every_primitive())
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
