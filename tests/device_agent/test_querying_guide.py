"""Every command in docs/querying.md, run by bash against a real agent, with a stand-in for grpcurl."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from agent_harness import Agent, padded_model, running_agent
from edgenas.v1 import benchmark_pb2, device_pb2, measurement_pb2, model_pb2
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from device_agent.serving.wire.tables import STATUS_OF

GUIDE = (Path(__file__).parents[2] / "docs" / "querying.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.slow
SERVICES = [
    device_pb2.DESCRIPTOR.services_by_name["DeviceService"],
    model_pb2.DESCRIPTOR.services_by_name["ModelService"],
    benchmark_pb2.DESCRIPTOR.services_by_name["BenchmarkService"],
]
BLOCK_LIMIT_S = 120


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What the stand-in did while the guide's blocks ran in order, on an agent of their own."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "model.onnx").write_bytes(padded_model(3 << 20))
    grpcurl = folder / "grpcurl"
    stand_in = Path(__file__).with_name("grpcurl_stand_in.py")
    grpcurl.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stand_in}" "$@"\n')
    grpcurl.chmod(0o755)
    with running_agent(folder / "state") as agent:
        agent.describe()
        for block in BLOCKS:
            run(block, agent, folder)
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def run(block: str, agent: Agent, folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "EDGENAS_ADDRESS": agent.address,
        "EDGENAS_CALLS": str(folder / "calls"),
    }
    ended = subprocess.run(
        ["bash", "-u", "-o", "pipefail", "-c", block],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BLOCK_LIMIT_S,
    )
    # What grpcurl reports of a stream that `-max-time` ended is all that it may report.
    assert re.fullmatch(r"(ERROR:\n  Code: DEADLINE_EXCEEDED\n  Message: .*\n)?", ended.stderr), (
        f"{block}\n{ended.stdout}\n{ended.stderr}"
    )


def made(calls: list[dict], method: str) -> list[dict]:
    found = [call for call in calls if call.get("method") == method]
    assert found, method
    return found


def test_every_command_was_run(calls: list[dict]):
    assert len(calls) == sum(len(re.findall(r"\bgrpcurl -", block)) for block in BLOCKS)
    assert len(calls) > 20


def test_every_call_succeeds(calls: list[dict]):
    for call in calls:
        if "method" not in call:
            continue
        ended_by_the_clock = call["limited"] and call["status"] == "DEADLINE_EXCEEDED" and call["answers"]
        assert call["status"] == "OK" or ended_by_the_clock, call


def test_every_method_is_in_the_guide(calls: list[dict]):
    methods = {method.full_name for service in SERVICES for method in service.methods}
    methods |= {"grpc.health.v1.Health.Check", "grpc.health.v1.Health.Watch"}
    assert {call["method"] for call in calls if "method" in call} == methods


def test_every_field_of_a_request_is_in_the_guide(calls: list[dict]):
    used: dict[str, set[str]] = {}
    for call in calls:
        for request in call.get("requests", ()):
            used.setdefault(call["method"].rpartition(".")[2], set()).update(request)
    for service in SERVICES:
        for method in service.methods:
            assert used.get(method.name, set()) == set(method.input_type.fields_by_name), method.full_name
    specs = [call["requests"][0]["spec"] for call in made(calls, "edgenas.v1.BenchmarkService.RunBenchmark")]
    assert set().union(*specs) == set(benchmark_pb2.BenchmarkSpec.DESCRIPTOR.fields_by_name)


def test_commands_do_what_the_guide_says(calls: list[dict]):
    benchmarks = "edgenas.v1.BenchmarkService"
    before, *_ = made(calls, "edgenas.v1.ModelService.HasModel")
    assert before["answers"] == [{}]
    example, own = made(calls, "edgenas.v1.ModelService.UploadModel")
    assert example["answers"][0]["sizeBytes"] == "96"
    assert len(own["requests"]) > 4
    assert [
        call["answers"][-1]["result"]["requestId"] for call in made(calls, f"{benchmarks}.RunBenchmark")
    ] == [
        "first-look",
        "everything",
        "energy",
    ]
    assert made(calls, f"{benchmarks}.CancelBenchmark")[0]["answers"] == [{}]
    (found,) = made(calls, f"{benchmarks}.GetBenchmark")[0]["answers"]
    assert len(found["measurement"]["samplesMs"]) == found["measurement"]["latency"]["samples"]
    assert len(made(calls, "edgenas.v1.DeviceService.WatchTelemetry")[0]["answers"]) > 1
    assert {call["answers"][0]["status"] for call in made(calls, "grpc.health.v1.Health.Check")} == {
        "SERVING"
    }


def test_lists_are_what_the_guide_says(calls: list[dict]):
    lists = made(calls, "edgenas.v1.BenchmarkService.ListBenchmarks")
    found = [[entry["requestId"] for entry in call["answers"][0].get("benchmarks", ())] for call in lists]
    everything = ["energy", "everything", "first-look"]
    assert found[:5] == [everything, everything, ["first-look"], everything, everything]
    flagged = [
        entry["requestId"]
        for entry in lists[0]["answers"][0]["benchmarks"]
        if entry["measurement"].get("flags")
    ]
    assert found[5] == [name for name in everything if name not in flagged]
    assert found[6] == [name for name in flagged if name == "first-look"]
    assert found[7:] == [["energy"], ["everything"]]


def test_energy_is_there_or_its_absence_explained(calls: list[dict]):
    *_, energy = made(calls, "edgenas.v1.BenchmarkService.RunBenchmark")
    measurement = energy["answers"][-1]["result"]["measurement"]
    assert ("energyMj" in measurement) != ("energyAbsentReason" in measurement)


def table(heading: str) -> set[str]:
    """Return the words in the first column of the table below a heading."""
    section = GUIDE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE))


@pytest.mark.parametrize(
    ("heading", "enum", "prefix"),
    [
        ("What the flags mean", measurement_pb2.MeasurementFlag, "MEASUREMENT_FLAG_"),
        ("What a failure means", benchmark_pb2.FailureReason, "FAILURE_REASON_"),
    ],
)
def test_tables_explain_every_value(heading: str, enum: EnumTypeWrapper, prefix: str):
    assert table(heading) == {name.removeprefix(prefix) for name in enum.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED"
    }


def test_table_explains_every_status():
    assert table("What a status means") == {status.name for status in STATUS_OF.values()}
