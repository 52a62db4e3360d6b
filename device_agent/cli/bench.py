"""`edgenas-agent bench`: measures a model on this board, without a host and without a network."""

import contextlib
import hashlib
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import click

from device_agent.benchmark import Measurement
from device_agent.cli.options import (
    Refusal,
    json_option,
    measuring_config,
    measuring_options,
    state_dir_option,
)
from device_agent.cli.tables import print_table
from device_agent.errors import AgentError, InvalidRequestError
from device_agent.runtimes.catalogue import RUNTIMES


@click.command()
@click.argument("model", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--runtime", type=click.Choice(list(RUNTIMES)), show_default="by the file's ending")
@click.option("--threads", type=click.IntRange(min=0), default=0, show_default="physical cores")
@click.option("--affinity", default="", help="Processors for the threads, e.g. 0,1.")
@click.option("--provider", default="", show_default="cpu", help="Execution provider, e.g. xnnpack.")
@click.option("--input-shape", multiple=True, metavar="NAME=1,3,224,224", help="May be repeated.")
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--zeros", is_flag=True, help="Feed zeros rather than random numbers.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--search-mode", is_flag=True, help="Shorter, to rank candidates: a 2 % interval.")
@click.option("--profile", is_flag=True, help="Also tell where the time goes.")
@click.option("--no-energy", is_flag=True, help="Leave out the energy pass, which takes 20 s or more.")
@click.option(
    "--macs", type=click.IntRange(min=0), default=0, help="Of one inference, for --power-source modelled."
)
@state_dir_option
@measuring_options
@json_option
def bench(model: Path, state_dir: Path, as_json: bool, **options: Any) -> None:
    """Measure a model file on this board, and remember it in the agent's history."""
    from device_agent.board.description import describe_board
    from device_agent.measuring.baselines import BASELINES_FILE, Baselines
    from device_agent.measuring.measurer import Measurer
    from device_agent.measuring.timed_window import TimedWindow
    from device_agent.runtimes.worker_process import StopSignal
    from device_agent.serving.storage.history import HISTORY_FILE, History
    from device_agent.serving.storage.lock import holding
    from device_agent.serving.wire import answers, requests

    asked = {name: options.pop(name) for name in _ASKED}
    folder = state_dir.expanduser().absolute()
    try:
        config = measuring_config(state_dir=folder, **options)
        try:
            wanted = _request(model, **asked)
        except ValueError as error:
            raise InvalidRequestError(f"a number among the options is too large: {error}") from error
        request = requests.request_from_wire(wanted, describe_board(config.root))
        with (
            holding(folder),
            contextlib.closing(History(folder / HISTORY_FILE, answers.labels_in)) as history,
        ):
            measurer = Measurer(config, Baselines(folder / BASELINES_FILE), TimedWindow())
            try:
                record = measurer.measure(request, model.absolute(), StopSignal(), _say)
            finally:
                measurer.release()
            entry = answers.history_entry(request, record)
            history.add(entry)
    except AgentError as error:
        raise Refusal(error) from error
    if as_json:
        click.echo(json.dumps(answers.record_to_json(entry.record), indent=2))
        return
    print_table(answers.TABLE_COLUMNS, [answers.record_to_cells(entry.summary)])
    for raised in record.measurement.flags:
        click.echo(f"{raised.flag.name}: {raised.reason}")
    if record.measurement.execution.cpu_fallback:
        click.echo(f"provider {record.spec.provider}: {record.measurement.execution.cpu_fallback}")
    if record.measurement.warm_load_ms is None:
        click.echo(f"no warm load: {record.measurement.warm_load_absent_reason}")
    if record.measurement.operators_absent_reason:
        click.echo(f"no profile: {record.measurement.operators_absent_reason}")
    click.echo(_energy_line(record.measurement))
    if record.measurement.operators:
        print_table(
            ("layer", "operator", "ms", "calls"),
            (
                (entry.layer, entry.operator_type, f"{entry.mean_ms:.4f}", f"{entry.calls:g}")
                for entry in record.measurement.operators
            ),
        )


def _energy_line(measurement: Measurement) -> str:
    energy = measurement.energy
    if energy is None:
        return f"no energy: {measurement.energy_absent_reason}"
    if energy.modelled:
        return f"energy: {energy.net_mj:.4g} mJ an inference (modelled, {energy.calibration})"
    return f"energy: {energy.net_mj:.4g} mJ an inference beyond idle, by {energy.source} ({energy.covers})"


_ASKED = (
    "runtime",
    "threads",
    "affinity",
    "provider",
    "input_shape",
    "batch_size",
    "zeros",
    "seed",
    "search_mode",
    "profile",
    "no_energy",
    "macs",
)


def _request(model: Path, **asked: Any) -> Any:
    """Return what a host would send."""
    from edgenas.v1 import benchmark_pb2

    usual = (known.name for known in RUNTIMES.values() if model.suffix in known.endings)
    runtime = asked["runtime"] or next(usual, None)
    if runtime is None:
        endings = ", ".join(ending for known in RUNTIMES.values() for ending in known.endings)
        raise InvalidRequestError(
            f"'{model.name}' ends in none of {endings}; name its runtime with --runtime"
        )
    full, search = benchmark_pb2.MEASUREMENT_MODE_FULL, benchmark_pb2.MEASUREMENT_MODE_SEARCH
    zeros, random = benchmark_pb2.INPUT_DATA_ZEROS, benchmark_pb2.INPUT_DATA_RANDOM
    with model.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return benchmark_pb2.RunBenchmarkRequest(
        request_id=f"local-{uuid.uuid4().hex}",
        model_sha256=digest.hexdigest(),
        model_name=model.name,
        spec=benchmark_pb2.BenchmarkSpec(
            runtime=runtime,
            threads=asked["threads"],
            cpu_affinity=_integers(asked["affinity"], "--affinity"),
            provider=asked["provider"],
            input_shapes=[_shape(text) for text in asked["input_shape"]],
            batch_size=asked["batch_size"],
            input_data=zeros if asked["zeros"] else random,
            seed=asked["seed"],
            mode=search if asked["search_mode"] else full,
            profile=asked["profile"],
            energy=not asked["no_energy"],
            macs=asked["macs"],
        ),
    )


def _shape(text: str) -> Any:
    from edgenas.v1 import benchmark_pb2

    name, _, sizes = text.rpartition("=")
    return benchmark_pb2.InputShape(name=name, dimensions=_integers(sizes, "--input-shape"))


def _integers(text: str, option: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise InvalidRequestError(f"{option} has '{text}'; expected whole numbers with commas between")
    return [int(part) for part in parts]


def _say(progress: Any) -> None:
    """Show what is going on, where somebody is watching."""
    if sys.stderr.isatty():
        attempt = f" (attempt {progress.attempt})" if progress.attempt > 1 else ""
        click.echo(f"{progress.phase.value}{attempt} {progress.detail}".rstrip(), err=True)
