import itertools
import statistics

import grpc
import pytest
from agent_harness import FULL, Agent, conv_model, lookup_model, spec, until, until_measuring
from edgenas.v1 import benchmark_pb2, measurement_pb2

ABSENT = "0" * 64


@pytest.fixture(scope="module")
def measurement(agent: Agent, model: str) -> measurement_pb2.Measurement:
    """One measurement that several tests look at."""
    return agent.measure(model).measurement


def refusal(events) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(events)
    return caught.value


def test_events_come_in_order(agent: Agent, model: str):
    events = list(agent.watch(model))
    kinds = [kind for kind, _ in itertools.groupby(event.WhichOneof("event") for event in events)]
    assert kinds == ["queued", "started", "progress", "result"]
    assert [event.progress.phase for event in events if event.HasField("progress")] == [
        benchmark_pb2.BENCHMARK_PHASE_LOAD,
        benchmark_pb2.BENCHMARK_PHASE_WARM_UP,
        benchmark_pb2.BENCHMARK_PHASE_CANARY,
        benchmark_pb2.BENCHMARK_PHASE_MEASURE,
    ]


def test_record_tells_what_was_run(agent: Agent, model: str):
    record = agent.measure(model, spec(seed=3), request_id="told", name="small conv")
    assert (record.request_id, record.model_sha256, record.model_name) == ("told", model, "small conv")
    expected = spec(seed=3, image=[1, 3, 16, 16])
    expected.provider = "CPUExecutionProvider"
    expected.batch_size = 1
    expected.precision = benchmark_pb2.PRECISION_FLOAT32
    expected.input_data = benchmark_pb2.INPUT_DATA_RANDOM
    assert record.spec == expected
    assert record.started_at.ToDatetime() < record.finished_at.ToDatetime()


def test_figures_agree_with_each_other(measurement: measurement_pb2.Measurement):
    latency = measurement.latency
    assert 0 < latency.min_ms <= latency.median_ms <= latency.max_ms
    assert latency.median_ci_low_ms <= latency.median_ms <= latency.median_ci_high_ms
    assert latency.samples == len(measurement.samples_ms) >= 64
    assert latency.HasField("p90_ms")
    assert latency.HasField("p99_ms") == (latency.samples >= 662)
    assert len(measurement.warmup_ms) >= 10
    assert measurement.load_ms > 0
    assert measurement.first_inference_ms > 0


def test_figures_can_be_found_again_from_what_was_taken(measurement: measurement_pb2.Measurement):
    """Also those behind which are more than the samples: groups, and the reference model's turns."""
    found = measurement
    assert len(found.groups_ms) == found.grouped.groups == found.latency.samples
    assert found.grouped.median_ms == pytest.approx(
        statistics.median(found.groups_ms) / found.grouped.inferences_per_group
    )
    turns = found.canary_turns
    medians = [statistics.median(turn.latencies_ms) for turn in turns]
    assert (turns[0].samples_before, turns[-1].samples_before) == (0, found.latency.samples)
    assert (medians[0], medians[-1]) == pytest.approx((found.canary.before_ms, found.canary.after_ms))
    assert statistics.median(medians) == pytest.approx(found.canary.median_ms)
    if found.HasField("drift_corrected_ms"):
        corrected = []
        for first, last, *around_ms in zip(turns, turns[1:], medians, medians[1:], strict=False):
            if all(abs(turn_ms / found.canary.baseline_ms - 1) <= 0.1 for turn_ms in around_ms):
                scale = found.canary.baseline_ms / statistics.fmean(around_ms)
                samples = found.samples_ms[first.samples_before : last.samples_before]
                corrected += [scale * sample for sample in samples]
        assert statistics.median(corrected) == pytest.approx(found.drift_corrected_ms)


def test_memory_is_measured(measurement: measurement_pb2.Measurement):
    memory = measurement.memory
    marks = [
        memory.baseline_bytes,
        memory.after_load_bytes,
        memory.after_first_inference_bytes,
        memory.after_last_inference_bytes,
    ]
    assert marks == sorted(marks)
    assert memory.peak_bytes == marks[-1] - marks[0] > 0
    assert memory.method.startswith("VmHWM")


def test_energy_is_absent_with_its_reason(measurement: measurement_pb2.Measurement):
    assert not measurement.HasField("energy_mj")
    assert measurement.energy_absent_reason == "energy was not asked for"


def test_zero_threads_are_the_physical_cores(agent: Agent, model: str):
    assert agent.measure(model, spec(threads=0)).spec.threads >= 1


