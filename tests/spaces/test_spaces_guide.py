"""docs/spaces.md, followed to the letter."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from controller.config import search_config
from controller.core.measurement import ModelFormat
from controller.models.artifact import export
from controller.models.module import seeded_module
from controller.spaces import PRESETS, SPACES
from controller.spaces.operations import OPERATIONS

GUIDE = Path(__file__).parents[2] / "docs" / "spaces.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_settings_of_the_guide_are_settings():
    settings, _, own = (tomllib.loads(text) for text in blocks("toml"))
    for chosen in (settings, own):
        config = search_config({"dataset": "digits", **chosen})
        for name in ("cell", "mobile"):
            if chosen is settings:
                SPACES[name](
                    input_shape=(3, 32, 32), classes=10, limits=PRESETS["gpu"], **config.options_of(name)
                )


def test_guide_names_every_operation():
    named = set(re.findall(r"`(\w+)`", GUIDE.read_text(encoding="utf-8")))
    assert set(OPERATIONS) - named <= {"nor_conv_1x1", "nor_conv_3x3"}


@pytest.mark.parametrize("space", SPACES)
def test_operation_of_the_guide_is_searched_once_it_is_installed(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (source,) = blocks("python")
    (tmp_path / "two_scales.py").write_text(source, encoding="utf-8")
    entry_points = tomllib.loads(blocks("toml")[1])["project"]["entry-points"]["edgenas.operations"]
    installed = tmp_path / "two_scales-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: two-scales\nVersion: 1\n")
    lines = [f"{name} = {value}\n" for name, value in entry_points.items()]
    (installed / "entry_points.txt").write_text("".join(["[edgenas.operations]\n", *lines]))
    monkeypatch.syspath_prepend(tmp_path)

    searched = SPACES[space](
        input_shape=(1, 9, 7), classes=3, operations=("two_scales",), limits=PRESETS["gpu"]
    )
    network = searched.lower(searched.sample(np.random.default_rng(0)))

    assert any(layer.local_name.endswith("far") for layer in network.layers)
    assert export(seeded_module(network, 0), ModelFormat.ONNX).data
