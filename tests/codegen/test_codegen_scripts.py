"""The generated scripts, run as a customer runs them: in an interpreter without EdgeNAS."""

import json
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from codegen_examples import DIGITS, example_network, example_project, randomised_weights, run_script
from PIL import Image

from controller.codegen.generator import generate_project, project_files
from controller.codegen.project import Project
from controller.models.module import seeded_module
from controller.training.data import load_dataset
from controller.training.dataset import Dataset
from controller.training.images import ImageFiles, decode
from controller.training.recipe import Schedule, TrainingRecipe
from controller.training.trainer import Trainer, normalise

pytestmark = pytest.mark.slow

RECIPE = TrainingRecipe(epochs=1, batch_size=16, learning_rate=0.05)
DUMP = """\
from pathlib import Path

import torch

from data import load_splits

torch.save([tuple(split) for split in load_splits({argument})], {out!r})
"""

FAKE_TORCHVISION = """\
import numpy as np
import torch

class CIFAR10:
    classes = [f"class {index}" for index in range(10)]

    def __init__(self, root, train, download):
        count = 200 if train else 40
        self.data = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = [index * 7 % 10 for index in range(count)]

class FashionMNIST:
    classes = CIFAR10.classes

    def __init__(self, root, train, download):
        colours = CIFAR10(root, train, download)
        self.data = torch.from_numpy(colours.data[:, :28, :28, 0])
        self.targets = torch.tensor(colours.targets)
"""


