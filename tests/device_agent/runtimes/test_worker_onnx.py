"""What ONNX Runtime does differently with its version and its providers, in a real worker where there is one."""

import re
from pathlib import Path

import onnxruntime
import psutil
import pytest
from agent_harness import conv_model
from worker_jobs import Job, allowed_cpus, python_that, run_job

from device_agent import worker
from device_agent.benchmark import BenchmarkSpec, MeasurementMode, Phase
from device_agent.measuring.worker_result import parse_insight, parse_result

CPUS = psutil.Process().cpu_affinity()
# It takes whole requests to the cloud, and no node of any model.
NO_NODES = "AzureExecutionProvider"
SPEC = BenchmarkSpec(runtime="onnx", threads=1, input_shapes=(), seed=0, mode=MeasurementMode.SEARCH)
# A release that knows nothing of the option ignores it.
BEFORE_1_14 = """
import onnxruntime
onnxruntime.__version__ = "1.13.1"
class SessionOptions(onnxruntime.SessionOptions):
    def add_session_config_entry(self, key, value):
        if key != "session.intra_op_thread_affinities":
            super().add_session_config_entry(key, value)
onnxruntime.SessionOptions = SessionOptions
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "conv.onnx"
    path.write_bytes(conv_model())
    return path


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two processors")
def test_threads_of_a_runtime_that_cannot_bind_them_share_the_processors(model: Path, tmp_path: Path):
    cpus, bound = CPUS[:2], []

    def look(phase: Phase, pid: int) -> None:
        # The model has warmed up: its threads have worked for long, those of the reference model not at all.
        if phase is Phase.CANARY:
            bound.extend(allowed_cpus(pid)[:2])

    job = run_job(
        "onnx",
        model,
        python=python_that(tmp_path, BEFORE_1_14),
        on_phase=look,
        threads=2,
        cpu_affinity=cpus,
    )
    assert job.description.version == "1.13.1"
    assert len(bound) == 2
    assert set(bound) <= {f"{cpus[0]}-{cpus[1]}", f"{cpus[0]},{cpus[1]}"}
    assert parse_result(job.result, SPEC).execution.affinity_is_shared


@pytest.mark.parametrize(
    ("version", "provider", "binds"),
    [
        ("1.13.1", "", False),
        ("1.14.0", "", True),
        ("1.9.0", "", False),
        ("2.0.0", "", True),
        ("1.23.0+cu12", "CUDAExecutionProvider", True),
        ("1.23.0", "XnnpackExecutionProvider", False),
    ],
)
def test_threads_are_bound_one_by_one_from_1_14_on_in_its_own_pool(version: str, provider: str, binds: bool):
    runtime = worker.OnnxRuntime()
    runtime.version = version
    assert runtime.binds_each_thread({"provider": provider}) is binds


@pytest.fixture(scope="module")
def fallen_back(model: Path) -> Job:
    """A job with a provider that runs nothing of the model."""
    if NO_NODES not in onnxruntime.get_available_providers():
        pytest.skip(f"this build has no {NO_NODES}")
    return run_job("onnx", model, provider=NO_NODES)


def test_model_that_ran_on_the_cpu_instead_is_told(fallen_back: Job):
    found = parse_insight(fallen_back.result)
    assert found.provider == "CPUExecutionProvider"
    assert re.fullmatch(
        r"(\d+) of \1 nodes ran on CPUExecutionProvider, for 100 % of the time in the profile",
        found.cpu_fallback,
    )


def test_fallback_is_unknown_until_something_looks_into_it(fallen_back: Job):
    found = parse_result(fallen_back.result, SPEC)
    assert found.provider == NO_NODES
    assert found.execution.cpu_fallback == (
        "it is not known which nodes ran on CPUExecutionProvider: nothing looked into it"
    )


def test_looking_for_what_fell_back_is_no_profile(fallen_back: Job):
    assert fallen_back.result["operators"] == []
    assert fallen_back.result["operators_absent_reason"] == ""
    assert fallen_back.phases[-1] is Phase.PROFILE


def test_fallback_that_nobody_can_see_is_told_as_unknown(model: Path, tmp_path: Path):
    if NO_NODES not in onnxruntime.get_available_providers():
        pytest.skip(f"this build has no {NO_NODES}")
    no_profiler = "import onnxruntime\nonnxruntime.InferenceSession.end_profiling = None\n"
    result = run_job("onnx", model, provider=NO_NODES, python=python_that(tmp_path, no_profiler)).result
    assert result["providers"] == [NO_NODES]
    assert result["cpu_fallback"].startswith(
        "it is not known which nodes ran on CPUExecutionProvider: the profiler failed: "
    )


def row(provider: str, mean_ns: float) -> dict[str, object]:
    return {"layer": "l", "operator_type": "Conv", "provider": provider, "mean_ns": mean_ns, "calls": 1.0}


@pytest.mark.parametrize(
    ("provider", "rows", "told"),
    [
        ("CUDAExecutionProvider", [("CUDAExecutionProvider", 5.0)], ""),
        (
            "CUDAExecutionProvider",
            [("CUDAExecutionProvider", 60.0), ("CPUExecutionProvider", 30.0), ("CPUExecutionProvider", 10.0)],
            "2 of 3 nodes ran on CPUExecutionProvider, for 40 % of the time in the profile",
        ),
        # Its pool has the threads that were asked for, that of ONNX Runtime has one.
        (
            "XnnpackExecutionProvider",
            [("XnnpackExecutionProvider", 25.0), ("CPUExecutionProvider", 75.0)],
            "1 of 2 nodes ran on CPUExecutionProvider with one thread, for 75 % of the time in the profile",
        ),
        (
            "QNNExecutionProvider",
            [("", 25.0), ("CPUExecutionProvider", 75.0)],
            "it is not known which nodes ran on CPUExecutionProvider: the profile names no provider",
        ),
    ],
    ids=["nothing", "some", "XNNPACK", "unknown"],
)
def test_share_that_was_left_to_the_cpu(provider: str, rows: list[tuple[str, float]], told: str):
    assert worker.cpu_fallback([row(*entry) for entry in rows], {"provider": provider}, "") == told
