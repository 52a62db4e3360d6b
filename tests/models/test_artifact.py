import hashlib
import io

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from random_networks import SEEDS, networks

from controller.core.errors import ExportError
from controller.core.measurement import ModelFormat
from controller.core.network import INPUT, Network, NetworkBuilder
from controller.core.primitives import AvgPool2d, Conv2d, GlobalAvgPool2d, Linear
from controller.models.artifact import export
from controller.models.module import NetworkModule, seeded_module

every_format = pytest.mark.parametrize("model_format", ModelFormat)
# Torch calls the format deprecated; EdgeNAS writes it for boards that read nothing else.
reads_torchscript = pytest.mark.filterwarnings("ignore:.*torch.jit")


def network() -> Network:
    builder = NetworkBuilder(input_shape=(1, 8, 8))
    with builder.block("stem", "stem"):
        stem = builder.add("pool", AvgPool2d(3), builder.add("conv", Conv2d(4, 3), INPUT))
    with builder.block("head", "head"):
        builder.add("classifier", Linear(3), builder.add("pool", GlobalAvgPool2d(), stem))
    return builder.build()


def used_module(network: Network, seed: int) -> NetworkModule:
    """Return a module whose batch norms are not the identity, as after training."""
    module = seeded_module(network, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.dim() == 1 and tensor.is_floating_point() and "classifier" not in name:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def run(data: bytes, model_format: ModelFormat, images: torch.Tensor) -> np.ndarray:
    if model_format is ModelFormat.TORCHSCRIPT:
        with torch.inference_mode():
            return torch.jit.load(io.BytesIO(data))(images).numpy()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"input": images.numpy()})[0])


@reads_torchscript
@every_format
@settings(max_examples=25, deadline=None)
@given(drawn=networks(), seed=SEEDS)
def test_exported_model_computes_what_its_module_computes(
    model_format: ModelFormat, drawn: Network, seed: int
):
    module = used_module(drawn, seed)
    images = torch.randn(1, *drawn.input_shape, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        expected = module(images).numpy()
    logits = run(export(module, model_format).data, model_format, images)
    largest = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * largest)


@every_format
def test_exported_model_is_described(model_format: ModelFormat):
    model = export(seeded_module(network(), 0), model_format)
    assert model.format is model_format
    assert model.sha256 == hashlib.sha256(model.data).hexdigest()
    assert model.precision == "float32"


def test_equal_modules_are_exported_to_equal_bytes():
    first, second = (export(seeded_module(network(), 0), ModelFormat.ONNX) for _ in range(2))
    assert first == second


def test_export_is_in_evaluation_mode():
    module = seeded_module(network(), 0).train()
    export(module, ModelFormat.ONNX)
    assert not module.training


class Dishonest(NetworkModule):
    """Computes something else than its network."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + 0.01


def test_export_refuses_a_file_that_differs_from_the_module():
    with pytest.raises(ExportError, match=r"exported onnx differs from its module by 0\.01 in a logit"):
        export(Dishonest(network()), ModelFormat.ONNX)


@every_format
def test_export_refuses_weights_that_give_no_numbers(model_format: ModelFormat):
    module = seeded_module(network(), 0)
    with torch.no_grad():
        module.get_parameter("head.classifier.bias").fill_(float("nan"))
    with pytest.raises(ExportError, match=f"exported {model_format.value} differs from its module by nan"):
        export(module, model_format)
