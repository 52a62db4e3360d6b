"""`edgenas search`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.cli.options import JsonOption, StoreOption
from controller.cli.tables import console, print_flagged, print_json, say, trial_json, trial_table
from controller.core.errors import SearchStoppedError
from controller.core.objective import decisive
from controller.core.trial import Trial, TrialState, left_out


def search(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG.toml]", help="Settings; options given here override them."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="digits, cifar10, cifar100, fashion_mnist or folder:PATH.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Device to measure on: a registered name, or 'local'. May be repeated."),
    ] = None,
    objective: Annotated[
        list[str] | None, typer.Option(help="What to optimise: METRIC or METRIC@DEVICE. May be repeated.")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help="What to keep to, e.g. 'latency_ms<=15'. May be repeated.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Candidates to evaluate (200), or time to spend (30m).")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="What to search: chain, cell, mobile, or what a package brings.")
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="What proposes candidates: random, local, evolution, regularized_evolution, progressive, reinforce, "
            "darts, surrogate, ensemble, or what a package brings."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Class of hardware that bounds the networks: edge, mobile or gpu.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random draw.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads inside one operator on every device; its physical cores (0).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs to train each candidate for.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per training step.")] = None,
    train_images: Annotated[int | None, typer.Option(help="Train on at most so many images.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize a folder's images to this height and width.")
    ] = None,
    keep_flagged: Annotated[
        bool,
        typer.Option(
            "--keep-flagged",
            help="Choose by figures too that something else than the model shaped; they are left out otherwise.",
        ),
    ] = False,
    patience_s: Annotated[
        float | None, typer.Option(help="Seconds to wait for a device that gives no answer.")
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Search for networks on a dataset, measuring every candidate on a device."""
    from controller.config import home, read_toml, search_config, store_url
    from controller.devices.connect import find_device

    settings = read_toml(config) if config else {}
    settings |= _given(
        dataset=dataset,
        device=device,
        objectives=objective,
        constraints=constraint,
        budget=budget,
        space=space,
        algorithm=algorithm,
        preset=preset,
        seed=seed,
        threads=threads,
        flagged="keep" if keep_flagged else None,
        patience_s=patience_s,
    )
    training = _given(epochs=epochs, batch_size=batch_size, train_images=train_images, image_size=image_size)
    if training:
        settings["training"] = {**settings.get("training", {}), **training}
    checked = search_config(settings, str(config) if config else "the search")
    for name in checked.device:
        find_device(name, home())

    def searched(show: Any) -> Any:
        # It imports torch, which takes seconds: a mistake in the settings is told before.
        from controller.api import start

        return start(checked, store or store_url(), show)

    run_and_show(searched, checked, json=json)


def run_and_show(run: Any, config: Any, *, json: bool) -> None:
    """Run a search with its progress shown, then print its front.

    Args:
        run: Called with the display, returns a `SearchResult`.
        config: The search's configuration.
        json: Print JSON and no progress.
    """
    from controller.goals import goals

    # Before what imports torch, which takes seconds.
    columns = decisive(*goals(config))
    from controller.cli.progress import ProgressDisplay

    with ProgressDisplay(columns, quiet=json) as display:
        try:
            result = run(display)
        except KeyboardInterrupt:
            raise SearchStoppedError(_interrupted(display.run_id)) from None
    disturbed = left_out(result.trials)
    if json:
        front = [trial_json(trial) for trial in result.front]
        states = Counter(trial.state.value for trial in result.trials)
        print_json({"run": result.run_id, "front": front, "trials": dict(states)})
        return
    out = console()
    out.print(trial_table(result.front, columns, title=f"front of run {result.run_id}"))
    if disturbed:
        say(f"{disturbed}; --keep-flagged chooses by such figures too")
    if not result.front:
        say(_why_empty(result.trials))
        return
    print_flagged(result.front)
    say(f"write one as a project: edgenas generate {result.run_id} --out DIR")


def _why_empty(trials: Sequence[Trial]) -> str:
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    if failed and len(failed) == len(trials):
        return f"every candidate failed, the last one because {failed[-1].reason}"
    return "no candidate meets every constraint; loosen one, or give the search a larger budget"


def _interrupted(run_id: str | None) -> str:
    if run_id is None:
        return "interrupted before the first candidate; nothing was searched"
    return f"interrupted; go on with `edgenas runs resume {run_id}`"


def _given(**options: object) -> Mapping[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None and value != []}
