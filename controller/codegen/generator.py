"""Writes a project: renders the templates, proves the result, and only then puts it in place."""

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from controller.codegen.figures import figures
from controller.codegen.layout import constant, string
from controller.codegen.model_source import ModelSource, model_source
from controller.codegen.project import Project
from controller.codegen.verification import verify
from controller.core.errors import ConfigurationError
from controller.core.network import INPUT, Network
from controller.training.images import SUFFIXES
from controller.training.recipe import Schedule

_TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}
_DATASET_TITLES = {"digits": "scikit-learn's handwritten digits", "folder": "a folder of images"}
_TEMPLATES = Environment(
    loader=PackageLoader("controller.codegen"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)


def generate_project(project: Project, out: Path) -> None:
    """Write a standalone PyTorch project that computes exactly what the searched network computes.

    Nothing is left at out unless the whole project was written and proven: `model.py` is imported by a
    fresh interpreter, and its logits are compared with the network's.

    Args:
        project: What to write.
        out: A directory that does not exist yet or is empty.

    Raises:
        ConfigurationError: If out holds something or cannot be written, or there is no loader for the dataset.
        NetworkError: If the network cannot be written as one method call a block.
        ExportError: If the weights are not the network's, or the written model differs from it.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"'{out}' exists and is no empty directory; choose another --out")
    files = project_files(project)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # What exists may be a mount point or a shell's current directory: it is filled, not replaced.
        is_new = not out.exists()
        place = out.parent if is_new else out
        with tempfile.TemporaryDirectory(dir=place, prefix=f".{out.name}-") as scratch:
            folder = Path(scratch) / "project"
            folder.mkdir()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            verify(project.network, project.weights, folder)
            if is_new:
                folder.rename(out)
            else:
                for path in folder.iterdir():
                    path.rename(out / path.name)
    except OSError as error:
        raise ConfigurationError(
            f"the project cannot be written to '{out}': {error.strerror or error}; choose another --out"
        ) from error


def project_files(project: Project) -> dict[str, bytes]:
    """Return the content of every file by name, not proven yet.

    Raises:
        ConfigurationError: If there is no loader for the dataset.
        NetworkError: If the network cannot be written as one method call a block.
    """
    known = (*_DATASET_TITLES, *_TORCHVISION)
    if project.dataset.name not in known:
        raise ConfigurationError(
            f"dataset {project.dataset.name!r} has no loader to write; expected one of {', '.join(known)}"
        )
    source = model_source(project.network)
    context = _context(project, source)
    kind = project.dataset.name if project.dataset.name in _DATASET_TITLES else "torchvision"
    templates = {
        "model.py": "model.py",
        "train.py": "train.py",
        "inference.py": "inference.py",
        "deploy.py": "deploy.py",
        "preprocess.py": "preprocess.py",
        "data.py": f"data_{kind}.py",
        "requirements.txt": "requirements.txt",
        "README.md": "README.md",
    }
    rendered = {
        name: _TEMPLATES.get_template(f"{template}.jinja").render(context).encode()
        for name, template in templates.items()
    }
    return {
        **rendered,
        "weights.pt": _state_dict_bytes(project.weights),
        "model.onnx": project.onnx,
        "measurements.json": (json.dumps(list(project.measurements), indent=2) + "\n").encode(),
    }


def _context(project: Project, source: ModelSource) -> dict[str, object]:
    """Return what the templates may refer to."""
    dataset = project.dataset
    channels, height, width = dataset.image_shape
    rows = figures(project.figures)
    torchvision_name = _TORCHVISION.get(dataset.name)
    return {
        "project": project,
        "network": project.network,
        "dataset": dataset,
        "recipe": project.recipe,
        "one_cycle": project.recipe.schedule is Schedule.ONE_CYCLE,
        "model": source,
        "channels": channels,
        "height": height,
        "width": width,
        "classes": len(dataset.classes),
        "classes_constant": constant("CLASSES", [string(name) for name in dataset.classes]),
        "mean_constant": constant("MEAN", [repr(value) for value in dataset.mean]),
        "std_constant": constant("STD", [repr(value) for value in dataset.std]),
        "torchvision_name": torchvision_name,
        "train_images": project.train_images,
        "dataset_title": _DATASET_TITLES.get(dataset.name, torchvision_name),
        "data_path": string(dataset.path or "data"),
        "suffixes_constant": constant("SUFFIXES", [string(suffix) for suffix in sorted(SUFFIXES)]),
        "figures": rows,
        "devices": list(dict.fromkeys(figure.device for figure in rows if figure.device)),
        "onnx_sha256": hashlib.sha256(project.onnx).hexdigest(),
        "blocks": _block_rows(project.network, source),
    }


def _block_rows(network: Network, source: ModelSource) -> list[dict[str, object]]:
    rows = []
    for block in network.blocks:
        own = {layer.name for layer in block.layers}
        reads = (name for layer in block.layers for name in layer.inputs if name not in own)
        readable = ("image" if name == INPUT else name.split(".")[0] for name in reads)
        rows.append(
            {
                "name": block.name,
                "class_name": source.class_of[block.name],
                "reads": ", ".join(dict.fromkeys(readable)),
                "shape": " x ".join(map(str, block.layers[-1].shape)),
                "parameters": sum(layer.parameters for layer in block.layers),
                "macs": sum(layer.macs for layer in block.layers),
            }
        )
    return rows


def _state_dict_bytes(weights: Mapping[str, torch.Tensor]) -> bytes:
    # Through memory: on a full disk torch.save raises no OSError.
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().clone() for name, tensor in weights.items()}, buffer)
    return buffer.getvalue()
