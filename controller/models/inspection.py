"""What a model file says of itself."""

import onnx
from google.protobuf.message import DecodeError

from controller.core.errors import ConfigurationError


def onnx_input_names(data: bytes) -> list[str]:
    """Return the names of an ONNX model's inputs, in order, without its weights.

    Raises:
        ConfigurationError: If data is no ONNX model.
    """
    try:
        graph = onnx.load_model_from_string(data).graph
    except DecodeError as error:
        raise ConfigurationError("the file is no ONNX model, or a part of one; export it again") from error
    weights = {initializer.name for initializer in graph.initializer}
    return [entry.name for entry in graph.input if entry.name not in weights]
