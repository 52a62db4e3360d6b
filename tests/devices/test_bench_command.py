"""`edgenas bench` and its kin, in this process, on a board that answers what the test wants."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgenas.v1 import benchmark_pb2, device_pb2, measurement_pb2
from fake_agent import FakeAgent, figures_of, serving
from google.protobuf.timestamp_pb2 import Timestamp
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

from controller.cli.main import app
from controller.core.errors import EdgeNASError

NOISE = measurement_pb2.MEASUREMENT_FLAG_NOISE
CONTRACT = {
    "model",
    "device",
    "runtime",
    "latency_ms",
    "latency_ms_ci_low",
    "latency_ms_ci_high",
    "latency_ms_p90",
    "samples",
    "load_ms",
    "first_inference_ms",
    "peak_memory_mb",
    "energy_mj",
    "energy_absent_reason",
    "flags",
}


@pytest.fixture
def agent(home: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent()
    with serving(fake) as address:
        home.mkdir()
        (home / "devices.json").write_text(json.dumps({"pi4": address}))
        yield fake


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def bench(*arguments: object) -> list[dict[str, object]]:
    result = run("bench", *arguments, "--device", "pi4", "--json")
    rows: list[dict[str, object]] = json.loads(result.stdout)
    return rows


def linear(path: Path, *, batch: int | str = "n", dtype: int = TensorProto.FLOAT) -> Path:
    """Write a product with 16 × 8 weights, and a batch that is open unless it is given."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = np.random.default_rng(0).standard_normal((16, 8)).astype(kind)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"], name="product")],
        "linear",
        [helper.make_tensor_value_info("x", dtype, (batch, 16))],
        [helper.make_tensor_value_info("y", dtype, (batch, 8))],
        [numpy_helper.from_array(weights, "weights")],
    )
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_one_model_is_measured_once_and_keeps_the_contract(agent: FakeAgent, tmp_path: Path) -> None:
    agent.figures = lambda _: figures_of(2.0, warm_load_ms=3.0, drift_corrected_ms=1.9)

    (row,) = bench(linear(tmp_path / "net.onnx"))

    assert row.keys() >= CONTRACT
    assert (row["model"], row["device"], row["runtime"]) == ("net.onnx", "pi4", "onnx")
    assert (row["latency_ms"], row["latency_ms_ci_low"], row["latency_ms_ci_high"]) == (2.0, 1.98, 2.02)
    assert (row["energy_mj"], row["energy_absent_reason"]) == (None, "no power sensor")
    assert (row["warm_load_ms"], row["drift_corrected_ms"], row["peak_memory_mb"]) == (3.0, 1.9, 20.0)
    assert (row["processes"], row["rank"], row["differences"]) == (1, None, [])
    assert len(agent.asked) == 1
    assert agent.asked[0].spec.energy


def test_options_reach_the_board(agent: FakeAgent, tmp_path: Path) -> None:
    bench(
        linear(tmp_path / "net.onnx"), "--provider", "XnnpackExecutionProvider", "--affinity", "0,2", "--zeros",
        "--batch-size", 4, "--time-limit-s", 90, "--no-energy", "--profile", "--input-shape", "4,16",
    )  # fmt: skip

    spec = agent.asked[0].spec
    assert (spec.provider, spec.threads, list(spec.cpu_affinity)) == ("XnnpackExecutionProvider", 2, [0, 2])
    assert spec.input_data == benchmark_pb2.INPUT_DATA_ZEROS
    assert (spec.batch_size, spec.time_limit_s, spec.energy, spec.profile) == (4, 90.0, False, True)
    assert [(shape.name, list(shape.dimensions)) for shape in spec.input_shapes] == [("x", [4, 16])]
    assert (spec.macs, spec.precision) == (0, benchmark_pb2.PRECISION_UNSPECIFIED)


def test_macs_are_counted_for_the_modelled_power_source_alone(agent: FakeAgent, tmp_path: Path) -> None:
    bench(linear(tmp_path / "net.onnx"), "--power-source", "modelled", "--batch-size", 4)

    assert (agent.asked[0].spec.power_source, agent.asked[0].spec.macs) == ("modelled", 4 * 16 * 8)


