"""Where the time goes: how a profiler's events become layers."""

import warnings

import pytest
import torch

from device_agent import worker


def kernel(layer: str, start_us: int, duration_us: int, operator: str = "Conv") -> dict[str, object]:
    """An event of ONNX Runtime's profiler, as it is in the file."""
    return {
        "cat": "Node",
        "pid": 1,
        "tid": 1,
        "ph": "X",
        "ts": start_us,
        "dur": duration_us,
        "name": f"{layer}_kernel_time",
        "args": {"op_name": operator, "provider": "CPUExecutionProvider", "node_index": "0"},
    }


def run(start_us: int, duration_us: int) -> dict[str, object]:
    return {"cat": "Session", "name": "model_run", "ts": start_us, "dur": duration_us, "args": {}}


def test_times_of_a_layer_are_divided_by_the_runs():
    events = [
        run(0, 100),
        kernel("stem", 10, 30),
        kernel("head", 50, 10, "Gemm"),
        run(200, 100),
        kernel("stem", 210, 50),
        kernel("head", 270, 10, "Gemm"),
    ]
    assert worker.aggregate_profile(events, 2) == [
        {
            "layer": "stem",
            "operator_type": "Conv",
            "provider": "CPUExecutionProvider",
            "mean_ns": 40_000.0,
            "calls": 1.0,
        },
        {
            "layer": "head",
            "operator_type": "Gemm",
            "provider": "CPUExecutionProvider",
            "mean_ns": 10_000.0,
            "calls": 1.0,
        },
    ]


def test_runs_that_only_warm_up_do_not_count():
    events = [run(0, 900), kernel("stem", 10, 800), run(1000, 100), kernel("stem", 1010, 30)]
    (row,) = worker.aggregate_profile(events, 1)
    assert (row["mean_ns"], row["calls"]) == (30_000.0, 1.0)


def test_layer_that_runs_twice_has_two_calls_and_both_times():
    events = [run(0, 100), kernel("shared", 10, 30), kernel("shared", 50, 20)]
    (row,) = worker.aggregate_profile(events, 1)
    assert (row["mean_ns"], row["calls"]) == (50_000.0, 2.0)


def test_other_events_are_no_layers():
    events = [
        run(0, 100),
        {"cat": "Node", "name": "stem_fence_before", "ts": 5, "dur": 50, "args": {"op_name": "Conv"}},
        {"cat": "Session", "name": "SequentialExecutor::Execute", "ts": 5, "dur": 90, "args": {}},
        {"name": "thread_name", "ph": "M"},
        kernel("stem", 10, 30),
    ]
    assert [row["layer"] for row in worker.aggregate_profile(events, 1)] == ["stem"]


def test_convolution_that_was_laid_out_anew_keeps_its_name():
    events = [
        run(0, 100),
        kernel("features.0_nchwc", 10, 30),
        kernel("ReorderOutput", 50, 5, "ReorderOutput"),
    ]
    assert [row["layer"] for row in worker.aggregate_profile(events, 1)] == ["features.0", "ReorderOutput"]


def test_profile_without_events_is_empty():
    assert worker.aggregate_profile([], 10) == []


def test_profile_of_a_fast_model_ends_after_200_runs():
    calls = []
    assert worker.profiled_runs(lambda: calls.append(None)) == 200
    assert len(calls) == 200


class Block(torch.nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(inputs, 4, 1)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.relu(self.norm(self.conv(image)))


class Network(torch.nn.Module):
    """Modules in modules, one that runs twice, functions, a method that calls another, and a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Block(3)
        self.body = torch.nn.Sequential(Block(4), torch.nn.Identity())
        self.head = torch.nn.Linear(4, 2)

    def pooled(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = self.stem(image)
        image = image + self.body(self.body(image))
        if image.size(0) > 1:
            image = torch.abs(image)
        return self.head(self.pooled(image))


def layers(how: str) -> list[tuple[str, str]]:
    module = Network().eval()
    with warnings.catch_warnings():
        # torch has deprecated TorchScript, which boards still run.
        warnings.simplefilter("ignore")
        image = torch.zeros(1, 3, 4, 4)
        made = torch.jit.script(module) if how == "script" else torch.jit.trace(module, image)
        found = worker.layers_in_order(made.inlined_graph)
    # In training, a batch norm counts its batches.
    return [layer for layer in found if layer[1] != "aten::add_"]


BODY = [("body.0.conv", "conv"), ("body.0.norm", "aten::batch_norm"), ("body.0", "aten::relu")]
IN_ORDER = [
    ("stem.conv", "conv"),
    ("stem.norm", "aten::batch_norm"),
    ("stem", "aten::relu"),
    *BODY,
    *BODY,
    ("aten::add", "aten::add"),
    ("aten::abs", "aten::abs"),
    ("aten::mean", "aten::mean"),
    ("head", "aten::linear"),
]


@pytest.mark.parametrize("how", ["script", "trace"])
def test_operators_are_found_in_the_modules_they_belong_to(how: str):
    # Traced, the condition is what it was.
    expected = [layer for layer in IN_ORDER if how == "script" or layer[0] != "aten::abs"]
    found = [(path, "conv" if "conv" in kind else kind) for path, kind in layers(how)]
    assert found == expected


def test_operators_on_numbers_are_no_layers():
    assert not {"aten::size", "aten::len", "aten::__getitem__", "aten::gt"} & {
        kind for _, kind in layers("script")
    }
