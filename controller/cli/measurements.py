"""How measurements look in a terminal and in JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from controller.cli.tables import ABSENT
from controller.core.measurement import FlagReason, Measurement
from controller.core.operators import by_layer, by_type


def measurement_json(device: str, measurement: Measurement) -> dict[str, Any]:
    """Return the figures of a measurement; the energy is null with the reason where nobody measured it."""
    latency, gpu = measurement.latency, measurement.gpu_peak_bytes
    return {
        "model": measurement.model_name,
        "device": device,
        "runtime": measurement.runtime,
        "runtime_version": measurement.runtime_version,
        "provider": measurement.provider,
        "threads": measurement.threads,
        "precision": measurement.precision,
        "batch_size": measurement.batch_size,
        "input_shapes": {name: list(shape) for name, shape in measurement.input_shapes.items()},
        "input_data": measurement.input_data,
        "seed": measurement.seed,
        "latency_ms": latency.median_ms,
        "latency_ms_ci_low": latency.median_ci_low_ms,
        "latency_ms_ci_high": latency.median_ci_high_ms,
        "latency_ms_p90": latency.p90_ms,
        "latency_ms_p99": latency.p99_ms,
        "samples": latency.samples,
        "drift_corrected_ms": measurement.drift_corrected_ms,
        "grouped": _dict(measurement.grouped),
        "load_ms": measurement.load_ms,
        "load_was_cold": measurement.load_was_cold,
        "warm_load_ms": measurement.warm_load_ms,
        "warm_load_absent_reason": measurement.warm_load_absent_reason or None,
        "first_inference_ms": measurement.first_inference_ms,
        "peak_memory_mb": measurement.peak_memory_mb,
        "gpu_peak_mb": None if gpu is None else gpu / 1e6,
        "energy_mj": measurement.energy_mj,
        "energy_absent_reason": measurement.energy_absent_reason or None,
        "energy_is_modelled": None if measurement.energy is None else measurement.energy.modelled,
        "energy": _dict(measurement.energy),
        "flags": list(measurement.flags),
        "flag_reasons": [asdict(reason) for reason in measurement.flag_reasons],
        "canary": _dict(measurement.canary),
        "canary_absent_reason": measurement.canary_absent_reason or None,
        "interference": _dict(measurement.interference),
        "discarded_attempts": [asdict(attempt) for attempt in measurement.discarded_attempts],
        "gate_wait_s": measurement.gate_wait_s,
        "execution": _dict(measurement.execution),
        "profile": profile_json(measurement),
        "profile_absent_reason": measurement.operators_absent_reason or None,
        "request_id": measurement.request_id,
        "model_sha256": measurement.model_sha256,
        "started_at": measurement.started_at.isoformat(),
        "agent_version": measurement.agent_version,
        "kernel_release": measurement.kernel_release,
    }


def profile_json(measurement: Measurement) -> dict[str, Any] | None:
    """Return where the time goes, by operator type and by layer; None where nobody asked."""
    if not measurement.operators:
        return None
    return {
        "by_operator_type": [asdict(share) for share in by_type(measurement.operators)],
        "by_layer": [{**asdict(time), "share": share} for time, share in by_layer(measurement.operators)],
    }


MEASUREMENT_HEADERS = (
    "model", "device", "runtime", "threads", "latency ms", "95 % interval", "p90 ms", "samples", "load ms",
    "memory MB", "energy mJ", "flags",
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
        number("energy_mj") + (" (modelled)" if figures["energy_is_modelled"] else ""),
        ", ".join(figures["flags"]) or ABSENT,
    ]


def measurement_details(measurement: Measurement) -> list[tuple[str, str]]:
    """Return everything that is known of a measurement as names and values for a table of two columns."""
    rows: list[tuple[str, str]] = []
    for name, value in asdict(measurement).items():
        match name, value:
            case (("samples_ms" | "warmup_ms" | "groups_ms" | "canary_turns"), _):
                rows.append((name, f"{len(value)} raw (--json)"))
            case "mode", _:
                rows.append((name, value.value))
            case (("flag_reasons" | "discarded_attempts" | "operators"), _):
                pass  # lists of things, each with a line of its own below
            case _, dict():
                rows += [(f"{name} {key}", _text(item)) for key, item in value.items()]
            case _, _:
                rows.append((name, _text(value)))
    rows += [(f"flag {reason.flag}", reason.reason) for reason in measurement.flag_reasons]
    for number, attempt in enumerate(measurement.discarded_attempts, start=1):
        why = _reasons(attempt.flag_reasons)
        rows.append(
            (f"discarded attempt {number}", f"{attempt.median_ms:.4g} ms of {attempt.samples} samples: {why}")
        )
    return rows


def _reasons(reasons: Iterable[FlagReason]) -> str:
    return "; ".join(f"{reason.flag}: {reason.reason}" for reason in reasons)


def _text(value: object) -> str:
    """Return a value as text; what is absent or empty as a dash."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or ABSENT
    return ABSENT if value is None or value == "" else str(value)


def _dict(part: Any) -> dict[str, Any] | None:
    return None if part is None else asdict(part)


def profile_rows(
    measurement: Measurement, layers: int
) -> tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]]:
    """Return the rows of two tables: operator types, and the slowest layers, at most so many."""
    types = [
        [share.operator_type, f"{100 * share.share:.1f} %", f"{share.mean_ms:.4g}", str(share.layers)]
        for share in by_type(measurement.operators)
    ]
    slowest = [
        [
            time.layer,
            time.operator_type,
            f"{100 * share:.1f} %",
            f"{time.mean_ms:.4g}",
            time.provider or ABSENT,
        ]
        for time, share in by_layer(measurement.operators)[:layers]
    ]
    return types, slowest
