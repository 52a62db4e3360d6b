from collections.abc import Iterator
from pathlib import Path

import pytest
from edgenas.v1 import benchmark_pb2
from fake_agent import FakeAgent, figures_of, serving

from controller.core.errors import ConfigurationError
from controller.core.measurement import MeasurementMode, ModelFormat
from controller.core.options import MeasurementOptions
from controller.devices.client import DeviceClient
from controller.devices.rounds import Entrant, measure_in_rounds
from controller.models.file import ModelFile


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def client(agent: FakeAgent) -> Iterator[DeviceClient]:
    with serving(agent) as address, DeviceClient("bench", address, patience_s=1) as connection:
        yield connection


def entrants(folder: Path, *names: str, profile: bool = False) -> list[Entrant]:
    made = []
    for name in names:
        path = folder / name
        path.write_bytes(name.encode())
        file = ModelFile.found(name, path, ModelFormat.ONNX)
        made.append(Entrant(file=file, options=MeasurementOptions(profile=profile)))
    return made


def test_models_take_turns_and_the_order_rotates(
    agent: FakeAgent, client: DeviceClient, tmp_path: Path
) -> None:
    found = measure_in_rounds(client, entrants(tmp_path, "a", "b", "c"), 4)

    order = [request.model_name for request in agent.asked]
    assert order == [*"abc", *"bca", *"cab", *"abc"]
    assert {name: len(measured) for name, measured in found.measured.items()} == {"a": 4, "b": 4, "c": 4}
    assert found.failures == {}


def test_each_turn_is_a_job_of_its_own_for_figures_that_are_quoted(
    agent: FakeAgent, client: DeviceClient, tmp_path: Path
) -> None:
    found = measure_in_rounds(client, entrants(tmp_path, "a", "b"), 3)

    assert len({request.request_id for request in agent.asked}) == 6
    assert {measured.mode for measured in found.measured["a"]} == {MeasurementMode.FULL}


def test_only_the_first_round_is_profiled(agent: FakeAgent, client: DeviceClient, tmp_path: Path) -> None:
    measure_in_rounds(client, entrants(tmp_path, "a", "b", profile=True), 3)

    assert [request.spec.profile for request in agent.asked] == [True, True] + [False] * 4


def test_model_that_fails_leaves_the_others_their_rounds(
    agent: FakeAgent, client: DeviceClient, tmp_path: Path
) -> None:
    def fail_late(request):  # type: ignore[no-untyped-def]
        late = sum(asked.model_name == "b" for asked in agent.asked) == 2
        return "the worker died" if request.model_name == "b" and late else figures_of(1.0)

    agent.figures = fail_late

    found = measure_in_rounds(client, entrants(tmp_path, "a", "b"), 3)

    assert {name: len(measured) for name, measured in found.measured.items()} == {"a": 3}
    assert found.failures == {"b": "device 'bench' could not measure 'b': the worker died"}
    assert sum(request.model_name == "b" for request in agent.asked) == 2


def test_events_name_the_model_and_its_round(agent: FakeAgent, client: DeviceClient, tmp_path: Path) -> None:
    agent.progress = [benchmark_pb2.BenchmarkProgress(phase=benchmark_pb2.BENCHMARK_PHASE_LOAD)]
    events: list[tuple[str, str]] = []

    measure_in_rounds(client, entrants(tmp_path, "a"), 3, lambda model, event: events.append((model, event)))

    assert events == [("a (1 of 3)", "load"), ("a (2 of 3)", "load"), ("a (3 of 3)", "load")]


def test_model_changed_between_rounds_is_noticed(
    agent: FakeAgent, client: DeviceClient, tmp_path: Path
) -> None:
    def overwrite(_):  # type: ignore[no-untyped-def]
        (tmp_path / "a").write_bytes(b"another model")
        return figures_of(1.0)

    agent.figures = overwrite

    with pytest.raises(ConfigurationError, match="was changed while it was being measured"):
        measure_in_rounds(client, entrants(tmp_path, "a"), 3)


def test_interrupted_measurement_frees_the_board(
    agent: FakeAgent, client: DeviceClient, tmp_path: Path
) -> None:
    agent.progress = [benchmark_pb2.BenchmarkProgress(phase=benchmark_pb2.BENCHMARK_PHASE_MEASURE)]

    def interrupt(_model: str, _event: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_in_rounds(client, entrants(tmp_path, "a"), 1, interrupt)

    assert agent.cancelled == [agent.asked[0].request_id]
