"""Runtimes that other packages bring, the one of docs/runtimes.md first of all."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from agent_harness import conv_model, running_agent, spec

from device_agent.errors import RuntimeUnavailableError
from device_agent.runtimes.catalogue import known_runtimes
from device_agent.runtimes.onnx import ONNX
from device_agent.runtimes.worker_process import WorkerProcess

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs/runtimes.md").read_text(encoding="utf-8")
PROJECT, ROW, WORKER = re.findall(r"^```(?:toml|python)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
BROKEN = """\
from dataclasses import replace

from device_agent.runtimes.onnx import ONNX

NO_ROW = "onnx"
NAME_TAKEN = replace(ONNX, worker_file=__file__)
NO_FILE = replace(ONNX, name="orphan")
"""


def install(folder: Path, name: str, entries: Mapping[str, str], **files: str) -> None:
    """Install a distribution that brings these runtimes into a folder."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = ["[edgenas.runtimes]", *(f"{entry} = {value}" for entry, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, text in files.items():
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the guide's package, which the processes that the test starts have installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    entries = tomllib.loads(PROJECT)["project"]["entry-points"]["edgenas.runtimes"]
    install(folder, "guide", entries, edgenas_numpy=ROW, edgenas_numpy_worker=WORKER)
    path = [str(folder), str(ROOT), str(ROOT / "protos"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return folder


def refusal(worker_file: Path) -> str:
    """Return why a worker with a third party's file is of no use."""
    row = replace(ONNX, name="theirs", package="theirs", remedy="buy it", worker_file=worker_file)
    worker = WorkerProcess(sys.executable, row)
    try:
        with pytest.raises(RuntimeUnavailableError) as caught:
            worker.greet()
    finally:
        worker.close()
    return str(caught.value)


def test_agent_measures_with_the_runtime_of_another_package(tmp_path: Path, site: Path):
    install(site, "gift", {"clamp": "edgenas_clamp:CLAMP"}, edgenas_clamp="raise RuntimeError('no licence')")
    with running_agent(tmp_path / "state") as agent:
        device = agent.describe()
        sha256 = agent.upload(conv_model())
        record = agent.measure(sha256, spec(runtime="numpy"))
    assert [runtime.name for runtime in device.runtimes] == ["onnx", "torchscript", "numpy"]
    assert (record.spec.runtime, record.spec.provider) == ("numpy", "numpy")
    assert record.measurement.runtime_version == f"onnx {onnx.__version__}"
    assert record.measurement.latency.samples >= 64
    assert record.measurement.HasField("canary")
    assert [(entry.name, entry.reason) for entry in device.unavailable_runtimes] == [
        (
            "clamp",
            "edgenas_clamp:CLAMP fails with RuntimeError('no licence'); "
            "update the package that brings it, or remove it",
        )
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("site")
def test_runtime_of_another_package_joins_the_contract_unasked():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "numpy"]
    done = subprocess.run(
        [*command, "tests/contracts/test_worker_runtime.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 15


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("edgenas_gone:ROW", "fails with ModuleNotFoundError(\"No module named 'edgenas_gone'\")"),
        ("edgenas_broken:NONE", "has no attribute 'NONE'"),
        ("edgenas_broken:NO_ROW", "it is a str, not a Runtime of device_agent.runtimes.base"),
        ("edgenas_broken:NAME_TAKEN", "there is a runtime 'onnx' already"),
        ("edgenas_broken:NO_FILE", "its worker_file is None, which is no file"),
    ],
)
def test_broken_runtime_of_another_package_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, reason: str
):
    install(tmp_path, "gift", {"gift": value}, edgenas_broken=BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    known, left_out = known_runtimes()
    assert known["onnx"] is ONNX
    assert "gift" not in known
    (told,) = [entry for entry in left_out if entry.name == "gift"]
    assert told.reason.startswith(value)
    assert reason in told.reason
    assert told.reason.endswith("; update the package that brings it, or remove it")
    assert "\n" not in told.reason


def test_runtime_whose_library_is_missing_is_unavailable(tmp_path: Path):
    path = tmp_path / "theirs.py"
    path.write_text("import no_such_library\n")
    assert refusal(path) == (
        f"'{sys.executable}' cannot import theirs: No module named 'no_such_library'; "
        "buy it, or choose another --worker-python"
    )


@pytest.mark.parametrize(
    ("text", "last_line"), [("raise OSError('no driver')", "OSError: no driver"), ("", "KeyError: 'theirs'")]
)
def test_file_that_brings_no_runtime_is_named(tmp_path: Path, text: str, last_line: str):
    path = tmp_path / "theirs.py"
    path.write_text(text)
    message = refusal(path)
    assert last_line in message
    assert message.endswith(f"is a Python that can import numpy and theirs and run '{path}'")
