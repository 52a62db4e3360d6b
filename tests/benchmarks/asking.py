"""How long an algorithm thinks once it knows much: under 50 ms is asked with 500 known trials, under 1 s with 5,000.

Every algorithm is told of so many rows of a table, drawn at random, and then asked for one architecture and told of
it, again and again. The first of these times stands apart: it is what a resumed run waits for, as models have
learnt nothing yet. Of those after it the mean and the largest are given; they are enough for models to be fitted
anew several times. Algorithms are interleaved by seed.

OMP_NUM_THREADS=1 python tests/benchmarks/asking.py TABLE --objective accuracy --objective latency_ms@pi4
"""

import json
import statistics
import sys
import time
from dataclasses import dataclass

import laboratory as lab
import tables

from controller.algorithms import ALGORITHMS
from controller.core.errors import ConfigurationError
from controller.core.plugins import find_plugin
from controller.replay import REPLAYABLE, Replay


@dataclass(frozen=True)
class Thinking:
    """What one algorithm took with one seed, asking and being told."""

    first_ms: float
    after_ms: list[float]


def think(replay: Replay, name: str, *, known: int, asks: int, seed: int) -> Thinking:
    """Tell a new algorithm of rows, and time what it does after that."""
    algorithm = find_plugin("algorithms", ALGORITHMS, name)(replay.problem, seed)
    algorithm.tell(replay.trials(ALGORITHMS["random"](replay.problem, seed).ask(known)))
    times_ms = []
    for number in range(asks + 1):
        started = time.perf_counter()
        algorithm.tell(replay.trials(algorithm.ask(1), first_index=known + number))
        times_ms.append(1e3 * (time.perf_counter() - started))
    return Thinking(times_ms[0], times_ms[1:])


def main() -> None:
    parser = tables.arguments(__doc__)
    parser.add_argument(
        "--algorithm", action="append", help=f"may be repeated; all of {', '.join(REPLAYABLE)}"
    )
    parser.add_argument("--known", type=int, nargs="+", default=[500, 5000], help="trials told of first")
    parser.add_argument("--asks", type=int, default=150, help="asks after the first one")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    replay = tables.replay(options)
    if len(replay) <= max(options.known) + options.asks:
        raise ConfigurationError(
            f"table {options.table} has {len(replay)} rows; expected more than are known and asked for, "
            f"{max(options.known) + options.asks}; lower --known or --asks"
        )
    names = options.algorithm or list(REPLAYABLE)
    found: dict[tuple[str, int], list[Thinking]] = {}
    for seed in range(options.seeds):
        for known in options.known:
            for name in names:
                one = think(replay, name, known=known, asks=options.asks, seed=seed)
                found.setdefault((name, known), []).append(one)
        print(f"{seed + 1} of {options.seeds} seeds", file=sys.stderr)
    if options.json:
        print(
            json.dumps(
                [
                    {"algorithm": name, "known": known, "first_ms": one.first_ms, "after_ms": one.after_ms}
                    for (name, known), runs in found.items()
                    for one in runs
                ]
            )
        )
        return
    print(
        f"{options.table.name}: {' and '.join([*options.objective, *options.constraint])}, "
        f"{options.seeds} seeds, {options.asks} asks after the first; {lab.machine()}\n"
    )
    tables.print_markdown(
        [
            "ms, asking and being told",
            *(f"{what}, {n} known" for n in options.known for what in ("first", "mean", "largest")),
        ],
        [[name, *(cell for n in options.known for cell in cells(found[name, n]))] for name in names],
    )


def cells(runs: list[Thinking]) -> list[str]:
    """Return the largest first time, the mean and the largest of the others."""
    after_ms = [one for run in runs for one in run.after_ms]
    figures = (max(run.first_ms for run in runs), statistics.fmean(after_ms), max(after_ms))
    return [f"{figure:.2g}" if figure < 100 else f"{figure:.0f}" for figure in figures]


if __name__ == "__main__":
    tables.run(main)
