"""`edgenas compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.options import JsonOption
from controller.cli.tables import print_json, print_table, say
from controller.core.errors import ConfigurationError

if TYPE_CHECKING:
    from controller.core.objective import Objective
    from controller.replay import Comparison


def compare(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="A .csv or .csv.gz file with choice.* columns.")
    ],
    objective: Annotated[
        list[str],
        typer.Option(help="What to optimise: a column of the table, e.g. latency_ms@pi4. May be repeated."),
    ],
    constraint: Annotated[
        list[str] | None, typer.Option(help="What to keep to, e.g. 'latency_ms@pi4<=15'. May be repeated.")
    ] = None,
    algorithm: Annotated[
        list[str] | None, typer.Option(help="What to compare; all that can search a table. May be repeated.")
    ] = None,
    evaluations: Annotated[
        int, typer.Option(help="Distinct architectures that each may evaluate.", min=1)
    ] = 400,
    seeds: Annotated[
        int, typer.Option(help="Runs of each algorithm, with the seeds 0, 1, and so on.", min=1)
    ] = 10,
    plot: Annotated[Path | None, typer.Option(help="Also draw the comparison into this .png file.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare algorithms by replaying a table: nothing is trained or measured."""
    from controller.algorithms import ALGORITHMS
    from controller.core.objective import Constraint, Objective
    from controller.core.plugins import find_plugin
    from controller.core.table import read_table
    from controller.replay import REPLAYABLE, Replay, compared

    if plot and plot.suffix != ".png":
        raise ConfigurationError(f"plot {plot} cannot be drawn; expected a name that ends in .png")
    read = read_table(table)
    replay = Replay(
        read,
        [Objective.among(text, read.figures) for text in objective],
        [Constraint.among(text, read.figures) for text in constraint or ()],
    )
    algorithms = algorithm or REPLAYABLE
    for name in algorithms:  # whatever cannot search a table says so before others have run for minutes
        find_plugin("algorithms", ALGORITHMS, name)(replay.problem, 0)
    results = []
    for name in algorithms:
        if not json:
            say(f"{name}: {seeds} runs of {min(evaluations, len(replay))} evaluations")
        results.append(compared(replay, name, seeds=range(seeds), evaluations=evaluations))
    if json:
        print_json([row for result in results for row in _rows(result)])
    else:
        _print(results, replay.problem.objectives)
        if replay.left_out:
            say(f"{replay.left_out} rows lack a figure asked for, and were left out")
    if plot:
        from controller.report.charts import draw_comparison

        draw_comparison(results, plot)


def _rows(result: "Comparison") -> list[dict[str, object]]:
    return [
        {
            "algorithm": result.algorithm,
            "evaluations": at.evaluations,
            "hypervolume_mean": at.hypervolume_mean,
            "hypervolume_std": at.hypervolume_std,
            "seconds_per_ask": at.seconds_per_ask,
        }
        for at in result.checkpoints
    ]


def _print(results: "Sequence[Comparison]", objectives: "Sequence[Objective]") -> None:
    checkpoints = results[0].checkpoints
    print_table(
        ("algorithm", *(f"n = {at.evaluations}" for at in checkpoints), "ms an ask"),
        (
            (
                result.algorithm,
                *(f"{at.hypervolume_mean:.3f} ± {at.hypervolume_std:.3f}" for at in result.checkpoints),
                f"{1e3 * result.checkpoints[-1].seconds_per_ask:.2g}",
            )
            for result in results
        ),
        title="share of the table's hypervolume after n evaluations, mean and standard deviation over seeds",
    )
    print_table(
        ("algorithm", *(objective.key for objective in objectives)),
        ((result.algorithm, *(f"{gap:.3g}" for gap in result.regret)) for result in results),
        title=f"regret after {checkpoints[-1].evaluations}: how far the best found is from the table's best, mean over seeds",
    )
