"""Hosts and boards are not updated on one day: what was released before still talks to what is here.

The previous version is the real one, from the project's own history.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgenas.v1 import access_pb2, benchmark_pb2, device_pb2, measurement_pb2, model_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from device_agent.serving.wire.versions import PROTOCOL_VERSION

PREVIOUS = (
    "f74ddff5a81872f9b39cd3765896ca43665e5cb7"  # the last commit before agents had pairing and a journal
)
LIMIT_S = 60
PROJECT = Path(__file__).parents[2]
FILES = (access_pb2, benchmark_pb2, device_pb2, measurement_pb2, model_pb2)
DESCRIBE = """
import json, sys
from edgenas.v1 import benchmark_pb2, device_pb2, measurement_pb2, model_pb2
files = (benchmark_pb2, device_pb2, measurement_pb2, model_pb2)
print(json.dumps([file.DESCRIPTOR.serialized_pb.hex() for file in files]))
"""
SERVE = "from device_agent.cli.main import main; main()"
MEASURE = """
import hashlib, sys
from pathlib import Path
from controller.core.measurement import ExportedModel, MeasurementMode, ModelFormat
from controller.core.options import MeasurementOptions
from controller.devices.client import DeviceClient
data = Path(sys.argv[2]).read_bytes()
model = ExportedModel(
    data=data, format=ModelFormat.ONNX, sha256=hashlib.sha256(data).hexdigest(), precision="float32"
)
with DeviceClient("board", sys.argv[1], patience_s=30) as client:
    found = client.describe()
    measured = client.measure(
        model, request_id="across", model_name="across", mode=MeasurementMode.SEARCH,
        options=MeasurementOptions(threads=1),
    )
    (listed,) = client.benchmarks()
    print(found.protocol_version, measured.latency.median_ms > 0, listed.request_id)
"""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the previous version."""
    archive = subprocess.run(
        ["git", "archive", PREVIOUS, "controller", "device_agent", "protos"], cwd=PROJECT, capture_output=True
    )
    if archive.returncode:
        pytest.skip(f"the project's history is not here: {archive.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as opened:
        # Debian 12's Python cannot filter yet, and what is unpacked is this repository's own.
        opened.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder


def of(version: Path) -> dict[str, str]:
    """Return an environment in which Python imports a version of the project before any other."""
    return {**os.environ, "PYTHONPATH": f"{version}{os.pathsep}{version / 'protos'}"}


def python(version: Path, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        env=of(version),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    import numpy
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 64))],
        [numpy_helper.from_array(numpy.ones((64, 64), dtype="float32"), "weight")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "linear.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def serving(version: Path, state_dir: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-c", SERVE, "serve", "--address", "127.0.0.1:0"]
    command += ["--gate-limit-s", "0", "--retries", "0", "--exit-on-stdin-eof", "--state-dir", str(state_dir)]
    return subprocess.Popen(
        [*command, *options],
        env=of(version),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def measured(agent: "subprocess.Popen[str]", host: Path, model_file: Path) -> list[str]:
    """Measure a model with the host of one version at an agent of another, and end that."""
    assert agent.stdout is not None
    address = agent.stdout.readline().removeprefix("listening on ").strip()
    done = python(host, MEASURE, address, str(model_file))
    agent.communicate(timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_previous_agent_answers_this_host(previous: Path, tmp_path: Path, model_file: Path) -> None:
    agent = serving(previous, tmp_path / "state")

    assert measured(agent, PROJECT, model_file) == ["1", "True", "across"]


def test_this_agent_answers_the_previous_host(previous: Path, tmp_path: Path, model_file: Path) -> None:
    agent = serving(PROJECT, tmp_path / "state", "--insecure")

    assert measured(agent, previous, model_file) == [str(PROTOCOL_VERSION), "True", "across"]


def test_this_agent_reads_what_the_previous_one_left(
    previous: Path, tmp_path: Path, model_file: Path
) -> None:
    state_dir = tmp_path / "state"
    measured(serving(previous, state_dir), PROJECT, model_file)

    again = measured(serving(PROJECT, state_dir, "--insecure"), PROJECT, model_file)

    assert again == [str(PROTOCOL_VERSION), "True", "across"], (
        "one benchmark is listed: it was not measured again"
    )


def test_no_number_of_the_wire_format_means_something_else(previous: Path) -> None:
    done = python(previous, DESCRIBE)
    assert done.returncode == 0, done.stderr
    then = {
        entry: what
        for encoded in json.loads(done.stdout)
        for entry, what in meanings(FileDescriptorProto.FromString(bytes.fromhex(encoded)))
    }
    now = {
        entry: what
        for file in FILES
        for entry, what in meanings(FileDescriptorProto.FromString(file.DESCRIPTOR.serialized_pb))
    }

    assert len(then) > 200
    assert {entry: now.get(entry) for entry in then} == then


def meanings(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield what stands for what on the wire: fields and values by number, methods by name."""
    for message in file.message_type:
        yield from _fields(message, message.name)
    for enum in file.enum_type:
        for value in enum.value:
            yield f"{enum.name}={value.number}", (value.name,)
    for service in file.service:
        for method in service.method:
            streams = method.client_streaming, method.server_streaming
            yield f"{service.name}/{method.name}", (method.input_type, method.output_type, *streams)


def _fields(message: DescriptorProto, path: str) -> Iterator[tuple[str, tuple[object, ...]]]:
    for field in message.field:
        yield f"{path}={field.number}", (field.name, field.type, field.label, field.type_name)
    for nested in message.nested_type:
        yield from _fields(nested, f"{path}.{nested.name}")
