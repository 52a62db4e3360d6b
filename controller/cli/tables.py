"""How figures look in a terminal and in JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from controller.core.measurement import Measurement
from controller.core.objective import METRICS, Objective
from controller.core.trial import Trial

ABSENT = "–"


def console() -> Console:
    """Return standard output; wide enough for whole rows where it is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=200)


def print_json(rows: object) -> None:
    """Print rows as JSON, and nothing else."""
    print(json.dumps(rows, indent=2, default=str))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """Print rows of text under headers."""
    console().print(table(headers, rows, title=title))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> Table:
    """Return rows of text under headers, numbers to the right."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    body = [list(row) for row in rows]
    for index, header in enumerate(headers):
        numeric = any(row[index][:1].isdigit() for row in body) and index > 0
        made.add_column(header, justify="right" if numeric else "left", no_wrap=index == 0)
    for row in body:
        made.add_row(*row)
    return made


def figure(key: str, value: float | None) -> str:
    """Return a figure with its unit, by objective key."""
    if value is None:
        return ABSENT
    name = key.partition("@")[0]
    unit = METRICS[name].unit if name in METRICS else "fraction"
    if unit == "fraction":
        return f"{100 * value:.2f} %"
    return f"{value:.4g} {'M' if unit == '10^6' else unit}"


def trial_columns(objectives: Sequence[Objective]) -> list[str]:
    """Return the keys of the figures to show of a trial: the objectives, then what else is worth knowing."""
    keys = [objective.key for objective in objectives]
    return keys + [key for key in ("test_accuracy", "params_m", "macs_m") if key not in keys]


def trial_table(
    trials: Sequence[Trial], objectives: Sequence[Objective], *, title: str | None = None
) -> Table:
    """Return a table of trials."""
    keys = trial_columns(objectives)
    flags = ["flags"] if any(trial.flags for trial in trials) else []
    rows = [
        [trial.id, *(figure(key, trial.values.get(key)) for key in keys), *(_flags(trial) for _ in flags)]
        for trial in trials
    ]
    return table(["id", *keys, *flags], rows, title=title)


def _flags(trial: Trial) -> str:
    return ", ".join(f"{flag}@{device}" for device, flags in trial.flags.items() for flag in flags) or ABSENT


def trial_json(trial: Trial) -> dict[str, Any]:
    """Return everything that is known of a trial."""
    return {
        "id": trial.id,
        "index": trial.index,
        "state": trial.state.value,
        "reason": trial.reason,
        **trial.values,
        "violation": trial.violation,
        "epochs": trial.epochs,
        "training_s": trial.training_s,
        "measuring_s": trial.measuring_s,
        "measurements": dict(trial.measurements),
        "flags": {device: list(flags) for device, flags in trial.flags.items()},
        "architecture": dict(trial.architecture.values),
    }


def measurement_json(device: str, measurement: Measurement) -> dict[str, Any]:
    """Return the figures of a measurement; the energy is null with the reason where nobody measured it."""
    latency = measurement.latency
    return {
        "model": measurement.model_name,
        "device": device,
        "runtime": measurement.runtime,
        "runtime_version": measurement.runtime_version,
        "provider": measurement.provider,
        "threads": measurement.threads,
        "latency_ms": latency.median_ms,
        "latency_ms_ci_low": latency.median_ci_low_ms,
        "latency_ms_ci_high": latency.median_ci_high_ms,
        "latency_ms_p90": latency.p90_ms,
        "latency_ms_p99": latency.p99_ms,
        "samples": latency.samples,
        "load_ms": measurement.load_ms,
        "first_inference_ms": measurement.first_inference_ms,
        "peak_memory_mb": measurement.peak_memory_mb,
        "energy_mj": measurement.energy_mj,
        "energy_absent_reason": measurement.energy_absent_reason or None,
        "flags": list(measurement.flags),
        "request_id": measurement.request_id,
        "model_sha256": measurement.model_sha256,
        "started_at": measurement.started_at.isoformat(),
    }


MEASUREMENT_HEADERS = (
    "model", "device", "runtime", "threads", "latency ms", "95 % interval", "p90 ms", "samples", "load ms", "memory MB", "flags"
)  # fmt: skip


def measurement_row(figures: Mapping[str, Any]) -> list[str]:
    """Return the row under MEASUREMENT_HEADERS of what `measurement_json` gave."""

    def number(key: str) -> str:
        return ABSENT if figures[key] is None else f"{figures[key]:.4g}"

    return [
        figures["model"],
        figures["device"],
        figures["runtime_version"],
        str(figures["threads"]),
        number("latency_ms"),
        f"{number('latency_ms_ci_low')} – {number('latency_ms_ci_high')}",
        number("latency_ms_p90"),
        str(figures["samples"]),
        number("load_ms"),
        number("peak_memory_mb"),
        ", ".join(figures["flags"]) or ABSENT,
    ]