def test_dtype_converts_the_model_before_it_is_sent(agent: FakeAgent, tmp_path: Path) -> None:
    model = linear(tmp_path / "net.onnx")

    bench(model)
    bench(model, "--dtype", "float32")
    bench(model, "--dtype", "float16")
    (row,) = bench(model, "--dtype", "int8")

    plain, float32, float16, int8 = agent.asked
    assert plain.model_sha256 == float32.model_sha256
    assert len({request.model_sha256 for request in agent.asked}) == 3
    assert [request.spec.precision for request in (float32, float16, int8)] == [
        benchmark_pb2.PRECISION_FLOAT32,
        benchmark_pb2.PRECISION_FLOAT16,
        benchmark_pb2.PRECISION_INT8_QDQ,
    ]
    assert row["precision"] == "int8_qdq"
    assert "for timing only" in str(row["note"])


LATENCIES_MS = {"fast.onnx": 10.0, "twin.onnx": 10.0, "slow.onnx": 12.0}


def drifting(agent: FakeAgent) -> None:
    """Let the board drift by half from round to round, and each process scatter a little in its own way."""
    scatter = {
        "fast.onnx": (1.0, 1.002, 0.998),
        "twin.onnx": (1.001, 0.999, 1.002),
        "slow.onnx": (1.0, 1.001, 0.999),
    }

    def figures(request: benchmark_pb2.RunBenchmarkRequest) -> measurement_pb2.Measurement:
        name = request.model_name
        turn = sum(asked.model_name == name for asked in agent.asked) - 1
        noisy = {
            "flags": [NOISE],
            "flag_reasons": [measurement_pb2.FlagReason(flag=NOISE, reason="43 % of a core")],
        }
        more = noisy if (name, turn) == ("twin.onnx", 1) else {}
        return figures_of(LATENCIES_MS[name] * (1.0, 1.5, 1.2)[turn] * scatter[name][turn], **more)

    agent.figures = figures


def test_several_models_are_ranked_on_what_differs_between_processes(
    agent: FakeAgent, tmp_path: Path
) -> None:
    drifting(agent)

    rows = bench(*(linear(tmp_path / name) for name in ("slow.onnx", "fast.onnx", "twin.onnx")))

    assert [(row["model"], row["rank"]) for row in rows] == [
        ("fast.onnx", 1),
        ("twin.onnx", 1),
        ("slow.onnx", 3),
    ]
    fast, twin, slow = rows
    assert all(row.keys() >= CONTRACT and row["processes"] == 3 for row in rows)
    assert fast["medians_ms"] == pytest.approx([10.0, 15.03, 11.976])
    assert fast["latency_ms"] == pytest.approx(11.976)
    assert fast["latency_ms_ci_low"] < 10.0
    assert fast["latency_ms_ci_high"] > 15.03
    assert fast["samples"] == 300
    assert twin["flags"] == ["NOISE"]
    assert twin["flag_reasons"] == [{"process": 2, "flag": "NOISE", "reason": "43 % of a core"}]
    assert [measured["latency_ms"] for measured in slow["measurements"]] == slow["medians_ms"]
    by_other = {difference["other"]: difference for difference in slow["differences"]}
    assert by_other["fast.onnx"]["real"]
    assert by_other["fast.onnx"]["time_ratio"] == pytest.approx(1.2, abs=0.001)
    assert by_other["fast.onnx"]["time_ratio_ci_low"] < 1.2 < by_other["fast.onnx"]["time_ratio_ci_high"]
    assert not {difference["other"]: difference for difference in fast["differences"]}["twin.onnx"]["real"]


