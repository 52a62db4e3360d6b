"""`edgenas generate`."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.options import RunArgument, SelectOption, StoreOption
from controller.cli.tables import figure, say


def generate(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder to make; it must not hold anything yet.")],
    select: Annotated[str, SelectOption] = "knee",
    store: StoreOption = None,
) -> None:
    """Write a candidate of a run's front as a standalone PyTorch project."""
    from controller.config import store_url
    from controller.delivery import generate as generate_project
    from controller.store.store import Store

    opened = Store(store or store_url())
    trial = generate_project(opened, opened.run(run), out, preference=select)
    figures = ", ".join(f"{key} {figure(key, value)}" for key, value in trial.values.items())
    say(f"wrote {trial.id} to {out}: {figures}")
