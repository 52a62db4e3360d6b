"""Networks, projects and a way to run a generated script where EdgeNAS cannot be imported."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from controller.codegen.project import Project
from controller.core.network import INPUT, Network, NetworkBuilder
from controller.core.primitives import Add, BatchNorm2d, Conv2d, GlobalAvgPool2d, Linear, MaxPool2d, ReLU
from controller.models.module import seeded_module
from controller.models.onnx import onnx_bytes
from controller.training.dataset import DatasetInfo
from controller.training.recipe import TrainingRecipe

DIGITS = DatasetInfo(
    name="digits",
    path=None,
    classes=tuple("0123456789"),
    image_shape=(1, 8, 8),
    mean=(0.3053,),
    std=(0.3763,),
    natural=False,
    split_seed=0,
)

_RUNNER = """\
import runpy, sys

class NoEdgeNAS:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("controller", "device_agent", "edgenas"):
            raise ModuleNotFoundError(f"{name} is not installed where this project runs")

sys.meta_path.insert(0, NoEdgeNAS())
sys.dont_write_bytecode = True
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
"""


def run_script(script: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of a generated project as a customer would, in an interpreter without EdgeNAS."""
    command = [sys.executable, "-I", "-c", _RUNNER, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=cwd)


def separable_block(
    builder: NetworkBuilder,
    name: str,
    source: str,
    channels: int,
    *,
    stride: int = 1,
    skips: Sequence[str] = (),
) -> str:
    """Add a separable convolution, with projected skips where the shapes differ."""
    with builder.block(name, "sep_conv3x3"):
        own = builder.shape(source)[0]
        x = builder.add("depthwise", Conv2d(own, 3, stride=stride, groups=own), source)
        x = builder.add("pointwise", Conv2d(channels, 1), x)
        terms = [builder.add("bn", BatchNorm2d(), x)]
        for number, skip in enumerate(skips, start=1):
            if builder.shape(skip) != builder.shape(terms[0]):
                ratio = -(-builder.shape(skip)[1] // builder.shape(terms[0])[1])
                skip = builder.add(f"skip_{number}_conv", Conv2d(channels, 1, stride=ratio), skip)
                skip = builder.add(f"skip_{number}_bn", BatchNorm2d(), skip)
            terms.append(skip)
        result = builder.add("add", Add(), *terms) if skips else terms[0]
        return builder.add("relu", ReLU(), result)


def example_network(input_shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10) -> Network:
    """Return a small network with every sort of skip connection."""
    builder = NetworkBuilder(input_shape=input_shape)
    with builder.block("stem", "stem"):
        x = builder.add("conv", Conv2d(8, 3), INPUT)
        stem = builder.add("relu", ReLU(), builder.add("bn", BatchNorm2d(), x))
    first = separable_block(builder, "layer_1", stem, 16, stride=2)
    second = separable_block(builder, "layer_2", first, 16, skips=[first])
    third = separable_block(builder, "layer_3", second, 24, stride=2, skips=[second, stem])
    with builder.block("layer_4", "max_pool"):
        pooled = builder.add("pool", MaxPool2d(3), third)
        fourth = builder.add("add", Add(), pooled, third)
    fifth = separable_block(builder, "layer_5", fourth, 32)
    with builder.block("head", "head"):
        builder.add("classifier", Linear(classes), builder.add("pool", GlobalAvgPool2d(), fifth))
    return builder.build()


def randomised_weights(network: Network, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a state dict whose batch norms are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    weights = seeded_module(network, seed).state_dict()
    return {
        name: torch.rand(tensor.shape, generator=generator) + 0.5 if tensor.dim() == 1 else tensor
        for name, tensor in weights.items()
    }


def example_project(
    network: Network | None = None, dataset: DatasetInfo = DIGITS, **changes: object
) -> Project:
    """Return a project; changes replace its attributes."""
    network = network or example_network(dataset.image_shape, len(dataset.classes))
    weights = randomised_weights(network)
    project = Project(
        name="edgenas-digits-3fa2",
        network=network,
        weights=weights,
        onnx=onnx_bytes(network, weights),
        dataset=dataset,
        train_images=1079,
        recipe=TrainingRecipe(epochs=2),
        figures={"accuracy": 0.93, "latency_ms@pi4": 3.21987, "test_accuracy": 0.92},
        measurements=[{"device": "pi4", "latency_ms": 3.21987, "flags": ["CI_NOT_REACHED"]}],
    )
    return replace(project, **changes)  # type: ignore[arg-type]
