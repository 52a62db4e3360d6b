"""`edgenas front`."""

from typing import Annotated

from controller.cli.options import JsonOption, RunArgument, SelectOption, StoreOption
from controller.cli.tables import console, print_flagged, print_json, say, trial_json, trial_table
from controller.core.trial import left_out


def front(
    run: RunArgument,
    select: Annotated[str | None, SelectOption] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show the best candidates of a run, those that no other beats in every objective; or the one that --select means."""
    from controller.config import store_url
    from controller.goals import run_columns, run_objectives
    from controller.pareto.front import front as pareto_front
    from controller.pareto.preference import select as selected
    from controller.store.records import RunState
    from controller.store.store import Store

    opened = Store(store or store_url())
    found = opened.run(run)
    objectives = run_objectives(found)
    trials = opened.trials(found.id).trials
    best = pareto_front(objectives, trials)
    if select is not None:
        best = [selected(best, objectives, select)]
    if json:
        print_json([trial_json(trial) for trial in best])
        return
    confirmed = found.state is RunState.FINISHED
    unconfirmed = "" if confirmed else ", not confirmed yet: measured briefly and with untrained weights"
    chosen = "" if select is None else f", selected by {select}"
    columns = run_columns(found)
    console().print(trial_table(best, columns, title=f"front of run {found.id}{chosen}{unconfirmed}"))
    print_flagged(best)
    if disturbed := left_out(trials):
        say(disturbed)
