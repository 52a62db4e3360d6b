"""A laboratory for the search loop."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from search_laboratory import CountingTrainer, Laboratory

from controller.spaces import ChainSpace
from controller.store.store import Store


@pytest.fixture
def laboratory(tmp_path: Path, image_folder: Path) -> Iterator[Laboratory]:
    """Yield a laboratory with a small space and a store of its own."""
    space = ChainSpace(
        input_shape=(3, 12, 12), classes=3, min_layers=1, max_layers=4, channels=(8, 16, 24), stem_channels=8
    )
    store = Store(str(tmp_path / "runs.db"))
    yield Laboratory(store=store, trainer=CountingTrainer(image_folder), space=space)
    store.close()
