"""Proves a written model: a fresh interpreter runs it, and its logits are compared with the network's."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from controller.core.errors import ExportError
from controller.core.network import Network
from controller.models.module import seeded_module

TOLERANCE = 1e-5
_EXAMPLES = 4
_PATIENCE_S = 300
_RUN_MODEL = """\
import sys
from pathlib import Path

project, scratch = map(Path, sys.argv[1:])
sys.path.insert(0, str(project))

import torch
from model import load

with torch.inference_mode():
    logits = load(project / "weights.pt")(torch.load(scratch / "images.pt", weights_only=True))
torch.save(logits, scratch / "logits.pt")
"""


def verify(network: Network, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Check that the model in folder computes what the network computes with these weights.

    Args:
        network: What was searched.
        weights: State dict of its module.
        folder: Holds model.py and weights.pt. Nothing is written there.

    Raises:
        ExportError: If the weights are not the network's, model.py fails, or its logits differ.
    """
    images = torch.randn(_EXAMPLES, *network.input_shape, generator=torch.Generator().manual_seed(0))
    expected = _expected(network, weights, images)
    actual = _actual(folder, images)
    if actual.shape != expected.shape:
        raise ExportError(
            f"the written model.py gives logits of shape {tuple(actual.shape)}; "
            f"the network gives {tuple(expected.shape)}; please report this with the architecture"
        )
    if not torch.allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE):
        difference = float((actual - expected).abs().max())
        raise ExportError(
            f"the written model.py differs from the network by {difference:.2g} in a logit; "
            f"expected at most {TOLERANCE:g}; please report this with the architecture"
        )


@torch.inference_mode()
def _expected(network: Network, weights: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    module = seeded_module(network, 0)
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise ExportError(f"the weights are not those of the network: {detail}") from error
    logits: torch.Tensor = module.eval()(images)
    return logits


def _actual(folder: Path, images: torch.Tensor) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as scratch:
        torch.save(images, Path(scratch) / "images.pt")
        # -I: of what is importable here only the written project and installed packages; -B: no __pycache__.
        command = [sys.executable, "-I", "-B", "-c", _RUN_MODEL, str(folder), scratch]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE_S)
        except subprocess.CalledProcessError as error:
            last_line = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
            raise ExportError(
                f"the written model.py fails: {last_line}; please report this with the architecture"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ExportError(
                f"the written model.py gave no logits within {_PATIENCE_S} s; free the machine and try again"
            ) from error
        logits: torch.Tensor = torch.load(Path(scratch) / "logits.pt", weights_only=True)
        return logits
