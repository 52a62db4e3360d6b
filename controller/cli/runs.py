"""`edgenas runs`."""

from collections import Counter
from typing import Annotated, Any

import typer

from controller.cli.options import JsonOption, RunArgument, StoreOption
from controller.cli.tables import console, print_json, print_table, say, trial_json, trial_table

TakeOverOption = Annotated[
    bool,
    typer.Option("--take-over", help="Even if a process seems to be at work on it that you know has ended."),
]

_MOST_STEPS = 25  # of curves, printed; --json has all

app = typer.Typer(help="Searches, past and under way.", no_args_is_help=True)


@app.command("list")
def list_runs(store: StoreOption = None, json: JsonOption = False) -> None:
    """List all runs, newest first."""
    from controller.config import store_url
    from controller.store.store import Store

    opened = Store(store or store_url())
    rows = []
    for run in opened.runs():
        states = Counter(trial.state.value for trial in opened.trials(run.id).trials)
        config = run.configuration["config"]
        rows.append(
            {
                "id": run.id,
                "state": "interrupted" if run.interrupted else run.state.value,
                "dataset": config["dataset"],
                "devices": list(config["device"]),
                "algorithm": config["algorithm"],
                "trials": dict(states),
                "elapsed_s": round(run.elapsed_s, 1),
                "created_at": run.created_at.isoformat(),
            }
        )
    if json:
        print_json(rows)
        return
    headers = ("run", "state", "dataset", "devices", "algorithm", "trials", "spent")
    print_table(
        headers,
        (
            (
                row["id"],
                row["state"],
                row["dataset"],
                ", ".join(row["devices"]),
                row["algorithm"],
                ", ".join(f"{count} {state}" for state, count in row["trials"].items()),
                f"{row['elapsed_s']:.0f} s",
            )
            for row in rows
        ),
    )


@app.command()
def show(run: RunArgument, store: StoreOption = None, json: JsonOption = False) -> None:
    """Show how a run was asked for, and every trial of it."""
    from controller.config import store_url
    from controller.goals import run_columns
    from controller.store.store import Store

    opened = Store(store or store_url())
    found = opened.run(run)
    trials, curves = opened.trials(found.id).trials, opened.curves(found.id)
    state = "interrupted" if found.interrupted else found.state.value
    if json:
        print_json(
            {
                "id": found.id,
                "state": state,
                "created_at": found.created_at.isoformat(),
                "elapsed_s": found.elapsed_s,
                "configuration": found.configuration,
                "environment": found.environment,
                "trials": [trial_json(trial) for trial in trials],
                "curves": curves,
            }
        )
        return
    out = console()
    say(f"run {found.id}: {state}, {found.elapsed_s:.0f} s")
    settings = {**found.configuration["config"], **found.environment}
    print_table(("setting", "value"), ((name, str(value)) for name, value in settings.items()))
    if curves:
        steps = _spaced(sorted({step for values in curves.values() for step in values}))
        points = ((str(step), *(_point(values.get(step)) for values in curves.values())) for step in steps)
        print_table(("step", *curves), points)
    out.print(trial_table(trials, run_columns(found), title="trials"))
    for trial in trials:
        if trial.reason:
            say(f"{trial.id} {trial.state.value}: {trial.reason}")


def _spaced(steps: list[int]) -> list[int]:
    """Return steps, or as many as a screen holds, evenly spaced from the first to the last."""
    if len(steps) <= _MOST_STEPS:
        return steps
    return [steps[place * (len(steps) - 1) // (_MOST_STEPS - 1)] for place in range(_MOST_STEPS)]


def _point(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


@app.command()
def resume(
    run: RunArgument,
    budget: Annotated[
        str | None, typer.Option(help="A new budget for the whole run: candidates or time.")
    ] = None,
    keep_flagged: Annotated[
        bool,
        typer.Option("--keep-flagged", help="From now on choose by figures too that carry disturbing flags."),
    ] = False,
    take_over: TakeOverOption = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Go on with a run where it stopped or was killed, or further than its first budget."""
    from controller.cli.search import run_and_show
    from controller.config import search_config, store_url
    from controller.store.store import Store

    url = store or store_url()
    opened = Store(url)
    found = opened.run(run)
    opened.close()
    config = search_config(found.configuration["config"], f"run {found.id}")

    def resumed(show: Any) -> Any:
        # It imports torch, which takes seconds: a run that is not there is told before.
        from controller.api import resume

        return resume(found.id, url, show, budget=budget, keep_flagged=keep_flagged, take_over=take_over)

    run_and_show(resumed, config, json=json)


@app.command()
def delete(run: RunArgument, take_over: TakeOverOption = False, store: StoreOption = None) -> None:
    """Delete a run with its trials, measurements and weights."""
    from controller.config import store_url
    from controller.store.store import Store

    opened = Store(store or store_url())
    found = opened.run(run)
    opened.delete_run(found, take_over=take_over)
    say(f"deleted run {found.id}")
