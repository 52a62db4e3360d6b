"""`edgenas bench`."""

import hashlib
import sys
import uuid
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.cli.options import JsonOption
from controller.cli.tables import (
    MEASUREMENT_HEADERS,
    measurement_json,
    measurement_row,
    print_json,
    print_table,
)
from controller.config import home
from controller.core.errors import BenchmarkFailedError, ConfigurationError
from controller.core.measurement import ExportedModel, MeasurementMode, ModelFormat
from controller.devices.connect import connected
from controller.models.inspection import onnx_input_names


def bench(
    model: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files.")],
    device: Annotated[list[str], typer.Option(help="Device to measure on. May be repeated.")],
    runtime: Annotated[ModelFormat, typer.Option(help="What runs the models.")] = ModelFormat.ONNX,
    threads: Annotated[
        int, typer.Option(min=0, max=4096, help="Threads inside one operator; 0 for the physical cores.")
    ] = 0,
    input_shape: Annotated[
        str | None,
        typer.Option(help="[NAME=]1,3,224,224 where the model leaves axes open; several with ';'."),
    ] = None,
    patience_s: Annotated[
        float, typer.Option(help="Seconds to wait for a device that gives no answer.")
    ] = 60.0,
    json: JsonOption = False,
) -> None:
    """Measure model files on devices."""
    models = [(path, _read(path, runtime)) for path in model]
    shapes = {path: _shapes(input_shape, path, exported) if input_shape else {} for path, exported in models}
    measured: list[dict[str, Any]] = []
    failures: list[str] = []
    with ExitStack() as stack:
        clients = {name: stack.enter_context(connected(name, home(), patience_s)) for name in device}
        for path, exported in models:
            for name, client in clients.items():
                try:
                    measurement = client.measure(
                        exported,
                        request_id=f"bench-{uuid.uuid4().hex}",
                        model_name=path.name,
                        mode=MeasurementMode.FULL,
                        threads=threads,
                        input_shapes=shapes[path],
                        on_event=partial(_say, f"{path.name} on {name}"),
                    )
                except BenchmarkFailedError as error:
                    failures.append(str(error))
                else:
                    measured.append(measurement_json(name, measurement))
    if json:
        print_json(measured)
    elif measured:
        print_table(MEASUREMENT_HEADERS, map(measurement_row, measured))
    if failures:
        raise BenchmarkFailedError("; ".join(failures))


def _say(subject: str, event: str) -> None:
    """Show what is going on, where somebody is watching."""
    if sys.stderr.isatty():
        print(f"{subject}: {event}", file=sys.stderr)


def _read(path: Path, model_format: ModelFormat) -> ExportedModel:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"model {path} cannot be read: {error.strerror}; expected a file") from error
    return ExportedModel(
        data=data, format=model_format, sha256=hashlib.sha256(data).hexdigest(), precision="as exported"
    )


def _shapes(text: str, path: Path, model: ExportedModel) -> dict[str, tuple[int, ...]]:
    """Return shapes by input name; a shape without a name is that of the model's only input."""
    shapes = {}
    for part in text.split(";"):
        name, _, sizes = part.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
            if min(shape) < 1:
                raise ValueError(sizes)
        except ValueError as error:
            raise ConfigurationError(
                f"input shape {part!r} is not understood; expected sizes of at least 1 such as 1,3,224,224 or NAME=1,3,224,224"
            ) from error
        shapes[name.strip() or _only_input(path, model)] = shape
    return shapes


def _only_input(path: Path, model: ExportedModel) -> str:
    names = onnx_input_names(model.data)
    if len(names) != 1:
        raise ConfigurationError(
            f"model {path} has {len(names)} inputs; name the one meant: --input-shape NAME=1,3,224,224 with NAME one of {', '.join(names)}"
        )
    return names[0]