def test_integer_and_bool_inputs_are_made(agent: Agent):
    record = agent.measure(agent.upload(lookup_model()))
    assert [shape.name for shape in record.spec.input_shapes] == ["index", "mask"]


def test_same_request_id_is_measured_once(agent: Agent, model: str):
    first = agent.measure(model, request_id="once")
    events = list(agent.watch(model, request_id="once"))
    assert [event.WhichOneof("event") for event in events] == ["result"]
    assert events[0].result == first


def test_two_callers_of_one_request_id_share_the_job(agent: Agent, model: str):
    first, second = (agent.watch(model, request_id="shared") for _ in range(2))
    assert until(first, "result").result == until(second, "result").result


def test_same_request_id_with_another_spec_is_refused(agent: Agent, model: str):
    agent.measure(model, request_id="taken")
    error = refusal(agent.watch(model, spec(seed=9), request_id="taken"))
    assert error.code() == grpc.StatusCode.ALREADY_EXISTS
    assert "choose a new id" in error.details()


def test_job_outlives_its_caller(agent: Agent, model: str):
    leaving = agent.watch(model, request_id="left")
    until(leaving, "started")
    leaving.cancel()
    assert agent.measure(model, request_id="left").measurement.latency.samples >= 64


def test_waiting_job_is_told_its_position(agent: Agent, model: str):
    running = agent.watch(model, spec(mode=FULL), request_id="ahead")
    until_measuring(running)
    waiting = agent.watch(model, request_id="behind")
    assert next(waiting).queued.position == 1
    last = agent.watch(model, request_id="last")
    assert next(last).queued.position == 2
    agent.cancel("behind")
    assert next(last).queued.position == 1
    agent.cancel("ahead")
    assert until(last, "result").result.request_id == "last"


def test_cancelled_waiting_job_fails_as_cancelled(agent: Agent, model: str):
    running = agent.watch(model, spec(mode=FULL), request_id="board-taken")
    until(running, "started")
    waiting = agent.watch(model, request_id="unwanted")
    next(waiting)
    assert agent.cancel("unwanted")
    assert until(waiting, "failure").failure.reason == benchmark_pb2.FAILURE_REASON_CANCELLED
    assert agent.cancel("board-taken")


def test_cancelled_running_job_fails_as_cancelled(agent: Agent, model: str):
    running = agent.watch(model, spec(mode=FULL), request_id="cut-short")
    until_measuring(running)
    assert agent.cancel("cut-short")
    failure = until(running, "failure").failure
    assert failure.reason == benchmark_pb2.FAILURE_REASON_CANCELLED
    assert not agent.cancel("cut-short")


def test_cancelling_a_finished_job_changes_nothing(agent: Agent, model: str):
    agent.measure(model, request_id="finished")
    assert not agent.cancel("finished")


def test_cancelling_an_unknown_job_is_not_found(agent: Agent):
    with pytest.raises(grpc.RpcError) as caught:
        agent.cancel("never-asked")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_request_id_of_a_failed_job_is_measured_again(agent: Agent, model: str):
    running = agent.watch(model, spec(mode=FULL), request_id="again")
    until(running, "started")
    agent.cancel("again")
    until(running, "failure")
    assert agent.measure(model, request_id="again").request_id == "again"


@pytest.mark.parametrize("data", [conv_model()[:200], b"not a model"], ids=["truncated", "garbage"])
def test_broken_model_fails_and_the_agent_goes_on(agent: Agent, model: str, data: bytes):
    failure = agent.fail(agent.upload(data))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_INVALID_MODEL
    assert failure.message.startswith("the file is no ONNX model: ")
    assert "\n" not in failure.message
    assert agent.measure(model).measurement.latency.samples >= 64


def test_open_axis_without_a_size_fails_and_says_what_to_do(agent: Agent):
    sha256 = agent.upload(conv_model(shape=["batch", 3, "height", 16]))
    failure = agent.fail(sha256)
    assert failure.reason == benchmark_pb2.FAILURE_REASON_OPEN_SHAPE
    assert failure.message.startswith(
        "input 'image' has open axes in [batch, 3, height, 16]; give its full shape"
    )


def test_input_of_unknown_rank_is_not_taken_for_a_scalar(agent: Agent):
    sha256 = agent.upload(conv_model(shape=None))
    failure = agent.fail(sha256)
    assert failure.reason == benchmark_pb2.FAILURE_REASON_OPEN_SHAPE
    assert failure.message.startswith("the model declares no shape for its input 'image'; give it in")
    record = agent.measure(sha256, spec(image=[1, 3, 16, 16]))
    assert list(record.spec.input_shapes[0].dimensions) == [1, 3, 16, 16]