def write_images(folder: Path, count: int, seed: int) -> None:
    """Write images of two classes in two sizes: dark ones and bright ones."""
    rng = np.random.default_rng(seed)
    for name, level in (("dark side", 60), ("it's bright", 190)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(level - 50, level + 50, size=(20, 18 + index % 2 * 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.jpg", quality=95)


@pytest.fixture(scope="module")
def folder_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("images")
    write_images(root / "train", 20, seed=0)
    write_images(root / "val", 6, seed=1)
    (root / "train" / "dark side" / "broken.png").write_bytes(b"no image")
    return load_dataset(f"folder:{root}", downloads=root)


def project_for(dataset: Dataset) -> Project:
    network = example_network(dataset.info.image_shape, len(dataset.info.classes))
    return example_project(network, dataset.info, recipe=RECIPE)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits") / "project"
    generate_project(project_for(load_dataset("digits", downloads=out)), out)
    return out


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory, folder_dataset: Dataset) -> Path:
    out = tmp_path_factory.mktemp("colours") / "project"
    generate_project(project_for(folder_dataset), out)
    return out


def test_scripts_run_where_edgenas_is_not_installed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import controller.core.network\n")

    done = run_script(script, cwd=tmp_path)

    assert "controller is not installed where this project runs" in done.stderr


@pytest.mark.parametrize("project", ["digits", "colours"])
def test_sources_are_formatted_and_lint(project: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(project)

    assert_clean(folder)


def assert_clean(folder: Path) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    for command in (
        ["format", "--isolated", "--diff", "--line-length", "100", "."],
        ["check", "--isolated", "--select", "E,F,I,N,UP,B", "--line-length", "100", "--no-cache", "."],
    ):
        done = subprocess.run([*ruff, *command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
@pytest.mark.parametrize("schedule", list(Schedule))
def test_sources_for_other_datasets_are_formatted_and_lint(
    tmp_path: Path, name: str, schedule: Schedule
) -> None:
    shape = (1, 28, 28) if name == "fashion_mnist" else (3, 32, 32)
    info = replace(
        DIGITS,
        name=name,
        classes=tuple(f"class {index}" for index in range(100)),
        image_shape=shape,
        mean=(0.4914, 0.4822, 0.4465)[: shape[0]],
        std=(0.2471, 0.2435, 0.2616)[: shape[0]],
        natural=True,
    )
    project = example_project(dataset=info, recipe=replace(RECIPE, schedule=schedule))
    for file, content in project_files(project).items():
        (tmp_path / file).write_bytes(content)

    assert_clean(tmp_path)


@pytest.mark.parametrize("schedule", list(Schedule))
def test_training_repeats_the_searched_weights(tmp_path: Path, schedule: Schedule) -> None:
    dataset = load_dataset("digits", downloads=tmp_path)
    project = replace(project_for(dataset), recipe=replace(RECIPE, schedule=schedule))
    for file, content in project_files(project).items():
        (tmp_path / file).write_bytes(content)
    trainer = Trainer(dataset, torch.device("cpu"), torch.float32)
    expected = trainer.train(project.network, project.recipe)

    done = run_script(tmp_path / "train.py", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (
        f"epoch 1/1: loss {expected.losses[0]:.3f}, validation accuracy {expected.accuracy:.4f}"
        in done.stdout
    )
    assert f"test accuracy {trainer.test_accuracy(expected.module):.4f}, n=359" in done.stdout
    written = torch.load(tmp_path / "weights-trained.pt", weights_only=True)
    torch.testing.assert_close(written, dict(expected.module.state_dict()), rtol=1e-4, atol=1e-5)


def test_training_on_a_folder_repeats_the_searched_weights(
    tmp_path: Path, colours: Path, folder_dataset: Dataset
) -> None:
    project = project_for(folder_dataset)
    expected = Trainer(folder_dataset, torch.device("cpu"), torch.float32).train(project.network, RECIPE)

    done = run_script(colours / "train.py", "--out", tmp_path / "mine.pt", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "broken.png: cannot identify image file" in done.stdout
    written = torch.load(tmp_path / "mine.pt", weights_only=True)
    torch.testing.assert_close(written, dict(expected.module.state_dict()), rtol=1e-4, atol=1e-5)


def test_training_resumes_from_the_shipped_weights(tmp_path: Path, colours: Path) -> None:
    done = run_script(colours / "train.py", "--resume", "--lr", "0", "--seed", "1", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    written = torch.load(tmp_path / "weights-trained.pt", weights_only=True)
    shipped = torch.load(colours / "weights.pt", weights_only=True)
    assert torch.equal(written["stem.conv.weight"], shipped["stem.conv.weight"])


def test_training_without_its_images_says_what_to_do(tmp_path: Path, colours: Path) -> None:
    done = run_script(colours / "train.py", "--data", tmp_path / "nowhere", cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/nowhere is no folder; name the folder of images with --data PATH\n"


def test_training_on_other_classes_is_refused(tmp_path: Path, colours: Path) -> None:
    write_images(tmp_path / "images", 2, seed=0)
    (tmp_path / "images" / "twilight").mkdir()

    done = run_script(colours / "train.py", "--data", tmp_path / "images", cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.endswith("images/twilight is none of the classes dark side, it's bright\n")


def layouts() -> list[tuple[str, Callable[[Path], None]]]:
    return [
        ("flat", lambda root: write_images(root, 20, seed=0)),
        ("train and test", lambda root: [write_images(root / part, 20, 0) for part in ("train", "test")]),
        (
            "three parts",
            lambda root: [write_images(root / part, 20, 0) for part in ("train", "valid", "test")],
        ),
    ]


@pytest.mark.parametrize(("name", "write"), layouts())
def test_folder_is_split_as_the_search_split_it(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    images, out = tmp_path / name, tmp_path / "project"
    write(images)
    dataset = load_dataset(f"folder:{images}", downloads=tmp_path)
    out.mkdir()
    for file, content in project_files(project_for(dataset)).items():
        (out / file).write_bytes(content)

    assert_same_splits(out, dataset, f"Path({str(images)!r})")


def assert_same_splits(project: Path, dataset: Dataset, argument: str) -> None:
    dumped = project / "splits.pt"
    script = project / "dump.py"
    script.write_text(DUMP.format(argument=argument, out=str(dumped)))

    done = run_script(script, cwd=project)

    assert done.returncode == 0, done.stderr
    for (images, labels), split in zip(
        torch.load(dumped, weights_only=True), (dataset.train, dataset.validation, dataset.test), strict=True
    ):
        assert torch.equal(images, split.images)
        assert torch.equal(labels, split.labels)


@pytest.mark.parametrize(
    ("name", "torchvision_name"), [("cifar10", "CIFAR10"), ("fashion_mnist", "FashionMNIST")]
)
def test_download_is_split_as_the_search_split_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, torchvision_name: str
) -> None:
    from torchvision import datasets

    fake = types.ModuleType("fake")
    exec(FAKE_TORCHVISION, fake.__dict__)
    monkeypatch.setattr(datasets, torchvision_name, getattr(fake, torchvision_name))
    dataset = load_dataset(name, downloads=tmp_path)
    for file, content in project_files(project_for(dataset)).items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("")
    (tmp_path / "torchvision" / "datasets.py").write_text(FAKE_TORCHVISION)

    assert_same_splits(tmp_path, dataset, "Path('data')")


@pytest.mark.parametrize("options", [(), ("--onnx",)])
def test_inference_prints_the_networks_probabilities(
    tmp_path: Path, colours: Path, folder_dataset: Dataset, options: tuple[str, ...]
) -> None:
    image = next(Path(str(folder_dataset.info.path)).glob("train/it's bright/*.jpg"))
    project = project_for(folder_dataset)
    module = seeded_module(project.network, 0)
    module.load_state_dict(dict(project.weights))
    pixels, _ = decode(ImageFiles(paths=(image,), labels=(0,)), folder_dataset.info.image_shape)
    with torch.inference_mode():
        dark, bright = module.eval()(normalise(pixels.images, folder_dataset.info)).softmax(1)[0].tolist()

    done = run_script(colours / "inference.py", image, *options, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    expected = sorted([(dark, "dark side"), (bright, "it's bright")], reverse=True)
    assert done.stdout == "".join(f"{probability:7.2%}  {name}\n" for probability, name in expected)


@pytest.mark.parametrize("name", ["nowhere.jpg", "model.py", "."])
def test_inference_names_an_image_it_cannot_read(colours: Path, name: str) -> None:
    done = run_script(colours / "inference.py", name, "--onnx", cwd=colours)

    assert done.returncode == 2
    assert done.stderr.startswith(f"{name} is no readable image: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_inference_with_onnx_needs_no_pytorch(tmp_path: Path, colours: Path, folder_dataset: Dataset) -> None:
    image = next(Path(str(folder_dataset.info.path)).glob("train/*/*.jpg"))
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.modules['torch'] = None\nsys.path.insert(0, {str(colours)!r})\n"
        f"sys.argv = ['inference.py', {str(image)!r}, '--onnx', '--top', '1']\n"
        "import inference\nsys.exit(inference.main())\n"
    )

    done = run_script(script, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1


def test_deploy_exports_a_model_that_computes_the_same(tmp_path: Path, digits: Path) -> None:
    done = run_script(digits / "deploy.py", "--runs", "20", "--threads", "1", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    exported, shipped, latency = done.stdout.splitlines()
    assert exported.startswith("model-deployed.onnx: same as PyTorch; largest difference in a logit ")
    assert shipped.startswith("model.onnx (with weights.pt): same as PyTorch; ")
    assert "n=20, 1 threads, ONNX Runtime " in latency
    assert latency.endswith("not on the board")
    assert [path.name for path in tmp_path.iterdir()] == ["model-deployed.onnx"]


def test_deploy_fails_when_the_shipped_model_differs(tmp_path: Path) -> None:
    other = example_project()
    project = example_project(weights=randomised_weights(other.network, seed=1), onnx=other.onnx)
    for file, content in project_files(project).items():
        (tmp_path / file).write_bytes(content)

    done = run_script(tmp_path / "deploy.py", "--runs", "1", cwd=tmp_path)

    assert done.returncode == 1
    assert "model.onnx (with weights.pt): NOT the same as PyTorch" in done.stdout


def test_project_says_with_which_flags_it_was_measured(digits: Path) -> None:
    measurements = json.loads((digits / "measurements.json").read_text())

    assert measurements == [{"device": "pi4", "latency_ms": 3.21987, "flags": ["CI_NOT_REACHED"]}]
