"""Options that several commands share, and what they mean."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from device_agent.errors import AgentError, RuntimeUnavailableError, SensorError, StartupError
from device_agent.measuring.gate import LIMIT_S as GATE_LIMIT_S
from device_agent.measuring.measurer import RETRIES, MeasuringConfig
from device_agent.measuring.power import PowerOptions
from device_agent.runtimes.confinement import Confinement
from device_agent.runtimes.worker_process import worker_environment
from device_agent.sensors.modelled import read_energy_model
from device_agent.sensors.raspberry_pi_pmic import read_calibration
from device_agent.worker import MEASURE_CAP_S

Command = TypeVar("Command", bound=Callable[..., Any])

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="EDGENAS_AGENT_HOME",
    default=Path("~/.edgenas-agent"),
    show_default=True,
    help="Folder of models and history; EDGENAS_AGENT_HOME sets it too.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, named as in the wire format.")
worker_python_option = click.option(
    "--worker-python",
    default=sys.executable,
    show_default="the agent's own",
    help="Python that runs the models; it needs numpy and onnxruntime or torch, and may be as old as 3.6.",
)
root_option = click.option(
    "--root",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="Read sensors, clocks and load below this folder: for a container that sees its host's /, and for tests.",
)

_POWER = (
    click.option(
        "--power-source",
        default="",
        show_default="the best sensor there is",
        help="Where power is read; `edgenas-agent doctor` lists the sources.",
    ),
    click.option(
        "--energy-model",
        type=click.Path(dir_okay=False, path_type=Path),
        help="JSON with picojoules_per_mac and picojoules_per_byte, for --power-source modelled: a formula, which is "
        "used only where the agent or a request names it.",
    ),
    click.option(
        "--power-calibration",
        type=click.Path(dir_okay=False, path_type=Path),
        help="JSON with slope and intercept_mw, for the rails of a Raspberry Pi 5.",
    ),
)
_MEASURING = (
    worker_python_option,
    root_option,
    click.option(
        "--job-timeout-s",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        help="Seconds after which a benchmark is given up.",
    ),
    click.option(
        "--gate-limit-s",
        type=click.FloatRange(min=0),
        default=GATE_LIMIT_S,
        show_default=True,
        help="Longest wait of an attempt for a cool and quiet board at its usual speed; 0 does without looking.",
    ),
    click.option(
        "--measure-limit-s",
        type=click.FloatRange(min=0, min_open=True),
        default=MEASURE_CAP_S,
        show_default=True,
        help="Longest time that an attempt takes samples for; figures that have not settled by then are flagged. Few seconds "
        "make quick, rough figures on a busy board.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0, max=10),
        default=RETRIES,
        show_default=True,
        help="Further attempts where flags say that something disturbed the figures.",
    ),
    click.option(
        "--require-sandbox",
        is_flag=True,
        help="Run no model where this board cannot keep it from network, files and other processes.",
    ),
    *_POWER,
)


def power_options(command: Command) -> Command:
    """Give a command the options of where power is read; `chosen_power` takes their values."""
    return _with_options(command, _POWER)


def measuring_options(command: Command) -> Command:
    """Give a command the options of how to measure; `measuring_config` takes their values."""
    return _with_options(command, _MEASURING)


def _with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def chosen_power(
    *, power_source: str, energy_model: Path | None, power_calibration: Path | None
) -> PowerOptions:
    """Return where power is read.

    Raises:
        StartupError: If a file cannot be understood, or no source has this name.
    """
    try:
        power = PowerOptions(
            source=power_source,
            energy_model=None if energy_model is None else read_energy_model(energy_model),
            calibration=None if power_calibration is None else read_calibration(power_calibration),
        )
        power.check()
    except SensorError as error:
        raise StartupError(str(error)) from error
    return power


def measuring_config(
    *,
    state_dir: Path,
    worker_python: str,
    root: Path,
    job_timeout_s: float,
    gate_limit_s: float,
    measure_limit_s: float,
    retries: int,
    require_sandbox: bool,
    **power: Any,
) -> MeasuringConfig:
    """Return how to measure.

    Raises:
        StartupError: If there is no such Python or power source, a file cannot be understood, or a layer of the sandbox
            is missing where none may be.
    """
    python = found_python(worker_python)
    confinement = Confinement(hidden=(state_dir,), required=require_sandbox)
    if require_sandbox:
        try:
            confinement.check(python, confinement.missing(python, worker_environment(python)))
        except RuntimeUnavailableError as error:
            raise StartupError(str(error)) from error
    return MeasuringConfig(
        worker_python=python,
        confinement=confinement,
        job_timeout_s=job_timeout_s,
        gate_limit_s=gate_limit_s,
        measure_limit_s=measure_limit_s,
        retries=retries,
        power=chosen_power(**power),
        root=root.absolute(),
    )


def found_python(worker_python: str) -> str:
    """Return the path of the Python that runs models.

    Raises:
        StartupError: If there is no such program.
    """
    executable = shutil.which(worker_python)
    if executable is None:
        raise StartupError(f"there is no program '{worker_python}' to start; check --worker-python")
    return executable


class Refusal(click.ClickException):
    """A mistake of the user or of the machine's state, in one line, with exit code 2."""

    exit_code = 2

    def __init__(self, error: AgentError | str) -> None:
        super().__init__(" ".join(str(error).split()))

    def show(self, file: Any = None) -> None:
        """Print the line to standard error."""
        click.echo(f"edgenas-agent: {self.message}", err=True)
