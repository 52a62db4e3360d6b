"""The number format of TorchScript models, as a real worker finds it, and what inputs they get."""

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from worker_jobs import Job, run_job

from device_agent import worker
from device_agent.benchmark import BenchmarkSpec, FailureReason, MeasurementMode, Precision
from device_agent.errors import BenchmarkFailedError
from device_agent.measuring.worker_result import parse_result
from device_agent.runtimes.catalogue import RUNTIMES

torch = pytest.importorskip("torch")

SHAPE = (1, 3, 8, 8)
SPEC = BenchmarkSpec(runtime="torchscript", threads=1, input_shapes=(), seed=0, mode=MeasurementMode.SEARCH)


class Expects(torch.nn.Module):
    """Fails for an input of another type than the one it was made for."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.dtype == self.dtype
        return torch.abs(image)


class Weighted(Expects):
    """Has weights of that type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.weight = torch.nn.Parameter(torch.ones(3, 1, 1, dtype=dtype))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.dtype == self.dtype
        return image * self.weight


class Quantized(Expects):
    """Computes on 8-bit integers between borders with floats of their own; takes float32."""

    def __init__(self) -> None:
        super().__init__(torch.float32)
        self.border = torch.nn.Buffer(torch.ones(8, dtype=torch.float64))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.dtype == self.dtype
        quantized = torch.quantize_per_tensor(image, 0.1, 0, torch.qint8)
        return torch.dequantize(quantized) * self.border


def saved(folder: Path, module: torch.nn.Module, how: str = "script") -> Path:
    path = folder / "model.pt"
    with warnings.catch_warnings():
        # torch has deprecated TorchScript, which boards still run.
        warnings.simplefilter("ignore")
        if how == "trace":
            made = torch.jit.trace(module.eval(), torch.zeros(SHAPE))
        else:
            made = torch.jit.script(module.eval())
        torch.jit.save(torch.jit.freeze(made) if how == "freeze" else made, path)
    return path


def measured(path: Path, **fields: object) -> Job:
    fields = {"input_shapes": {"image": list(SHAPE)}, "canary_path": "none.onnx"} | fields
    return run_job("torchscript", path, **fields)


@pytest.mark.parametrize(
    ("dtype", "precision", "how"),
    [
        (torch.float64, None, "script"),
        (torch.bfloat16, None, "freeze"),
        (torch.float16, Precision.FLOAT16, "freeze"),
        (torch.float16, Precision.FLOAT16, "script"),
        (torch.float32, Precision.FLOAT32, "script"),
        pytest.param(torch.float64, None, "freeze", marks=pytest.mark.slow),
        pytest.param(torch.bfloat16, None, "script", marks=pytest.mark.slow),
        pytest.param(torch.float32, Precision.FLOAT32, "freeze", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_model_gets_inputs_of_its_own_type_whether_or_not_it_has_a_name_here(
    tmp_path: Path, dtype: torch.dtype, precision: Precision | None, how: str
):
    event = measured(saved(tmp_path, Weighted(dtype), how)).result
    assert event["precision"] == str(dtype).removeprefix("torch.")
    assert len(parse_result(event, SPEC).samples_ms) >= 64
    assert parse_result(event, SPEC).precision is precision


@pytest.mark.parametrize("module", [Expects(torch.float32), Quantized()], ids=["no numbers", "quantized"])
def test_precision_that_cannot_be_told_is_unknown_and_the_inputs_are_float32(
    tmp_path: Path, module: torch.nn.Module
):
    event = measured(saved(tmp_path, module), precision="float16").result
    assert event["precision"] is None
    assert parse_result(event, SPEC).precision is None


def test_number_in_traced_code_is_no_precision(tmp_path: Path):
    class Scaled(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 0.5

    path = saved(tmp_path, Scaled(), "trace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.load(path).graph
    (number,) = graph.findAllNodes("prim::Constant")
    assert (number.t("value").dtype, number.t("value").dim()) == (torch.float64, 0)
    assert measured(path).result["precision"] is None


def test_precision_of_a_frozen_model_that_contradicts_the_spec_is_refused(tmp_path: Path):
    path = saved(tmp_path, Weighted(torch.float64), "freeze")
    with pytest.raises(BenchmarkFailedError) as caught:
        measured(path, precision="float32")
    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert str(caught.value) == "the model is in float64, the spec asks for float32; convert the model first"


def test_precision_that_only_onnx_has_is_refused(tmp_path: Path):
    path = saved(tmp_path, Expects(torch.float32))
    with pytest.raises(BenchmarkFailedError) as caught:
        RUNTIMES["torchscript"].inspect(path, replace(SPEC, precision=Precision.INT8_QDQ))
    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert str(caught.value).startswith("the spec asks for int8_qdq, ")
    assert RUNTIMES["torchscript"].inspect(path, replace(SPEC, precision=Precision.FLOAT16)) is None


@pytest.mark.parametrize(
    ("event", "spent_us"),
    [
        (SimpleNamespace(cpu_time_total=5.0, device_time_total=90.0), 90.0),
        (SimpleNamespace(cpu_time_total=5.0, cuda_time_total=90.0), 90.0),
    ],
    ids=["new", "old"],
)
def test_time_on_a_gpu_is_found_under_the_name_of_any_release(event: SimpleNamespace, spent_us: float):
    assert worker.spent_us(event, on_gpu=True) == spent_us
    assert worker.spent_us(event, on_gpu=False) == 5.0