def test_open_axis_takes_the_given_size(agent: Agent):
    sha256 = agent.upload(conv_model(shape=["batch", 3, "height", 16]))
    record = agent.measure(sha256, spec(image=[2, 3, 24, 16]))
    assert list(record.spec.input_shapes[0].dimensions) == [2, 3, 24, 16]


def test_shape_for_an_unknown_input_fails(agent: Agent, model: str):
    failure = agent.fail(model, spec(picture=[1, 3, 16, 16]))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_INVALID_SPEC
    assert failure.message == "input_shapes names 'picture', which the model lacks; its inputs are image"


def test_shape_beyond_memory_fails(agent: Agent, model: str):
    failure = agent.fail(model, spec(image=[2**40, 3, 16, 16]))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_OUT_OF_MEMORY
    assert failure.message.startswith("cannot make the inputs: ")


def test_unknown_model_is_not_found(agent: Agent):
    error = refusal(agent.watch(ABSENT))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "upload it with UploadModel" in error.details()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (spec(runtime="a\nb"), "spec.runtime is 'a\\nb'; this agent has onnx, torchscript"),
        (spec(runtime="x" * 9999), f"spec.runtime is '{'x' * 100}...'; this agent has onnx, torchscript"),
        (spec(runtime="tflite"), "spec.runtime is 'tflite'; this agent has onnx, torchscript"),
        (spec(threads=4096), "spec.threads is 4096"),
        (spec(mode=benchmark_pb2.MEASUREMENT_MODE_UNSPECIFIED), "spec.mode is 0; expected"),
        (spec(image=[0, 3, 16, 16]), "gives 'image' the sizes [0, 3, 16, 16]"),
    ],
)
def test_spec_is_checked(agent: Agent, model: str, wanted: benchmark_pb2.BenchmarkSpec, message: str):
    error = refusal(agent.watch(model, wanted))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in error.details()
    assert error.details().isprintable()


def test_model_name_that_would_reach_into_a_terminal_is_refused(agent: Agent, model: str):
    error = refusal(agent.watch(model, name="\x1b[2Jnet"))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == (
        "model_name is '\\x1b[2Jnet'; leave out what cannot be printed, such as line breaks"
    )


def test_model_name_is_bounded(agent: Agent, model: str):
    error = refusal(agent.watch(model, name="n" * 257))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "model_name has 257 characters; keep it to 256" in error.details()


def test_input_named_twice_is_refused(agent: Agent, model: str):
    wanted = spec(image=[1, 3, 16, 16])
    wanted.input_shapes.add(name="image", dimensions=[1, 3, 16, 16])
    assert "names the input 'image' twice" in refusal(agent.watch(model, wanted)).details()


@pytest.mark.parametrize("request_id", ["a b", "x" * 129, "ü"])
def test_request_id_is_checked(agent: Agent, model: str, request_id: str):
    error = refusal(agent.watch(model, request_id=request_id))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expected 1 to 128 characters" in error.details()


def test_sha256_is_checked(agent: Agent):
    error = refusal(agent.watch("ABC"))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expected 64 lower-case hexadecimal digits" in error.details()


def test_killed_worker_fails_its_job_and_the_next_one_succeeds(agent: Agent, model: str):
    running = agent.watch(model, spec(mode=FULL))
    until_measuring(running)
    (worker,) = agent.workers()
    worker.kill()
    failure = until(running, "failure").failure
    assert failure.reason == benchmark_pb2.FAILURE_REASON_WORKER_DIED
    assert "was killed by SIGKILL" in failure.message
    assert agent.measure(model).measurement.latency.samples >= 64


def test_failures_are_not_in_the_history(agent: Agent):
    sha256 = agent.upload(b"no model at all")
    agent.fail(sha256)
    listed = agent.benchmarks.ListBenchmarks(benchmark_pb2.ListBenchmarksRequest(model_sha256=sha256))
    assert list(listed.benchmarks) == []


def test_flags_match_the_interval(measurement: measurement_pb2.Measurement):
    latency = measurement.latency
    half_width = (latency.median_ci_high_ms - latency.median_ci_low_ms) / 2 / latency.median_ms
    missed = measurement_pb2.MEASUREMENT_FLAG_CI_NOT_REACHED in measurement.flags
    assert missed == (half_width > 0.02)