def test_real_differences_and_flags_are_printed(agent: FakeAgent, tmp_path: Path) -> None:
    drifting(agent)

    shown = run(
        "bench",
        *(linear(tmp_path / name) for name in ("slow.onnx", "fast.onnx", "twin.onnx")),
        "--device",
        "pi4",
    ).stdout

    assert (
        "pi4: fast.onnx is faster than slow.onnx by 16.7 % (95 % interval 16.5 to 16.9 %, paired over 3"
        in shown
    )
    assert "pi4: fast.onnx and twin.onnx cannot be told apart (" in shown
    assert "smaller differences take more --rounds to tell" in shown
    assert "twin.onnx on pi4, process 2: NOISE: 43 % of a core" in shown
    assert "no energy on pi4: no power sensor" in shown


def test_models_of_one_name_are_told_apart_by_their_paths(agent: FakeAgent, tmp_path: Path) -> None:
    first, second = linear(tmp_path / "a" / "net.onnx"), linear(tmp_path / "b" / "net.onnx", batch=1)

    rows = bench(first, second)

    assert {row["model"] for row in rows} == {str(first), str(second)}


def test_one_model_in_rounds_gets_an_interval_between_processes(agent: FakeAgent, tmp_path: Path) -> None:
    (row,) = bench(linear(tmp_path / "net.onnx"), "--rounds", 3)

    assert (row["processes"], row["rank"], row["differences"], row["medians_ms"]) == (
        3,
        1,
        [],
        [1.0, 1.0, 1.0],
    )


def test_failure_of_one_model_is_told_after_the_figures_of_the_others(
    agent: FakeAgent, tmp_path: Path
) -> None:
    agent.figures = lambda request: (
        "no such operator" if request.model_name == "bad.onnx" else figures_of(1.0)
    )
    good, bad = linear(tmp_path / "good.onnx"), linear(tmp_path / "bad.onnx")

    result = CliRunner().invoke(app, ["bench", str(bad), str(good), "--device", "pi4", "--json"])

    assert [row["model"] for row in json.loads(result.stdout)] == ["good.onnx"]
    assert str(result.exception) == "device 'pi4' could not measure 'bad.onnx': no such operator"


def test_profile_is_told_by_operator_type_and_by_layer(agent: FakeAgent, tmp_path: Path) -> None:
    times = [("head", "Gemm", 1.0), ("stem", "Conv", 2.0), ("body", "Conv", 5.0)]
    operators = [
        measurement_pb2.OperatorTime(layer=layer, operator_type=kind, mean_ms=mean_ms, calls=1)
        for layer, kind, mean_ms in times
    ]
    agent.figures = lambda _: figures_of(9.0, operators=operators)
    model = linear(tmp_path / "net.onnx")

    (row,) = bench(model, "--profile")
    shown = run("bench", model, "--device", "pi4", "--profile").stdout

    profile = row["profile"]
    assert isinstance(profile, dict)
    assert [(kind["operator_type"], kind["share"]) for kind in profile["by_operator_type"]] == [
        ("Conv", 0.875),
        ("Gemm", 0.125),
    ]
    assert [layer["layer"] for layer in profile["by_layer"]] == ["body", "stem", "head"]
    assert "where the time of net.onnx on pi4 goes, timed in a pass of its own:" in shown
    assert "87.5 %" in shown


def test_what_ran_elsewhere_or_could_not_be_had_is_told(agent: FakeAgent, tmp_path: Path) -> None:
    fallback = "1 of 2 nodes ran on CPUExecutionProvider, for 40 % of the time in the profile"
    agent.figures = lambda _: figures_of(
        9.0,
        warm_load_absent_reason="the model could not be loaded a second time: no memory",
        operators_absent_reason="the profiler failed: its file is cut off at 512 MB",
        execution=measurement_pb2.ExecutionSettings(intra_op_threads=2, cpu_fallback=fallback),
    )
    model = linear(tmp_path / "net.onnx")

    (row,) = bench(model, "--profile")
    shown = run("bench", model, "--device", "pi4", "--profile").stdout

    assert (row["warm_load_ms"], row["profile"]) == (None, None)
    assert row["profile_absent_reason"] == "the profiler failed: its file is cut off at 512 MB"
    for line in (
        fallback,
        "no warm load: the model could not be loaded a second time: no memory",
        "no profile: the profiler failed: its file is cut off at 512 MB",
    ):
        assert f"net.onnx on pi4: {line}" in shown


