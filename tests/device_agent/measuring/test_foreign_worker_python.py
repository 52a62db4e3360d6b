"""Workers under another Python than the agent's: one that has the runtime and nothing of EdgeNAS."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from agent_harness import conv_model, running_agent
from worker_jobs import run_job

LIBRARIES = Path(numpy.__file__).parents[1]
# Runs at the start of that Python, and notes what is looked for from then on.
NOTE_IMPORTS = """\
import os, sys

# A worker can soon write nothing but what is open already.
log = open({log!r}, "a", buffering=1)

class Note:
    def find_spec(self, name, path=None, target=None):
        if path is None:
            log.write(name + "\\n")

log.write("PYTHONPATH=" + os.environ.get("PYTHONPATH", "") + "\\n")
sys.meta_path.insert(0, Note())
"""


@pytest.fixture
def foreign_python(tmp_path: Path) -> Callable[[str], str]:
    """Make a Python that has this one's libraries, starts with some code, and cannot import the agent."""

    def make(start: str) -> str:
        folder = tmp_path / "foreign"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        # Not sitecustomize: Debian's Python has one of its own, which comes first.
        (site / "foreign_start.py").write_text(start)
        (site / "libraries.pth").write_text(f"{LIBRARIES}\nimport foreign_start\n")
        python = str(folder / "bin/python")
        lacking = subprocess.run(
            [python, "-c", "import device_agent"],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
        )
        if lacking.returncode == 0:
            pytest.skip("the agent is installed where its libraries are")
        assert "No module named 'device_agent'" in lacking.stderr
        return python

    return make


def test_job_runs_under_a_python_without_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign_python: Callable[[str], str]
):
    log = tmp_path / "imports"
    python = foreign_python(NOTE_IMPORTS.format(log=str(log)))
    log.unlink(missing_ok=True)
    # What describes the agent's own Python is not for another one.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with running_agent(tmp_path / "state", "--worker-python", python) as agent:
        record = agent.measure(agent.upload(conv_model()))
        (runtime,) = [entry for entry in agent.describe().runtimes if entry.name == "onnx"]
    assert record.measurement.latency.samples >= 64
    assert record.measurement.runtime_version == f"onnxruntime {runtime.version}"
    assert record.measurement.HasField("canary")
    looked_for = set(log.read_text().splitlines())
    assert {"numpy", "onnxruntime", "PYTHONPATH="} <= looked_for
    own = {"device_agent", "controller", "edgenas", "grpc", "psutil", "click"}
    assert not own & {name.partition(".")[0] for name in looked_for}


@pytest.mark.slow
def test_python_with_pytorch_alone_measures_without_the_reference_model(
    tmp_path: Path, foreign_python: Callable[[str], str]
):
    """As on an old Jetson, whose vendor's wheel of PyTorch is all there is."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():
        # torch has deprecated TorchScript, which boards still run.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 4, 3).eval()), path)
    python = foreign_python("import sys\nsys.modules['onnxruntime'] = None\n")
    job = run_job("torchscript", path, python=python, input_shapes={"input": [1, 3, 8, 8]})
    assert job.result["canary_ns"] == []
    reason = job.result["canary_absent_reason"]
    assert reason.startswith("the reference model needs onnxruntime: ")
    assert reason.endswith("; install it for the worker's Python")
    assert len(job.result["samples_ns"]) >= 64
