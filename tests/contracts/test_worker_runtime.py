"""What every runtime of the worker keeps to, in a worker process as the agent starts it."""

import importlib.util
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from worker_jobs import Job, allowed_cpus, python_that, run_job

from device_agent import worker
from device_agent.benchmark import FailureReason, ModelFormat, Phase
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes.base import Runtime
from device_agent.runtimes.catalogue import RUNTIMES

SHAPE = [1, 3, 16, 16]
CPUS = psutil.Process().cpu_affinity()
every_runtime = pytest.mark.parametrize("name", RUNTIMES)


def onnx_model() -> bytes:
    """Return two convolutions, each with an operator behind it that no runtime fuses with it."""
    nodes, weights, source = [], [], "image"
    for name, channels in (("stem", 3), ("body", 8)):
        weight = numpy.random.default_rng(0).standard_normal((8, channels, 3, 3)).astype("float32")
        weights.append(numpy_helper.from_array(weight, f"{name}.weight"))
        nodes += [
            helper.make_node(
                "Conv", [source, f"{name}.weight"], [f"{name}.conv"], name=f"{name}.conv", pads=[1] * 4
            ),
            helper.make_node("Abs", [f"{name}.conv"], [name], name=name),
        ]
        source = name
    graph = helper.make_graph(
        nodes,
        "two_layers",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("body", TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def torchscript_model() -> bytes:
    """Return the same network, scripted."""
    import torch

    class Layer(torch.nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(channels, 8, 3, padding=1, bias=False)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.abs(self.conv(image))

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = Layer(3)
            self.body = Layer(8)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.body(self.stem(image))

    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch has deprecated TorchScript, which boards still run.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Network().eval()), file)
    return file.getvalue()


MODELS: Mapping[ModelFormat, Callable[[], bytes]] = {
    ModelFormat.ONNX: onnx_model,
    ModelFormat.TORCHSCRIPT: torchscript_model,
}
# Code that breaks a library: its profiler, and all loads but the first (the reference model's is ONNX Runtime's own).
# Of any other runtime the class itself is broken.
NO_PROFILER: Mapping[str, str] = {
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession
end_profiling = session.end_profiling
def cut_off(self):
    path = end_profiling(self)
    open(path, "r+").truncate(200)
    return path
session.end_profiling = cut_off
""",
    "torchscript": """
import torch
def profile(**options):
    raise RuntimeError("CUPTI is not there")
torch.autograd.profiler.profile = profile
""",
}
NO_SECOND_LOAD: Mapping[str, str] = {
    "onnx": """
import onnxruntime
first = onnxruntime.InferenceSession
class InferenceSession(first):
    loads = 0
    def __init__(self, path, *arguments, **options):
        InferenceSession.loads += "canary" not in path
        if InferenceSession.loads == 2:
            raise MemoryError("std::bad_alloc")
        super().__init__(path, *arguments, **options)
onnxruntime.InferenceSession = InferenceSession
""",
    "torchscript": """
import torch
first, loads = torch.jit.load, []
def load(*arguments, **options):
    loads.append(arguments)
    if len(loads) == 2:
        raise MemoryError("std::bad_alloc")
    return first(*arguments, **options)
torch.jit.load = load
""",
}
NO_PROFILE_METHOD = """
    def profile(self, path, job, arrays):
        raise RuntimeError("it does not run here")
"""
NO_SECOND_LOAD_METHOD = """
    loads = 0
    def load(self, path, job):
        self.loads += 1
        if self.loads == 2:
            raise MemoryError("std::bad_alloc")
        return super().load(path, job)
"""
LAYERS = {"stem.conv", "stem", "body.conv", "body"}
# Mode of execution and whether threads spin: PyTorch tells nothing of either.
SET_UP = {"onnx": ("sequential", True), "torchscript": (None, None)}


def job(name: str, model: Path, **fields: object) -> Job:
    """Run one job that is to be profiled as well."""
    if importlib.util.find_spec(RUNTIMES[name].package) is None:
        pytest.skip(f"{RUNTIMES[name].package} is not installed")
    return run_job(name, model, **{"input_shapes": {"image": SHAPE}, "profile": True} | fields)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the file of a runtime's model, which is made when a test first asks."""
    made: dict[str, Path] = {}

    def model_of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("runtime") / f"model.{RUNTIMES[name].format.value}"
            made[name].write_bytes(MODELS[RUNTIMES[name].format]())
        return made[name]

    return model_of


@pytest.fixture(scope="session")
def measured(model: Callable[[str], Path]) -> Callable[[str], Job]:
    """Give what a runtime found of its model, which it measures once."""
    found: dict[str, Job] = {}

    def measured_by(name: str) -> Job:
        if name not in found:
            found[name] = job(name, model(name))
        return found[name]

    return measured_by


def broken_class(name: str, method: str, folder: Path) -> Runtime:
    """Return the row of a runtime whose class has this method instead of its own."""
    own, path = RUNTIMES[name].worker_file, folder / "broken_class.py"
    path.write_text(
        "import runpy\nfrom __main__ import RUNTIMES\n"
        + (f"runpy.run_path({str(own)!r})\n" if own else "")
        + f"class Broken(RUNTIMES[{name!r}]):\n{method}\nRUNTIMES[{name!r}] = Broken\n"
    )
    return replace(RUNTIMES[name], worker_file=path)


def failure(name: str, path: Path, **fields: object) -> BenchmarkFailedError:
    with pytest.raises(BenchmarkFailedError) as caught:
        job(name, path, **fields)
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_format_has_a_model():
    assert set(MODELS) == set(ModelFormat)


def test_worker_has_each_runtime_that_no_other_file_brings():
    assert set(worker.RUNTIMES) == {name for name, row in RUNTIMES.items() if row.worker_file is None}


@every_runtime
def test_runtime_offers_what_it_runs_on_a_gpu(name: str):
    assert RUNTIMES[name].gpu_providers <= set(RUNTIMES[name].providers.values())


@every_runtime
def test_runtime_describes_itself(name: str, measured: Callable[[str], Job]):
    description = measured(name).description
    assert description.name == name
    assert description.library == RUNTIMES[name].package
    assert description.version[0].isdecimal()
    assert RUNTIMES[name].providers["cpu"] in description.providers


@every_runtime
def test_runtime_loads_its_model_cold_and_warm(name: str, measured: Callable[[str], Job]):
    result = measured(name).result
    assert result["load_ns"] > 0
    assert result["warm_load_ns"] > 0
    assert result["load_was_cold"] in (True, False)
    assert (result["providers"], result["gpu_peak_bytes"]) == ([RUNTIMES[name].providers["cpu"]], None)
    assert (result["warm_load_absent_reason"], result["cpu_fallback"]) == ("", "")


@every_runtime
def test_runtime_tells_the_precision_or_leaves_it_to_the_agent(name: str, measured: Callable[[str], Job]):
    assert measured(name).result["precision"] in ("float32", None)


@every_runtime
def test_runtime_tells_how_it_was_set_up(name: str, measured: Callable[[str], Job]):
    execution = measured(name).result["execution"]
    assert execution["intra_op_threads"] == 1
    assert execution["inter_op_threads"] in (1, None)
    mode, spinning = SET_UP.get(name, (execution["execution_mode"], execution["spinning"]))
    assert (execution["execution_mode"], execution["spinning"]) == (mode, spinning)
    assert execution["affinity_is_shared"] is False


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two processors")
@every_runtime
def test_threads_are_bound_as_the_result_tells(name: str, model: Callable[[str], Path]):
    cpus, bound = CPUS[:2], []

    def look(phase: Phase, pid: int) -> None:
        # The model has warmed up: its threads have worked for long, those of the reference model not at all.
        if phase is Phase.CANARY:
            bound.extend(allowed_cpus(pid))

    # Large enough to be worth a second thread; TorchScript declares no shape.
    shape = {"image": [1, 3, 96, 96] if RUNTIMES[name].format is ModelFormat.TORCHSCRIPT else SHAPE}
    result = job(
        name, model(name), threads=2, cpu_affinity=cpus, profile=False, input_shapes=shape, on_phase=look
    ).result
    # A runtime may use one thread whatever it is asked for, and tells so.
    del bound[result["execution"]["intra_op_threads"] :]
    each, all_of_them = {str(cpu) for cpu in cpus}, {f"{cpus[0]}-{cpus[1]}", f"{cpus[0]},{cpus[1]}"}
    assert set(bound) <= (all_of_them if result["execution"]["affinity_is_shared"] else each)
    assert len(set(bound)) == (1 if result["execution"]["affinity_is_shared"] else 2)


@every_runtime
def test_runtime_finds_the_models_inputs(name: str, measured: Callable[[str], Job]):
    assert measured(name).result["input_shapes"] == {"image": SHAPE}


@every_runtime
def test_runtime_runs_its_model(name: str, measured: Callable[[str], Job]):
    result = measured(name).result
    assert result["first_inference_ns"] > 0
    assert len(result["warmup_ns"]) >= 10
    assert len(result["samples_ns"]) >= 64
    assert min(result["samples_ns"]) > 0
    assert result["memory"]["marks"] == sorted(result["memory"]["marks"])


@every_runtime
def test_reference_model_runs_beside_every_runtime(name: str, measured: Callable[[str], Job]):
    result = measured(name).result
    assert len(result["canary_ns"]) == len(result["turn_ends"]) + 1
    assert all(min(turn) > 0 for turn in result["canary_ns"])


@every_runtime
def test_passes_come_in_order(name: str, measured: Callable[[str], Job]):
    assert measured(name).phases == [Phase.LOAD, Phase.WARM_UP, Phase.CANARY, Phase.PROFILE]


@every_runtime
def test_profile_tells_the_time_of_the_models_own_layers(name: str, measured: Callable[[str], Job]):
    rows = measured(name).result["operators"]
    assert all(row["mean_ns"] > 0 for row in rows)
    assert [row["mean_ns"] for row in rows] == sorted((row["mean_ns"] for row in rows), reverse=True)
    # A runtime may have operators of its own between them.
    own = {row["layer"]: row for row in rows if row["layer"] in LAYERS}
    assert set(own) == LAYERS
    for row in own.values():
        assert row["calls"] == 1.0
        assert row["provider"] == RUNTIMES[name].providers["cpu"]
    assert [("conv" in own[layer]["operator_type"].lower()) for layer in ("stem.conv", "stem", "body")] == [
        True,
        False,
        False,
    ]


@every_runtime
def test_profile_is_no_slower_than_the_model_by_an_order_of_magnitude(
    name: str, measured: Callable[[str], Job]
):
    """Figures in another unit, or of all runs together, would be off by a factor of a thousand or 200."""
    result = measured(name).result
    total_ns = sum(row["mean_ns"] for row in result["operators"])
    assert 0.02 < total_ns / worker.median(result["samples_ns"]) < 50


@every_runtime
def test_profiler_that_fails_costs_nothing_but_the_profile(
    name: str, model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if name not in NO_PROFILER:
        monkeypatch.setitem(RUNTIMES, name, broken_class(name, NO_PROFILE_METHOD, tmp_path))
    result = job(name, model(name), python=python_that(tmp_path, NO_PROFILER.get(name, ""))).result
    assert result["operators"] == []
    assert result["operators_absent_reason"].startswith("the profiler failed: ")
    assert "\n" not in result["operators_absent_reason"]
    assert len(result["samples_ns"]) >= 64
    assert result["warm_load_ns"] > 0


@every_runtime
def test_second_load_that_fails_costs_nothing_but_its_time(
    name: str, model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if name not in NO_SECOND_LOAD:
        monkeypatch.setitem(RUNTIMES, name, broken_class(name, NO_SECOND_LOAD_METHOD, tmp_path))
    result = job(name, model(name), python=python_that(tmp_path, NO_SECOND_LOAD.get(name, ""))).result
    assert result["warm_load_ns"] is None
    reason = result["warm_load_absent_reason"]
    assert reason.startswith("the model could not be loaded a second time: ")
    assert "bad_alloc" in reason
    assert len(result["samples_ns"]) >= 64
    assert result["operators"]


@every_runtime
def test_broken_file_is_an_invalid_model(name: str, tmp_path: Path):
    path = tmp_path / "broken"
    path.write_bytes(MODELS[RUNTIMES[name].format]()[:300])
    assert failure(name, path).reason is FailureReason.INVALID_MODEL
