"""What an algorithm that learns by itself is told of a device."""

import numpy as np
import pytest
from search_laboratory import DEVICE, RECIPE, Laboratory, SlowedBench

from controller.evaluation import Board
from controller.flags import FlagPolicy
from controller.laboratory import SearchLaboratory


def test_profile_is_the_same_at_every_speed_of_the_board(laboratory: Laboratory) -> None:
    bench = SlowedBench()
    run = laboratory.run()
    asked = SearchLaboratory(
        run_id=run.id,
        store=laboratory.store,
        trainer=laboratory.trainer,
        recipe=RECIPE,
        boards={DEVICE: Board(bench=bench, shares_processor=False)},
        threads=1,
        flags=FlagPolicy(keep=True, devices=frozenset({DEVICE})),
    )
    network = laboratory.space.lower(laboratory.space.sample(np.random.default_rng(0)))

    usual = asked.profile(network, DEVICE)
    bench.slowed_by = 1.3
    slowed = asked.profile(network, DEVICE)

    assert slowed.latency_ms == pytest.approx(usual.latency_ms)
    assert usual.layers_ms
    assert slowed.layers_ms == pytest.approx(dict(usual.layers_ms))
