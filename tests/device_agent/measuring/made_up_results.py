"""What a worker might have reported, made up: a measurement that nothing disturbed, to change one thing of."""

from typing import Any

from device_agent.benchmark import EnergyReading, ExecutionSettings, Interference, MemoryUsage
from device_agent.measuring.flags import Evidence
from device_agent.measuring.latency import summarise
from device_agent.measuring.worker_result import WorkerResult

MIB = 1 << 20
ENERGY = EnergyReading(
    net_mj=2.0,
    gross_mj=3.0,
    idle_mw=100.0,
    active_mw=300.0,
    source="ina2xx",
    scope="input",
    updates_per_s=50.0,
    inferences=100,
)


def worker_result(**changes: Any) -> WorkerResult:
    """60 samples of 10 ms in two turns, and the reference model at 2 ms in three."""
    values: dict[str, Any] = {
        "load_ms": 4.0,
        "load_was_cold": True,
        "first_inference_ms": 12.0,
        "warmup_ms": (10.0,) * 30,
        "samples_ms": (10.0,) * 60,
        "groups_ms": (),
        "group_runs": 0,
        "turn_ends": (30, 60),
        "canary_turns_ms": ((2.0,) * 5,) * 3,
        "canary_absent_reason": "",
        "longest_stall_ms": 0.5,
        "runs": 80,
        "paused_s": 0.0,
        "vain_s": 0.0,
        "involuntary_switches": 3,
        "major_faults": 0,
        "warmup_capped": False,
        "interval_reached": True,
        "memory": MemoryUsage(
            baseline_bytes=50 * MIB,
            after_load_bytes=60 * MIB,
            after_first_inference_bytes=70 * MIB,
            after_last_inference_bytes=70 * MIB,
            pss_bytes=40 * MIB,
            method="VmHWM",
        ),
        "gpu_peak_bytes": None,
        "input_shapes": (),
        "provider": "CPUExecutionProvider",
        "precision": None,
        "execution": ExecutionSettings(
            intra_op_threads=1,
            inter_op_threads=1,
            execution_mode="sequential",
            spinning=True,
            cpu_affinity=(),
        ),
    }
    return WorkerResult(**(values | changes))


def evidence(**changes: Any) -> Evidence:
    """Evidence of a clean attempt; `changes` name fields of the evidence, of the result or of the interference."""
    result = worker_result(**_taken(changes, WorkerResult))
    seen = Interference(**_taken(changes, Interference))
    values: dict[str, Any] = {
        "fills_board": False,
        "throttling": (),
        "clock_mhz": 2000.0,
        "expected_clock_mhz": 2000.0,
        "canary": None,
        "gate_obstacle": None,
    }
    return Evidence(
        result=result, latency=summarise(result.samples_ms), interference=seen, **(values | changes)
    )


def _taken(changes: dict[str, Any], kind: type) -> dict[str, Any]:
    """Take out of `changes` what names a field of a dataclass."""
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    # `major_faults` is counted by the worker and told as interference: flags look at the latter.
    own = [
        name for name in changes if name in fields and not (kind is WorkerResult and name == "major_faults")
    ]
    return {name: changes.pop(name) for name in own}
