"""What a caller may ask for in a spec, from the wire to the worker and back."""

import os
from dataclasses import replace
from pathlib import Path

import grpc
import numpy
import psutil
import pytest
from agent_harness import FULL, Agent, conv_model, running_agent, spec
from edgenas.v1 import benchmark_pb2, measurement_pb2
from onnx import TensorProto, helper, numpy_helper
from worker_jobs import allowed_cpus

from device_agent import __version__
from device_agent.board.description import Board, describe_board
from device_agent.errors import InvalidRequestError
from device_agent.serving.wire.requests import request_from_wire

FLOAT16 = benchmark_pb2.PRECISION_FLOAT16
FLOAT32 = benchmark_pb2.PRECISION_FLOAT32
CPUS = psutil.Process().cpu_affinity()


def table_model(indices: int) -> bytes:
    """Return a model that looks some int64 indices up in a table of one row, and fails for all but 0."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["output"])],
        "table",
        [helper.make_tensor_value_info("index", TensorProto.INT64, [indices])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [indices, 4])],
        [numpy_helper.from_array(numpy.zeros((1, 4), dtype="float32"), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def asking(
    wanted: benchmark_pb2.BenchmarkSpec | None = None, **fields: object
) -> benchmark_pb2.BenchmarkSpec:
    """Return a spec with fields set."""
    asked = wanted or spec()
    asked.MergeFrom(benchmark_pb2.BenchmarkSpec(**fields))
    return asked


def refusal(agent: Agent, sha256: str, wanted: benchmark_pb2.BenchmarkSpec) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        list(agent.watch(sha256, wanted))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.details()


@pytest.fixture(scope="module")
def elaborate(agent: Agent, model: str) -> benchmark_pb2.BenchmarkRecord:
    """A job that asks for much at once."""
    wanted = benchmark_pb2.BenchmarkSpec(
        runtime="onnx",
        mode=benchmark_pb2.MEASUREMENT_MODE_SEARCH,
        provider="cpu",
        batch_size=4,
        precision=FLOAT32,
        cpu_affinity=CPUS[-1:],
        time_limit_s=25.0,
        most_attempts=2,
        profile=True,
    )
    return agent.measure(model, wanted)


def test_batch_size_is_the_open_first_axis(elaborate: benchmark_pb2.BenchmarkRecord):
    (shape,) = elaborate.spec.input_shapes
    assert (shape.name, list(shape.dimensions)) == ("image", [4, 3, 16, 16])
    assert elaborate.spec.batch_size == 4


def test_short_name_of_a_provider_becomes_the_runtimes_own(elaborate: benchmark_pb2.BenchmarkRecord):
    assert elaborate.spec.provider == "CPUExecutionProvider"
    assert elaborate.measurement.provider == "CPUExecutionProvider"


def test_precision_that_the_model_has_is_measured(elaborate: benchmark_pb2.BenchmarkRecord):
    assert elaborate.spec.precision == FLOAT32


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two processors")
def test_threads_that_work_are_bound_each_to_its_processor(agent: Agent, model: str):
    cpus = CPUS[:2][::-1]
    threads = []
    for event in agent.watch(model, asking(spec(threads=2), cpu_affinity=cpus), request_id="bound"):
        # The model has warmed up, so that its threads have worked for long.
        if event.progress.phase == benchmark_pb2.BENCHMARK_PHASE_CANARY:
            (worker,) = agent.workers()
            threads = allowed_cpus(worker.pid)
            agent.cancel("bound")
    # Other threads of the process wait for the agent's word, or for nothing.
    assert set(threads[:2]) == {str(cpu) for cpu in cpus}


def test_affinity_decides_how_many_threads_there_are(elaborate: benchmark_pb2.BenchmarkRecord):
    execution = elaborate.measurement.execution
    assert list(execution.cpu_affinity) == CPUS[-1:]
    assert execution.intra_op_threads == elaborate.spec.threads == 1
    assert (execution.inter_op_threads, execution.execution_mode) == (1, "sequential")


def test_callers_time_limit_is_in_the_record(elaborate: benchmark_pb2.BenchmarkRecord):
    assert elaborate.spec.time_limit_s == 25.0


def test_callers_number_of_attempts_is_in_the_record(elaborate: benchmark_pb2.BenchmarkRecord):
    assert elaborate.spec.most_attempts == 2


def test_profile_tells_where_the_time_goes(elaborate: benchmark_pb2.BenchmarkRecord):
    operators = elaborate.measurement.operators
    (conv,) = [entry for entry in operators if "Conv" in entry.operator_type]
    assert conv.mean_ms > 0
    assert conv.calls == 1.0
    assert conv.provider == "CPUExecutionProvider"
    assert [entry.mean_ms for entry in operators] == sorted(
        (entry.mean_ms for entry in operators), reverse=True
    )


def test_profile_is_no_part_of_the_samples(elaborate: benchmark_pb2.BenchmarkRecord):
    measurement = elaborate.measurement
    assert measurement.latency.samples == len(measurement.samples_ms) >= 64


def test_record_names_what_measured(elaborate: benchmark_pb2.BenchmarkRecord):
    measurement = elaborate.measurement
    assert measurement.agent_version == __version__
    assert measurement.kernel_release == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert measurement.runtime_version.startswith("onnxruntime ")


def test_fast_model_is_timed_in_groups_as_well(elaborate: benchmark_pb2.BenchmarkRecord):
    grouped = elaborate.measurement.grouped
    assert grouped.median_ci_low_ms <= grouped.median_ms <= grouped.median_ci_high_ms
    assert grouped.groups == elaborate.measurement.latency.samples
    assert 0.5 < grouped.inferences_per_group * grouped.median_ms < 2.0


def test_random_integers_are_what_a_model_gets(agent: Agent):
    failure = agent.fail(agent.upload(table_model(64)))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_INVALID_MODEL
    assert "indices element out of data bounds" in failure.message


def test_zeros_are_what_a_model_gets_on_request(agent: Agent):
    record = agent.measure(agent.upload(table_model(64)), asking(input_data=benchmark_pb2.INPUT_DATA_ZEROS))
    assert record.spec.input_data == benchmark_pb2.INPUT_DATA_ZEROS
    assert record.measurement.latency.samples >= 64
    assert list(record.measurement.operators) == []


def test_seed_decides_about_the_data(agent: Agent):
    """The only index is 0 with seed 0, and 1, which is beyond the table, with seed 1."""
    sha256 = agent.upload(table_model(1))
    assert agent.fail(sha256, spec(seed=1)).reason == benchmark_pb2.FAILURE_REASON_INVALID_MODEL
    running = agent.watch(sha256, spec(seed=0), request_id="seed-0")
    # The first inference, which fails above, comes before the warm-up.
    assert any(event.progress.phase == benchmark_pb2.BENCHMARK_PHASE_WARM_UP for event in running)
    agent.cancel("seed-0")


def test_precision_that_the_model_has_not_fails(agent: Agent, model: str):
    failure = agent.fail(model, asking(precision=FLOAT16))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_INVALID_SPEC
    assert failure.message == ("the model is in float32, the spec asks for float16; convert the model first")


def test_provider_that_the_build_has_not_fails(agent: Agent, model: str):
    failure = agent.fail(model, asking(provider="qnn"))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_INVALID_SPEC
    assert "has no QNNExecutionProvider; it has CPUExecutionProvider" in failure.message


def test_time_limit_of_the_caller_ends_the_job(agent: Agent, model: str):
    failure = agent.fail(model, asking(spec(mode=FULL), time_limit_s=0.5))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_TIMED_OUT
    assert "longer than its time limit of 0.5 s" in failure.message


def test_batch_size_that_the_model_contradicts_fails(agent: Agent):
    sha256 = agent.upload(conv_model(shape=[1, 3, 16, 16]))
    failure = agent.fail(sha256, asking(batch_size=2))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_INVALID_SPEC
    assert failure.message == (
        "batch_size is 2, but the model fixes the first axis of 'image' to 1; export it with an open first axis"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provider": "abacus"}, "spec.provider is 'abacus'; runtime onnx knows cpu, xnnpack, cuda"),
        ({"provider": "a\nb"}, "spec.provider is 'a\\nb'; runtime onnx knows cpu, xnnpack, cuda"),
        (
            {"power_source": "rapl\n"},
            "spec.power_source is 'rapl\\n'; expected a name that DescribeDevice lists",
        ),
        ({"batch_size": 65537}, "spec.batch_size is 65537; keep it to 65536"),
        ({"precision": 9}, "spec.precision is 9; expected PRECISION_FLOAT32"),
        ({"input_data": 9}, "spec.input_data is 9; expected INPUT_DATA_RANDOM"),
        ({"time_limit_s": -1.0}, "spec.time_limit_s is -1.0; expected seconds"),
        ({"time_limit_s": float("nan")}, "spec.time_limit_s is nan; expected seconds"),
        ({"time_limit_s": float("inf")}, "spec.time_limit_s is inf; expected seconds"),
        ({"cpu_affinity": [0, 0]}, "spec.cpu_affinity is [0, 0]; name each processor once"),
        ({"cpu_affinity": [4096]}, "spec.cpu_affinity is [4096]; name each processor once"),
    ],
)
def test_option_that_makes_no_sense_is_refused(agent: Agent, model: str, fields: dict, message: str):
    assert message in refusal(agent, model, asking(**fields))


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two processors")
def test_processors_must_be_as_many_as_threads(agent: Agent, model: str):
    message = refusal(agent, model, asking(spec(threads=1), cpu_affinity=[0, 1]))
    assert message == "spec.cpu_affinity names 2 processors for 1 threads; name one for each"


def test_every_flag_of_a_record_has_its_reason(elaborate: benchmark_pb2.BenchmarkRecord):
    measurement = elaborate.measurement
    assert [entry.flag for entry in measurement.flag_reasons] == list(measurement.flags)
    assert all(entry.reason for entry in measurement.flag_reasons)
    assert measurement_pb2.MEASUREMENT_FLAG_UNSPECIFIED not in measurement.flags


@pytest.fixture
def gappy_board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board of four cores, the second of which is offline."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 3})
    return replace(describe_board(), physical_cores=4, logical_cores=3)


def taken(board: Board, **fields: object) -> tuple[int, tuple[int, ...]]:
    """Return the threads and the processors that a request comes to."""
    request = benchmark_pb2.RunBenchmarkRequest(
        request_id="asked", model_sha256="0" * 64, spec=asking(spec(threads=0), **fields)
    )
    found = request_from_wire(request, board).spec
    return found.threads, found.cpu_affinity


def test_processors_behind_one_that_is_offline_may_be_named(gappy_board: Board):
    assert taken(gappy_board, cpu_affinity=[3, 2]) == (2, (3, 2))


def test_processor_that_is_offline_is_refused_with_those_there_are(gappy_board: Board):
    with pytest.raises(InvalidRequestError) as caught:
        taken(gappy_board, cpu_affinity=[1])
    assert str(caught.value) == (
        "spec.cpu_affinity is [1]; name each processor once, out of those that the agent may use: 0,2-3"
    )


def test_threads_are_at_most_one_for_each_processor_that_may_be_used(gappy_board: Board):
    assert taken(gappy_board) == (3, ())
    assert taken(gappy_board, threads=3) == (3, ())
    with pytest.raises(InvalidRequestError) as caught:
        taken(gappy_board, threads=4)
    assert str(caught.value) == (
        "spec.threads is 4, this board has 3 processors that the agent may use (0,2-3); ask for 1 to 3, or 0 for 3"
    )


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two processors, to take one away")
def test_agent_with_a_set_of_processors_measures_on_these_alone(tmp_path: Path):
    first, last = CPUS[0], CPUS[-1]
    with running_agent(tmp_path, prefix=["taskset", "-c", str(last)]) as agent:
        sha256 = agent.upload(conv_model())
        assert refusal(agent, sha256, asking(cpu_affinity=[first])).endswith(
            f"that the agent may use: {last}"
        )
        assert agent.measure(sha256, asking(spec(threads=0), cpu_affinity=[last])).spec.threads == 1
