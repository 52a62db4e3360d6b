"""When a project is written, and what is left when it is not."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codegen_examples import DIGITS, example_network, example_project, randomised_weights

from controller.codegen import generator
from controller.codegen.figures import figures
from controller.codegen.generator import generate_project, project_files
from controller.codegen.verification import verify
from controller.core.errors import ConfigurationError, ExportError
from controller.core.network import Network


def test_project_holds_what_was_measured(tmp_path: Path) -> None:
    project = example_project()
    out = tmp_path / "missing" / "project"

    generate_project(project, out)

    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "data.py",
        "deploy.py",
        "inference.py",
        "measurements.json",
        "model.onnx",
        "model.py",
        "preprocess.py",
        "requirements.txt",
        "train.py",
        "weights.pt",
    ]
    assert (out / "model.onnx").read_bytes() == project.onnx
    assert json.loads((out / "measurements.json").read_text()) == list(project.measurements)
    saved = torch.load(out / "weights.pt", weights_only=True)
    assert all(torch.equal(saved[name], tensor) for name, tensor in project.weights.items())
    assert [path.name for path in out.parent.iterdir()] == ["project"]


def test_empty_directory_is_filled_and_not_replaced(tmp_path: Path) -> None:
    before = tmp_path.stat().st_ino

    generate_project(example_project(), tmp_path)

    assert tmp_path.stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(project_files(example_project()))


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_out_that_holds_something_is_refused(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "directory":
        out.mkdir()
        (out / "precious.txt").write_text("mine")
    else:
        out.write_text("mine")

    with pytest.raises(ConfigurationError, match="exists and is no empty directory; choose another --out"):
        generate_project(example_project(), out)

    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_left_when_the_weights_are_not_the_networks(tmp_path: Path) -> None:
    weights = randomised_weights(example_network((1, 8, 8), 10))
    del weights["head.classifier.bias"]
    project = example_project(weights=weights)

    with pytest.raises(ExportError, match=r"not those of the network: .*head\.classifier\.bias"):
        generate_project(project, tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(network: Network, weights: object, folder: Path) -> None:
        assert (folder / "model.py").is_file()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generator, "verify", fill_disk)

    with pytest.raises(ConfigurationError, match="No space left on device; choose another --out"):
        generate_project(example_project(), tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_out_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot be written"):
        generate_project(example_project(), tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("torch.relu(out + x)", "torch.tanh(out + x)", "differs from the network by .* in a logit"),
        (
            "self.head(x)",
            "self.head(x)[:, :9]",
            r"gives logits of shape \(4, 9\); the network gives \(4, 10\)",
        ),
        (
            "import torch\n",
            "import torch, nowhere\n",
            "fails: ModuleNotFoundError: No module named 'nowhere'",
        ),
    ],
)
def test_model_that_differs_is_not_proven(tmp_path: Path, old: str, new: str, message: str) -> None:
    project = example_project()
    files = project_files(project)
    (tmp_path / "weights.pt").write_bytes(files["weights.pt"])
    text = files["model.py"].decode()
    assert old in text
    (tmp_path / "model.py").write_text(text.replace(old, new))

    with pytest.raises(ExportError, match=message):
        verify(project.network, project.weights, tmp_path)


def test_dataset_without_a_loader_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="dataset 'imagenet' has no loader to write; expected one of digits"
    ):
        project_files(example_project(dataset=replace(DIGITS, name="imagenet")))


@pytest.mark.parametrize("name", ["", "two words", '"""', "../up", "x" * 61])
def test_project_name_is_checked(name: str) -> None:
    with pytest.raises(ConfigurationError, match="project name"):
        example_project(name=name)


def test_dataset_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"the network expects \(\(1, 8, 8\), \(10,\)\)"):
        example_project(dataset=replace(DIGITS, classes=("a", "b")), network=example_network((1, 8, 8), 10))


def test_figures_are_listed_by_device_with_those_that_are_absent() -> None:
    listed = figures({"latency_ms@pi4": 3.21987, "accuracy": 0.93, "energy_mj@nano": 12345.6})

    assert [(figure.key, figure.value, figure.unit) for figure in listed] == [
        ("accuracy", "0.93", "fraction"),
        ("test_accuracy", "not measured", "fraction"),
        ("latency_ms@pi4", "3.22", "ms"),
        ("peak_memory_mb@pi4", "not measured", "MB"),
        ("energy_mj@pi4", "not measured", "mJ"),
        ("latency_ms@nano", "not measured", "ms"),
        ("peak_memory_mb@nano", "not measured", "MB"),
        ("energy_mj@nano", "12,346", "mJ"),
    ]


def test_readme_states_figures_and_what_is_absent() -> None:
    project = example_project()
    readme = project_files(project)["README.md"].decode()

    assert "| latency_ms | 3.22 | ms | pi4 | measured on the device, with model.onnx |" in readme
    assert "| energy_mj | not measured | mJ | pi4 |" in readme
    assert hashlib.sha256(project.onnx).hexdigest() in readme
    assert f"| **all** | | | | **{project.network.parameters:,}** | **{project.network.macs:,}** |" in readme


def test_readme_says_when_no_device_measured_anything() -> None:
    readme = project_files(example_project(figures={"accuracy": 0.5}))["README.md"].decode()

    assert "No figure was measured on a device." in readme
