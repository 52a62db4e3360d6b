"""Model files that a user brings, read one at a time: several of 500 MB need not fit into memory at once."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.core.errors import ConfigurationError, ExportError
from controller.core.measurement import ExportedModel, ModelFormat
from controller.core.options import Precision
from controller.models.inspection import (
    Shape,
    concrete_shapes,
    count_macs,
    onnx_inputs,
    parsed_onnx,
    torchscript_input_names,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model file as it was when it was first read.

    Attributes:
        name: What to call it.
        path: Where it is.
        format: How it is written.
        sha256: Digest of its content.
    """

    name: str
    path: Path
    format: ModelFormat
    sha256: str

    @classmethod
    def found(cls, name: str, path: Path, model_format: ModelFormat) -> "ModelFile":
        """Return the file at path.

        Raises:
            ConfigurationError: If it cannot be read.
        """
        try:
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise ConfigurationError(
                f"model {path} cannot be read: {error.strerror}; expected a file"
            ) from error
        return cls(name=name, path=path, format=model_format, sha256=digest)

    def read(self) -> ExportedModel:
        """Return its content.

        Raises:
            ConfigurationError: If it is not what it was, or gone.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"model {self.path} cannot be read any more: {error.strerror}"
            ) from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ConfigurationError(
                f"model {self.path} was changed while it was being measured; measure it again"
            )
        return ExportedModel(data=data, format=self.format, sha256=self.sha256, precision="as exported")

    def only_input(self) -> str:
        """Return the name of its only input.

        Raises:
            ConfigurationError: If it has several, or is no model.
        """
        if self.format is ModelFormat.TORCHSCRIPT:
            names = torchscript_input_names(self.path)
        else:
            names = list(onnx_inputs(self._parsed()))
        if len(names) != 1:
            raise ConfigurationError(
                f"model {self.path} has {len(names)} inputs; name the one meant: "
                f"--input-shape NAME=1,3,224,224 with NAME one of {', '.join(names)}"
            )
        return names[0]

    def refuse_fixed_batch(self, batch_size: int, shapes: Mapping[str, Shape]) -> None:
        """Refuse a batch size that the model cannot have.

        Args:
            batch_size: What is asked for; 0 asks for nothing.
            shapes: Shapes by input name that are asked for besides, and go first.

        Raises:
            ConfigurationError: If its inputs have a batch size of their own.
        """
        if not batch_size:
            return
        if self.format is ModelFormat.TORCHSCRIPT:
            raise ConfigurationError(
                "--batch-size needs a model that names its axes; the batch of a TorchScript model is the first size of --input-shape"
            )
        inputs = onnx_inputs(self._parsed())
        batches = [sizes[0] for name, sizes in inputs.items() if sizes and name not in shapes]
        if batches and all(batch not in (None, batch_size) for batch in batches):
            raise ConfigurationError(
                f"model {self.path} has a batch size of {batches[0]} of its own, so --batch-size {batch_size} cannot be had; "
                "export it with an open first axis"
            )

    def converted_to(
        self, precision: Precision, shapes: Mapping[str, Shape], batch_size: int, folder: Path
    ) -> "ModelFile":
        """Return the model in another precision, written into folder; in float32, itself.

        Raises:
            ConfigurationError: If it is no float32 ONNX model, or leaves axes open that shapes does not name.
            ExportError: If it cannot be converted.
        """
        if self.format is not ModelFormat.ONNX:
            raise ConfigurationError(
                f"model {self.path} is {self.format.value}, and only ONNX can be converted; leave --dtype out"
            )
        from controller.models.precision import converted  # imports the runtime, which few calls need

        try:
            data = converted(self.read().data, precision, shapes, batch_size)
        except (ConfigurationError, ExportError) as error:
            raise type(error)(f"model {self.path}: {error}") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest == self.sha256:
            return self
        path = folder / f"{digest}.onnx"
        path.write_bytes(data)
        return ModelFile(name=self.name, path=path, format=self.format, sha256=digest)

    def macs(self, shapes: Mapping[str, Shape], batch_size: int) -> int:
        """Return the multiply-accumulates of one inference.

        Raises:
            ConfigurationError: If they cannot be counted.
        """
        if self.format is not ModelFormat.ONNX:
            raise ConfigurationError(
                f"the MACs of {self.path} cannot be counted: it is {self.format.value}; export it to ONNX for a modelled power source"
            )
        model = self._parsed()
        try:
            return count_macs(model, concrete_shapes(model, shapes, batch_size))
        except ConfigurationError as error:
            raise ConfigurationError(f"model {self.path}: {error}") from error

    def _parsed(self) -> Any:
        try:
            return parsed_onnx(self.read().data)
        except ConfigurationError as error:
            raise ConfigurationError(f"model {self.path}: {error}") from error
