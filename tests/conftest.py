"""What several parts of the suite need: an EdgeNAS home of their own, and small real images."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# Networks here are so small that more threads only wait for each other: 40 times longer on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Continuous integration repeats itself; everywhere else each run explores further. A deadline would only
# find out how busy the machine is.
settings.register_profile("suite", derandomize=bool(os.environ.get("CI")), deadline=None)
settings.load_profile("suite")

# A shell that runs the tests in the background has them ignore it, and every process that they start with them.
signal.signal(signal.SIGINT, signal.default_int_handler)

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty EdgeNAS home."""
    path = tmp_path / "edgenas-home"
    monkeypatch.setenv("EDGENAS_HOME", str(path))
    monkeypatch.delenv("EDGENAS_STORE", raising=False)
    return path


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 3 classes, 20 noisy images of 12 × 12 pixels each, told apart by their colour."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("images")
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for index in range(20):
            pixels = np.clip(np.array(colour) + rng.normal(0, 40, size=(12, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index:02d}.png")
    return root
