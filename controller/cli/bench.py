"""`edgenas bench`."""

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.cli.options import JsonOption
from controller.cli.tables import print_json
from controller.config import home
from controller.core.errors import BenchmarkFailedError, ConfigurationError
from controller.core.measurement import ModelFormat
from controller.core.options import InputData, MeasurementOptions, Precision
from controller.core.text import printable
from controller.devices.connect import connected
from controller.devices.description import MODELLED
from controller.devices.rounds import Entrant, measure_in_rounds
from controller.models.file import ModelFile

_ROUNDS = 3
_DTYPES = {"float32": Precision.FLOAT32, "float16": Precision.FLOAT16, "int8": Precision.INT8_QDQ}
_INT8_NOTE = "int8 weights were calibrated on random data: for timing only, their accuracy is meaningless"


def bench(
    model: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files.")],
    device: Annotated[list[str], typer.Option(help="Device to measure on. May be repeated.")],
    runtime: Annotated[ModelFormat, typer.Option(help="What runs the models.")] = ModelFormat.ONNX,
    provider: Annotated[
        str, typer.Option(help="Execution provider, as `edgenas devices show` lists them; the CPU otherwise.")
    ] = "",
    threads: Annotated[
        int, typer.Option(min=0, max=4096, help="Threads inside one operator; 0 for the physical cores.")
    ] = 0,
    affinity: Annotated[
        str, typer.Option(help="Processors to bind the threads to, one for each, e.g. 0,1.")
    ] = "",
    input_shape: Annotated[
        str, typer.Option(help="[NAME=]1,3,224,224 where the model leaves axes open; several with ';'.")
    ] = "",
    batch_size: Annotated[
        int, typer.Option(min=0, help="Size of open first axes that --input-shape does not name; 0 for 1.")
    ] = 0,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="[float32|float16|int8]",
            help="Convert the float32 ONNX model first; int8 on random data, for timing only.",
        ),
    ] = None,
    zeros: Annotated[bool, typer.Option("--zeros", help="Fill the inputs with zeros.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of random inputs; 0 otherwise.")
    ] = None,
    energy: Annotated[
        bool, typer.Option(help="Measure energy, where the device has a power source: 20 s more.")
    ] = True,
    power_source: Annotated[
        str,
        typer.Option(help="Where to read power, as `edgenas devices show` lists them; the best otherwise."),
    ] = "",
    profile: Annotated[
        bool, typer.Option("--profile", help="Tell where the time goes, in a pass of its own.")
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Fresh processes for each model, in turns; at least 3 where models are compared. 1 for one model, 3 for several.",
        ),
    ] = None,
    time_limit_s: Annotated[
        float,
        typer.Option(min=0, help="Give a job up after so many seconds on the board; 0 for its own limit."),
    ] = 0.0,
    patience_s: Annotated[
        float, typer.Option(help="Seconds to wait for a device that gives no answer.")
    ] = 60.0,
    json: JsonOption = False,
) -> None:
    """Measure model files on devices; of several, tell which differences are real.

    Several models take turns, each in at least three fresh processes. They are ranked on the interval between
    processes; "faster by 12 %" means 12 % less time.
    """
    count = _rounds(rounds, len(model))
    processors = _affinity(affinity, threads)
    options = MeasurementOptions(
        threads=threads or len(processors),
        provider=provider,
        batch_size=batch_size,
        precision=_precision(dtype),
        input_data=InputData.ZEROS if zeros else InputData.RANDOM,
        seed=_seed(seed, zeros=zeros),
        cpu_affinity=processors,
        time_limit_s=time_limit_s,
        profile=profile,
        energy=_energy(power_source, wanted=energy),
        power_source=power_source,
    )
    files = _files(model, runtime)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgenas-bench-")))
        entrants = [_entrant(file, options, input_shape, folder) for file in files]
        _measure_and_print(entrants, device, count, patience_s, json=json)


