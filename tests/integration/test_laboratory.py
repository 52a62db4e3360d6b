"""What an algorithm that learns by itself is told of a device."""

from dataclasses import replace

import numpy as np
import pytest
from search_laboratory import DEVICE, RECIPE, Laboratory, ScriptedBench

from controller.core.measurement import Canary, Measurement, OperatorTime
from controller.evaluation import Board
from controller.flags import FlagPolicy
from controller.laboratory import SearchLaboratory


class SlowedBench(ScriptedBench):
    """A board that is slower than usual by a factor, as its reference model tells."""

    slowed_by = 1.0

    def measure(self, *arguments, **named):  # type: ignore[no-untyped-def]
        measured: Measurement = super().measure(*arguments, **named)
        by = self.slowed_by
        return replace(
            measured,
            latency=replace(measured.latency, median_ms=by * measured.latency.median_ms),
            canary=Canary(before_ms=by, after_ms=by, median_ms=by, baseline_ms=1.0),
            operators=(
                OperatorTime(
                    layer="head.classifier", operator_type="Gemm", provider="CPU", mean_ms=by * 0.1, calls=1.0
                ),
            ),
        )


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
