"""Modules as files for a device, each proven to compute what its module computes."""

import hashlib
import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from controller.core.errors import ExportError
from controller.core.measurement import ExportedModel, ModelFormat
from controller.models.module import NetworkModule
from controller.models.onnx import onnx_bytes

_TOLERANCE = 1e-4  # of the largest logit: runtimes fuse and reorder float32 sums
_CHECKS = 2

Logits = npt.NDArray[np.float32]


def export(module: NetworkModule, model_format: ModelFormat) -> ExportedModel:
    """Return the module as a file, in evaluation mode and float32, checked on random inputs.

    Args:
        module: On the CPU; left in evaluation mode.
        model_format: How to write it.

    Raises:
        ExportError: If the file's logits differ from the module's.
    """
    module.eval()
    data, run = _WRITERS[model_format](module)
    generator = torch.Generator().manual_seed(0)
    for _ in range(_CHECKS):
        images = torch.randn(1, *module.network.input_shape, generator=generator)
        with torch.inference_mode():
            expected = module(images).numpy()
        difference = float(np.abs(run(images) - expected).max())
        allowed = _TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if not difference <= allowed:
            raise ExportError(
                f"exported {model_format.value} differs from its module by {difference:.2g} in a logit; "
                f"expected at most {allowed:.2g}; please report this with the architecture"
            )
    return ExportedModel(
        data=data, format=model_format, sha256=hashlib.sha256(data).hexdigest(), precision="float32"
    )


def _onnx(module: NetworkModule) -> tuple[bytes, Callable[[torch.Tensor], Logits]]:
    data = onnx_bytes(module.network, module.state_dict())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: torch.Tensor) -> Logits:
        return np.asarray(session.run(None, {name: images.numpy()})[0], dtype=np.float32)

    return data, run


def _torchscript(module: NetworkModule) -> tuple[bytes, Callable[[torch.Tensor], Logits]]:
    jit: Any = torch.jit
    buffer = io.BytesIO()
    # Torch calls the format deprecated; the boards that ask for it have no other way to run a model.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=Warning)
        jit.save(jit.trace(module, torch.zeros(1, *module.network.input_shape)), buffer)
        loaded = jit.load(io.BytesIO(buffer.getvalue()))

    def run(images: torch.Tensor) -> Logits:
        with torch.inference_mode():
            return np.asarray(loaded(images).numpy(), dtype=np.float32)

    return buffer.getvalue(), run


_WRITERS: Mapping[ModelFormat, Callable[[NetworkModule], tuple[bytes, Callable[[torch.Tensor], Logits]]]] = {
    ModelFormat.ONNX: _onnx,
    ModelFormat.TORCHSCRIPT: _torchscript,
}
"""How to write each format, and how to run what was written."""
