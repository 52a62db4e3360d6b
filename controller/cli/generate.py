"""`edgenas generate`."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.options import RunArgument, StoreOption
from controller.cli.tables import figure, say
from controller.core.errors import ConfigurationError


def generate(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder to make; it must not hold anything yet.")],
    select: Annotated[
        str, typer.Option(help="knee, an objective to be best in, or a candidate's id.")
    ] = "knee",
    weights: Annotated[
        str | None, typer.Option(help="Importance instead, e.g. accuracy=0.7,latency=0.2,memory=0.1.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write a candidate of a run's front as a standalone PyTorch project."""
    from controller.config import store_url
    from controller.delivery import generate as generate_project
    from controller.store.store import Store

    importance = _weights(weights) if weights else None
    opened = Store(store or store_url())
    trial = generate_project(opened, opened.run(run), out, preference=select, weights=importance)
    figures = ", ".join(f"{key} {figure(key, value)}" for key, value in trial.values.items())
    say(f"wrote {trial.id} to {out}: {figures}")


def _weights(text: str) -> dict[str, float]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError as error:
        raise ConfigurationError(
            f"weights {text!r} are not understood; expected NAME=NUMBER,… as in accuracy=0.7,latency=0.3"
        ) from error
