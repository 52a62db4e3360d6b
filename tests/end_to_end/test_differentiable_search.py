"""Differentiable search against a real agent: operators timed, a latency met, curves kept."""

import json
from pathlib import Path

import pytest
from command_line import Command, shown_run

SETTINGS = """
dataset = "digits"
device = "local"
space = "cell"
algorithm = "darts"
objectives = ["accuracy", "latency_ms"]
constraints = ["latency_ms<=1"]
budget = 2
threads = 1
flagged = "keep"
[training]
epochs = 2
train_images = 300
[cell]
channels = [8]
cells = [1]
[darts]
epochs = 3
"""


@pytest.mark.slow
def test_darts_times_operators_meets_a_latency_and_its_curves_are_shown(
    edgenas: Command, home: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "darts.toml"
    settings.write_text(SETTINGS)

    searched = edgenas("search", settings)

    assert searched.returncode == 0, searched.stderr
    for line in ("timed operators", "trained the supernet, epoch 3 of at most 3", "chose operations"):
        assert line in searched.stdout + searched.stderr
    assert all(
        trial["latency_ms@local"] <= 1 for trial in json.loads(edgenas("front", "last", "--json").stdout)
    )
    curves = shown_run(home)["curves"]
    assert set(curves) == {
        "alpha_entropy",
        "validation_loss",
        "validation_accuracy",
        "expected_latency_ms@local",
    }
    assert list(curves["validation_loss"]) == ["2", "3", "4"]
    # What the sum over the operators' timings says is of the size of what whole networks take.
    measured = [trial["latency_ms@local"] for trial in shown_run(home)["trials"]]
    assert 0.2 < curves["expected_latency_ms@local"]["4"] / max(measured) < 5
    table = edgenas("runs", "show", "last").stdout
    assert "validation_accuracy" in table