def test_energy_by_a_formula_has_no_figures_of_a_sensor(agent: FakeAgent, tmp_path: Path) -> None:
    energy = measurement_pb2.Energy(
        net_mj=2.5, source="modelled", modelled=True, calibration="40 pJ/MAC (c.json)"
    )
    agent.figures = lambda _: figures_of(9.0, energy_mj=2.5, energy=energy)
    model = linear(tmp_path / "net.onnx")

    (row,) = bench(model, "--power-source", "modelled")
    shown = run("bench", model, "--device", "pi4", "--power-source", "modelled").stdout

    assert (row["energy_mj"], row["energy_is_modelled"]) == (2.5, True)
    assert row["energy"] == {
        "gross_mj": None,
        "net_mj": 2.5,
        "idle_mw": None,
        "active_mw": None,
        "source": "modelled",
        "scope": "",
        "updates_per_s": None,
        "inferences": None,
        "modelled": True,
        "calibration": "40 pJ/MAC (c.json)",
        "covers": "",
    }
    assert "2.5 (modelled)" in shown


MISTAKES = {
    "few rounds": (["{net}", "{other}", "--rounds", "2"], "--rounds 2 is too few to compare 2 models; expected at least 3"),
    "two rounds": (["{net}", "--rounds", "2"], "--rounds 2 gives no interval between processes; expected 1, or at least 3"),
    "one model twice": (["{net}", "{net}"], "model {net} is given twice"),
    "affinity": (["{net}", "--affinity", "0,zero"], "affinity '0,zero' is not understood"),
    "affinity twice": (["{net}", "--affinity", "1,1"], "affinity '1,1' is not understood"),
    "affinity and threads": (
        ["{net}", "--affinity", "0,1", "--threads", "4"],
        "--affinity 0,1 names 2 processors for --threads 4",
    ),
    "dtype": (["{net}", "--dtype", "int4"], "dtype 'int4' is unknown; expected one of float32, float16, int8"),
    "converted already": (["{half}", "--dtype", "int8"], "model {half}: the model is float16, and only float32 can be converted"),
    "seed and zeros": (["{net}", "--zeros", "--seed", "3"], "--seed 3 is of no use with --zeros"),
    "source without energy": (
        ["{net}", "--power-source", "rapl", "--no-energy"],
        "--power-source rapl is of no use with --no-energy",
    ),
    "fixed batch": (["{fixed}", "--batch-size", "8"], "model {fixed} has a batch size of 1 of its own"),
    "no model": (["{text}", "--input-shape", "1,3"], "model {text}: the file is no ONNX model"),
    "dtype of TorchScript": (
        ["{net}", "--runtime", "torchscript", "--dtype", "float16"],
        "model {net} is torchscript, and only ONNX can be converted",
    ),
    "input shape": (["{net}", "--input-shape", "1,0"], "input shape '1,0' is not understood"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_before_anything_is_measured(agent: FakeAgent, mistake: str, tmp_path: Path) -> None:
    arguments, message = MISTAKES[mistake]
    paths = {
        "net": linear(tmp_path / "net.onnx"),
        "other": linear(tmp_path / "other.onnx"),
        "fixed": linear(tmp_path / "fixed.onnx", batch=1),
        "half": linear(tmp_path / "half.onnx", dtype=TensorProto.FLOAT16),
        "text": tmp_path / "text.onnx",
    }
    paths["text"].write_text("no model at all")

    result = CliRunner().invoke(
        app, ["bench", *(part.format(**paths) for part in arguments), "--device", "pi4"]
    )

    assert isinstance(result.exception, EdgeNASError)
    assert str(result.exception).startswith(message.format(**paths))
    assert agent.asked == []


def record(hour: int, **more: object) -> benchmark_pb2.BenchmarkRecord:
    return benchmark_pb2.BenchmarkRecord(
        request_id=f"bench-{hour}",
        model_name="net.onnx",
        spec=benchmark_pb2.BenchmarkSpec(runtime="onnx", threads=2, mode=benchmark_pb2.MEASUREMENT_MODE_FULL),
        started_at=Timestamp(seconds=1_780_000_000 + 3600 * hour),
        measurement=figures_of(1.0 + hour, **more),
    )


def test_past_benchmarks_are_filtered(agent: FakeAgent) -> None:
    agent.records = [record(1, flags=[NOISE]), record(0)]

    listed = run(
        "benchmarks", "list", "--device", "pi4", "--name", "net.onnx", "--flagged",
        "--after", "2026-05-01T00:00Z", "--before", "2026-07-01", "--json",
    ).stdout  # fmt: skip

    assert [row["request_id"] for row in json.loads(listed)] == ["bench-1"]
    (asked,) = agent.listed
    assert (asked.model_name, asked.flagged) == ("net.onnx", True)
    assert asked.started_after.ToJsonString() == "2026-05-01T00:00:00Z"
    assert asked.HasField("started_before")


def test_time_that_is_none_is_refused(agent: FakeAgent) -> None:
    result = CliRunner().invoke(app, ["benchmarks", "list", "--device", "pi4", "--after", "yesterday"])

    assert str(result.exception).startswith("--after 'yesterday' is no time; expected one such as 2026-05-31")


def test_past_benchmark_is_shown_with_the_reasons_for_its_flags(agent: FakeAgent) -> None:
    reason = measurement_pb2.FlagReason(flag=NOISE, reason="other processes used 43 % of a core")
    agent.records = [
        record(
            0,
            flags=[NOISE],
            flag_reasons=[reason],
            canary=measurement_pb2.Canary(before_ms=1.25, after_ms=1.5),
            interference=measurement_pb2.Interference(other_cpu_percent=43.0),
            discarded_attempts=[
                measurement_pb2.DiscardedAttempt(median_ms=1.75, samples=64, flag_reasons=[reason])
            ],
            energy_mj=2.5,
            energy=measurement_pb2.Energy(
                net_mj=2.5, idle_mw=3500.0, source="ina2xx", scope="input", covers="ina226 at 1-0040"
            ),
        )
    ]

    shown = [
        " ".join(line.split())
        for line in run("benchmarks", "show", "bench-0", "--device", "pi4").stdout.splitlines()
    ]
    whole = json.loads(run("benchmarks", "show", "bench-0", "--device", "pi4", "--json").stdout)

    for line in (
        "flag NOISE other processes used 43 % of a core",
        "canary before_ms 1.25",
        "canary baseline_ms –",
        "interference other_cpu_percent 43.0",
        "interference steal_percent –",
        "discarded attempt 1 1.75 ms of 64 samples: NOISE: other processes used 43 % of a core",
        "energy source ina2xx",
        "energy idle_mw 3500.0",
        "energy active_mw –",
        "energy covers ina226 at 1-0040",
        "energy_mj 2.5",
        "mode full",
    ):
        assert line in shown
    assert whole["canary"]["before_ms"] == 1.25
    assert whole["flag_reasons"] == [{"flag": "NOISE", "reason": "other processes used 43 % of a core"}]


def test_device_is_shown_with_what_it_cannot_use(agent: FakeAgent) -> None:
    agent.description = device_pb2.DescribeDeviceResponse(
        protocol_version=1,
        agent_version="0.1.0",
        runtimes=[
            device_pb2.RuntimeDescription(
                name="onnx", version="1.23.0", library="onnxruntime", providers=["CPUExecutionProvider"]
            )
        ],
        unavailable_runtimes=[device_pb2.UnavailableRuntime(name="torchscript", reason="torch is missing")],
        power_sources=[
            device_pb2.PowerSourceDescription(name="ina2xx", scope="input"),
            device_pb2.PowerSourceDescription(name="rapl", scope="soc", absent_reason="root only"),
        ],
    )

    shown = [" ".join(line.split()) for line in run("devices", "show", "pi4").stdout.splitlines()]

    assert "runtime onnx onnxruntime 1.23.0: CPUExecutionProvider" in shown
    assert "runtime torchscript not usable: torch is missing" in shown
    assert "power source ina2xx covers the input" in shown
    assert "power source rapl not readable: root only" in shown
