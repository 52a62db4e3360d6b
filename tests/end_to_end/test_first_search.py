"""The way of a new user: search, look, generate, run what came out where EdgeNAS is not."""

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from command_line import PYTHON, Command


@pytest.fixture
def untidy_folder(image_folder: Path, tmp_path: Path) -> Path:
    """Return the user's own images, one of them no image at all."""
    root = tmp_path / "my images"
    for source in image_folder.rglob("*.png"):
        target = root / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (root / "red" / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    return root


def test_own_images_become_a_project_that_runs_without_edgenas(
    edgenas: Command, untidy_folder: Path, tmp_path: Path
) -> None:
    searched = edgenas(
        "search",
        "--dataset",
        f"folder:{untidy_folder}",
        "--device",
        "local",
        "--budget",
        2,
        "--epochs",
        2,
        "--threads",
        1,
        "--keep-flagged",
        "--json",
    )
    assert searched.returncode == 0, searched.stderr
    front = json.loads(searched.stdout)["front"]
    shown = json.loads(edgenas("front", "last", "--json").stdout)
    project = tmp_path / "project"
    generated = edgenas("generate", "last", "--out", project, "--select", "accuracy")
    assert generated.returncode == 0, generated.stderr
    measured = json.loads((project / "measurements.json").read_text())
    elsewhere = _python_without_edgenas(tmp_path / "venv")
    image = next((untidy_folder / "red").glob("*.png"))

    predicted = _run(elsewhere, project, "inference.py", image)
    trained = _run(elsewhere, project, "train.py", "--epochs", 1)
    deployed = _run(elsewhere, project, "deploy.py")

    assert "broken.jpg is no readable image and is skipped" in searched.stderr
    assert "1 of 61 images were skipped" in searched.stderr
    assert front == shown
    assert {"accuracy", "latency_ms@local", "peak_memory_mb@local", "test_accuracy"} <= front[0].keys()
    assert measured[0]["model_file"] == "model.onnx"
    assert measured[0]["latency_ms"] > 0
    assert measured[0]["threads"] == 1
    assert "red" in predicted
    assert "accuracy" in trained
    assert "difference" in deployed


def _python_without_edgenas(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return the interpreter of a new environment that sees this one's libraries, but not EdgeNAS.

    The libraries come by search path, which leaves out what the development install adds on start.
    """
    venv.create(folder, with_pip=False)
    libraries = {**os.environ, "PYTHONPATH": sysconfig.get_paths()["purelib"]}
    python = folder / "bin" / "python"
    imports = [python, "-c", "import torch; import controller"]
    found = subprocess.run(imports, cwd=folder, capture_output=True, text=True, env=libraries, check=False)
    assert "No module named 'controller'" in found.stderr
    return python, libraries


def _run(python: tuple[Path, dict[str, str]], project: Path, *arguments: object) -> str:
    interpreter, libraries = python
    done = subprocess.run(
        [interpreter, *map(str, arguments)],
        cwd=project,
        env=libraries,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_interface_searches_and_generates(home: Path, image_folder: Path, tmp_path: Path) -> None:
    program = f"""
from controller import NeuralArchitectureSearch
search = NeuralArchitectureSearch(
    task="image_classification", dataset="folder:{image_folder}", objectives=["accuracy", "macs_m"],
    budget=2, training={{"epochs": 1}},
)
result = search.search()
result.generate({str(tmp_path / "out")!r}, select="accuracy")
print(len(result.front))
"""
    done = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True, timeout=200)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1
    assert (tmp_path / "out" / "model.py").is_file()
    assert json.loads((tmp_path / "out" / "measurements.json").read_text()) == []
