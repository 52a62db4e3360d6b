"""What `edgenas bench` tells: one object or row a model and device, and which differences are real."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controller.cli.measurements import (
    MEASUREMENT_HEADERS,
    measurement_json,
    measurement_row,
    profile_rows,
)
from controller.cli.tables import print_table, say
from controller.core.finalists import Difference, Finalist, between_processes, differences, ranks
from controller.core.measurement import Measurement

_SLOWEST_LAYERS = 10
_MEDIANS = (
    "latency_ms_p90",
    "latency_ms_p99",
    "load_ms",
    "warm_load_ms",
    "first_inference_ms",
    "peak_memory_mb",
    "gpu_peak_mb",
    "energy_mj",
)
_PER_PROCESS = (
    "grouped",
    "energy",
    "canary",
    "canary_absent_reason",
    "interference",
    "discarded_attempts",
    "gate_wait_s",
    "load_was_cold",
    "request_id",
    "started_at",
)


def device_report(device: str, measured: Mapping[str, Sequence[Measurement]]) -> list[dict[str, Any]]:
    """Return one object a model, the fastest first where several were compared.

    Args:
        device: What the user calls it.
        measured: One measurement a process by model name, as many for each model.
    """
    if all(len(processes) == 1 for processes in measured.values()):
        return [
            {**measurement_json(device, found), "processes": 1, "rank": None, "differences": []}
            for (found,) in measured.values()
        ]
    finalists = [Finalist.of(name, processes) for name, processes in measured.items()]
    found = differences(finalists)
    places = ranks(finalists, found)
    rows = [
        {
            **_over_processes(device, processes),
            "rank": places[name],
            "differences": [
                _seen_from(name, difference) for difference in found if name in _names(difference)
            ],
            "measurements": [measurement_json(device, process) for process in processes],
        }
        for name, processes in measured.items()
    ]
    return sorted(rows, key=lambda row: (row["rank"], row["latency_ms"]))


def _over_processes(device: str, processes: Sequence[Measurement]) -> dict[str, Any]:
    """Return figures over several processes: medians, and intervals of what the next process would give."""
    each = [measurement_json(device, process) for process in processes]
    shared = {name: value for name, value in each[0].items() if name not in _PER_PROCESS}
    compared = Finalist.of(each[0]["model"], processes)
    latency_ms, interval = between_processes(compared.medians_ms)
    corrected_ms, corrected = None, None
    if compared.drift_corrected_ms is not None:
        corrected_ms, corrected = between_processes(compared.drift_corrected_ms)
    return {
        **shared,
        **{name: _median(one[name] for one in each) for name in _MEDIANS},
        "latency_ms": latency_ms,
        "latency_ms_ci_low": interval.low,
        "latency_ms_ci_high": interval.high,
        "medians_ms": list(compared.medians_ms),
        "drift_corrected_ms": corrected_ms,
        "drift_corrected_ms_ci_low": corrected and corrected.low,
        "drift_corrected_ms_ci_high": corrected and corrected.high,
        "drift_corrected_medians_ms": [one["drift_corrected_ms"] for one in each],
        "samples": sum(one["samples"] for one in each),
        "processes": len(each),
        "energy_absent_reason": _reasons(one["energy_absent_reason"] for one in each),
        "warm_load_absent_reason": _reasons(one["warm_load_absent_reason"] for one in each),
        "flags": list(dict.fromkeys(flag for one in each for flag in one["flags"])),
        "flag_reasons": [
            {"process": number, **reason}
            for number, one in enumerate(each, start=1)
            for reason in one["flag_reasons"]
        ],
    }


def _median(values: Iterable[float | None]) -> float | None:
    """Return the median over processes; None where one of them did not tell."""
    known = list(values)
    return None if None in known else statistics.median(value for value in known if value is not None)


def _reasons(told: Iterable[str | None]) -> str | None:
    """Return each reason once; None where no process gave one."""
    return "; ".join(dict.fromkeys(reason for reason in told if reason)) or None


def _names(difference: Difference) -> tuple[str, str]:
    return difference.first, difference.second


def _seen_from(name: str, difference: Difference) -> dict[str, Any]:
    """Return a difference with the time of the model called name above in the ratio."""
    ratio, low, high = difference.ratio, difference.interval.low, difference.interval.high
    if name == difference.second:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    return {
        "other": difference.second if name == difference.first else difference.first,
        "time_ratio": ratio,
        "time_ratio_ci_low": low,
        "time_ratio_ci_high": high,
        "p_value": difference.p_value,
        "real": difference.real,
        "basis": difference.basis,
        "processes": difference.processes,
        "text": difference.text,
    }


def print_report(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print measurements as a table, then what a reader must know besides."""
    if any(row["rank"] for row in rows):
        body = [[str(row["rank"] or ""), *measurement_row(row)] for row in rows]
        print_table(("rank", *MEASUREMENT_HEADERS), body)
    else:
        print_table(MEASUREMENT_HEADERS, map(measurement_row, rows))
    for line in _lines(rows):
        say(line)


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    said: dict[str, None] = {}
    for row in rows:
        for difference in row["differences"]:
            said[f"{row['device']}: {difference['text']}"] = None
    if any(not difference["real"] for row in rows for difference in row["differences"]):
        said["smaller differences take more --rounds to tell"] = None
    for row in rows:
        subject = f"{row['model']} on {row['device']}"
        for reason in row["flag_reasons"]:
            process = f", process {reason['process']}" if "process" in reason else ""
            said[f"{subject}{process}: {reason['flag']}: {reason['reason']}"] = None
        if row["execution"] and row["execution"]["cpu_fallback"]:
            said[f"{subject}: {row['execution']['cpu_fallback']}"] = None
        for figure in ("warm_load", "profile"):
            if row[f"{figure}_absent_reason"]:
                said[f"{subject}: no {figure.replace('_', ' ')}: {row[f'{figure}_absent_reason']}"] = None
        if "note" in row:
            said[f"{row['model']}: {row['note']}"] = None
    for row in rows:
        if row["energy_absent_reason"]:
            said[f"no energy on {row['device']}: {row['energy_absent_reason']}"] = None
    return said


def print_profiles(device: str, measured: Mapping[str, Sequence[Measurement]]) -> None:
    """Print where the time of each model goes, where somebody asked."""
    for name, (first, *_) in measured.items():
        if not first.operators:
            continue
        types, slowest = profile_rows(first, _SLOWEST_LAYERS)
        say(f"where the time of {name} on {device} goes, timed in a pass of its own:")
        print_table(("operator", "share", "ms", "layers"), types)
        say(f"its slowest layers, {len(slowest)} of {len(first.operators)}:")
        print_table(("layer", "operator", "share", "ms", "provider"), slowest)