def _measure_and_print(
    entrants: Sequence[Entrant], devices: Sequence[str], rounds: int, patience_s: float, *, json: bool
) -> None:
    # Statistics come with a large library, which no other command needs.
    from controller.cli.bench_report import device_report, print_profiles, print_report

    failures: list[str] = []
    rows: list[dict[str, Any]] = []
    profiles = []
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(connected(name, home(), patience_s)) for name in dict.fromkeys(devices)
        }
        for name, client in clients.items():
            found = measure_in_rounds(client, entrants, rounds, partial(_say, name))
            failures += found.failures.values()
            rows += device_report(name, found.measured)
            profiles.append((name, found.measured))
    for row in rows:
        if entrants[0].options.precision is Precision.INT8_QDQ:
            row["note"] = _INT8_NOTE
    if json:
        print_json(rows)
    elif rows:
        print_report(rows)
        for name, measured in profiles:
            print_profiles(name, measured)
    if failures:
        raise BenchmarkFailedError("; ".join(failures))


def _say(device: str, model: str, event: str) -> None:
    """Show what is going on, where somebody is watching."""
    if sys.stderr.isatty():
        print(printable(f"{model} on {device}: {event}"), file=sys.stderr)


def _rounds(rounds: int | None, models: int) -> int:
    if rounds is None:
        return 1 if models == 1 else _ROUNDS
    if rounds < _ROUNDS and (models > 1 or rounds > 1):
        raise ConfigurationError(
            f"--rounds {rounds} is too few to compare {models} models; expected at least {_ROUNDS}"
            if models > 1
            else f"--rounds {rounds} gives no interval between processes; expected 1, or at least {_ROUNDS}"
        )
    return rounds


def _affinity(text: str, threads: int) -> tuple[int, ...]:
    try:
        processors = tuple(int(part) for part in text.split(",")) if text else ()
        if any(number < 0 for number in processors) or len(set(processors)) < len(processors):
            raise ValueError(text)
    except ValueError as error:
        raise ConfigurationError(
            f"affinity {text!r} is not understood; expected numbers of processors, each once, such as 0,1"
        ) from error
    if processors and threads not in (0, len(processors)):
        raise ConfigurationError(
            f"--affinity {text} names {len(processors)} processors for --threads {threads}; expected one for each thread"
        )
    return processors


def _precision(dtype: str | None) -> Precision | None:
    if dtype is not None and dtype not in _DTYPES:
        raise ConfigurationError(f"dtype {dtype!r} is unknown; expected one of {', '.join(_DTYPES)}")
    return _DTYPES[dtype] if dtype else None


def _seed(seed: int | None, *, zeros: bool) -> int:
    if zeros and seed is not None:
        raise ConfigurationError(f"--seed {seed} is of no use with --zeros; leave one of them out")
    return seed or 0


def _energy(power_source: str, *, wanted: bool) -> bool:
    if power_source and not wanted:
        raise ConfigurationError(
            f"--power-source {power_source} is of no use with --no-energy; leave one of them out"
        )
    return wanted


def _files(paths: Sequence[Path], runtime: ModelFormat) -> list[ModelFile]:
    """Return the model files, called by their file names or, where those are not unique, by their paths."""
    repeated = [path for path, count in Counter(paths).items() if count > 1]
    if repeated:
        raise ConfigurationError(f"model {repeated[0]} is given twice; expected each once")
    names = Counter(path.name for path in paths)
    return [
        ModelFile.found(path.name if names[path.name] == 1 else str(path), path, runtime) for path in paths
    ]


def _entrant(file: ModelFile, options: MeasurementOptions, input_shape: str, folder: Path) -> Entrant:
    """Return a model ready to be measured: shapes by input name, converted, its MACs counted where needed."""
    shapes = _shapes(input_shape, file) if input_shape else {}
    file.refuse_fixed_batch(options.batch_size, shapes)
    if options.precision is not None:
        file = file.converted_to(options.precision, shapes, options.batch_size, folder)
    macs = file.macs(shapes, options.batch_size) if options.power_source == MODELLED else None
    return Entrant(file=file, options=replace(options, input_shapes=shapes, macs=macs))


def _shapes(text: str, file: ModelFile) -> dict[str, tuple[int, ...]]:
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
        shapes[name.strip() or file.only_input()] = shape
    return shapes
