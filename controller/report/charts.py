"""Charts as PNG files."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from controller.core.errors import ConfigurationError
from controller.replay import Comparison


def draw_comparison(curves: Sequence[Comparison], path: Path) -> None:
    """Draw hypervolume against evaluations, with bands of one standard deviation.

    Args:
        curves: One an algorithm.
        path: Of the PNG file to write.

    Raises:
        ConfigurationError: If it cannot be written.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        evaluations = [at.evaluations for at in curve.checkpoints]
        means = [at.hypervolume_mean for at in curve.checkpoints]
        axes.plot(evaluations, means, marker="o", markersize=3, label=curve.algorithm)
        axes.fill_between(
            evaluations,
            [at.hypervolume_mean - at.hypervolume_std for at in curve.checkpoints],
            [at.hypervolume_mean + at.hypervolume_std for at in curve.checkpoints],
            alpha=0.15,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks([at.evaluations for at in curves[0].checkpoints] if curves else [])
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("distinct architectures evaluated")
    axes.set_ylabel("share of the table's hypervolume")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigurationError(
            f"plot {path} cannot be written: {error.strerror}; check the folder"
        ) from error
