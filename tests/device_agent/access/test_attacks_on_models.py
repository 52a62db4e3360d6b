"""Models and names that lead somewhere else than they should: docs/security.md has a row for each."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
import torch
from agent_harness import CALL_LIMIT_S, Agent, conv_model, spec, upload_parts
from edgenas.v1 import benchmark_pb2, model_pb2
from paired_agents import paired_agent

BOMB_BYTES = 300 << 20
ELSEWHERE = ("../../identity/current", "../" * 8 + "etc/passwd", "/etc/passwd", "a/b", "%2e%2e%2f")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with paired_agent(tmp_path_factory.mktemp("board") / "state") as (running, _):
        yield running


def files_of(folder: Path) -> set[Path]:
    """Return what there is, but for the databases' companions, which come and go."""
    return {path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm"))}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_lead_nowhere(agent: Agent, name: str):
    data = conv_model()
    sha256 = agent.upload(data)
    agent.measure(sha256, request_id="first")
    before = files_of(agent.state_dir.parent)
    wanted = benchmark_pb2.RunBenchmarkRequest(request_id=name, model_sha256=sha256, spec=spec())
    calls = {
        "HasModel": lambda: agent.models.HasModel(
            model_pb2.HasModelRequest(sha256=name), timeout=CALL_LIMIT_S
        ),
        "UploadModel": lambda: agent.models.UploadModel(
            upload_parts(data, sha256=name), timeout=CALL_LIMIT_S
        ),
        "RunBenchmark": lambda: list(agent.benchmarks.RunBenchmark(wanted, timeout=CALL_LIMIT_S)),
        "of a model": lambda: list(agent.watch(name)),
    }
    codes = {}
    for call, make in calls.items():
        with pytest.raises(grpc.RpcError) as caught:
            make()
        codes[call] = caught.value.code()

    # As a model's name it is a label, kept as it is.
    record = agent.measure(sha256, name=name)

    assert codes == dict.fromkeys(calls, grpc.StatusCode.INVALID_ARGUMENT)
    assert record.model_name == name
    assert files_of(agent.state_dir.parent) == before


# torch deprecates what people still have files of.
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_zip_bomb_is_a_failed_job(agent: Agent):
    honest, file = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(4, 4), torch.zeros(1, 4)), honest)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in source.infolist():
            weights = "/data/" in entry.filename
            archive.writestr(entry.filename, bytes(BOMB_BYTES) if weights else source.read(entry))
    bomb = file.getvalue()
    header, *chunks = upload_parts(bomb)
    header.header.format = model_pb2.MODEL_FORMAT_TORCHSCRIPT
    sha256 = agent.models.UploadModel(iter([header, *chunks]), timeout=CALL_LIMIT_S).sha256
    resident = psutil.Process(agent.process.pid).memory_info().rss

    failure = agent.fail(sha256, spec(runtime="torchscript"))

    assert len(bomb) < 2 * BOMB_BYTES / 500
    assert failure.reason == benchmark_pb2.FAILURE_REASON_INVALID_MODEL
    assert "zip bomb" in failure.message
    assert psutil.Process(agent.process.pid).memory_info().rss - resident < 16 << 20
    assert agent.measure(agent.upload(conv_model())).measurement.latency.samples
