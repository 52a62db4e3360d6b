"""What a search finds out about its devices before its first candidate."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgenas.v1 import device_pb2
from fake_agent import FakeAgent, serving
from typer.testing import CliRunner

from controller.cli.main import app
from controller.core.errors import ConfigurationError


@pytest.fixture
def agent(home: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent()
    with serving(fake) as address:
        home.mkdir()
        (home / "devices.json").write_text(json.dumps({"pi4": address}))
        yield fake


@pytest.mark.parametrize("goal", [["--objective", "energy_mj"], ["--constraint", "energy_mj<=5"]])
def test_device_that_measures_no_energy_is_found_out_before_the_search(
    agent: FakeAgent, goal: list[str], home: Path
) -> None:
    agent.description = device_pb2.DescribeDeviceResponse(
        protocol_version=1,
        agent_version="0.1.0",
        power_sources=[
            device_pb2.PowerSourceDescription(
                name="rapl", scope="soc", absent_reason="root only: chmod a+r it"
            )
        ],
    )

    result = CliRunner().invoke(
        app, ["search", "--dataset", "digits", "--device", "pi4", "--objective", "accuracy", *goal]
    )

    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception) == (
        "device 'pi4' does not measure energy_mj: rapl: root only: chmod a+r it "
        "(`edgenas devices show` tells why); "
        "search without this objective or constraint"
    )
    assert agent.asked == []
    assert not (home / "edgenas.db").exists()


def test_more_threads_than_a_device_has_cores_are_found_out_before_the_search(
    agent: FakeAgent, home: Path
) -> None:
    agent.description = device_pb2.DescribeDeviceResponse(protocol_version=1, logical_cores=2)

    result = CliRunner().invoke(app, ["search", "--dataset", "digits", "--device", "pi4", "--threads", "4"])

    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception) == (
        "threads is 4, and device 'pi4' has 2 cores; expected 1 to 2, or 0 for its physical cores"
    )
    assert not (home / "edgenas.db").exists()
