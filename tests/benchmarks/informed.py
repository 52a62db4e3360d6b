"""What limits surrogate search on a table: how it does when its models were told of other rows beforehand.

Those rows count neither as asked for nor as found. What is left to learn then is little, so what is still missing can
hardly be known from what is told of an architecture before it is evaluated.

OMP_NUM_THREADS=1 python tests/benchmarks/informed.py TABLE --objective accuracy --objective latency_ms@pi4 --rows 0 300
"""

import statistics
import sys
from collections.abc import Sequence

import laboratory as lab
import tables

from controller.algorithms import ALGORITHMS
from controller.algorithms.archive import Archive
from controller.algorithms.candidates import Candidates
from controller.algorithms.outlook import Outlook
from controller.algorithms.proposals import Proposals
from controller.core.architecture import Architecture
from controller.core.protocols import Problem
from controller.core.trial import Trial
from controller.replay import Replay

_INITIAL = 10  # architectures that lie far apart, as `surrogate` begins
_OTHER_SEED = 1000
_TUNED_AGAIN = 1.15  # times as much is known


class Informed:
    """Surrogate search whose models also learn from rows that it did not ask for.

    Args:
        problem: What to search, and for what.
        seed: Of all random draws.
        beforehand: The rows, at least two.
    """

    def __init__(self, problem: Problem, seed: int, beforehand: Sequence[Trial]) -> None:
        self._learnt, self._found = Archive(problem.objectives), Archive(problem.objectives)
        self._learnt.add(beforehand)
        self._proposals = Proposals(seed)
        self._proposals.add_told(beforehand)
        self._outlook, self._candidates = Outlook(problem, seed), Candidates(problem.space, seed)
        self._tuned_with = 0

    def ask(self, count: int) -> list[Architecture]:
        """Return one architecture, whatever count is."""
        far_apart = [found for found in self._outlook.spread(_INITIAL) if found not in self._proposals]
        chosen = far_apart[0] if len(self._found) < _INITIAL and far_apart else self._promising()
        self._proposals.add(chosen)
        return [chosen]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from what was asked for, and count it as found."""
        self._learnt.add(trials)
        self._found.add(trials)

    def _promising(self) -> Architecture:
        tune = len(self._learnt) >= _TUNED_AGAIN * self._tuned_with
        if tune:
            self._tuned_with = len(self._learnt)
        self._outlook.learn(self._learnt, tune=tune)
        offered = self._candidates.offered(self._found, self._proposals)
        (place,) = self._outlook.best(offered, self._found, [], 1)
        return offered[place]


def shares(replay: Replay, rows: int, seed: int, checkpoints: Sequence[int]) -> tuple[float, ...]:
    """Return the share of the table's hypervolume after each checkpoint."""
    if not rows:
        return replay.run(ALGORITHMS["surrogate"], seed, checkpoints).hypervolume
    # Another seed: what lies far apart is drawn with this one.
    beforehand = replay.trials(ALGORITHMS["random"](replay.problem, seed + _OTHER_SEED).ask(rows))
    return replay.run(
        lambda problem, seed: Informed(problem, seed, beforehand), seed, checkpoints
    ).hypervolume


def main() -> None:
    parser = tables.arguments(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 300], help="rows told of beforehand")
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    replay = tables.replay(options)
    checkpoints = replay.checkpoints(options.evaluations)
    found: dict[int, list[tuple[float, ...]]] = {rows: [] for rows in options.rows}
    for seed in range(options.seeds):
        for rows in options.rows:
            found[rows].append(shares(replay, rows, seed, checkpoints))
        print(f"{seed + 1} of {options.seeds} seeds", file=sys.stderr)
    print(
        f"{options.table.name}: {' and '.join(options.objective)}, {options.seeds} seeds; {lab.machine()}\n"
    )
    tables.print_markdown(
        ["rows told of beforehand", *(f"n = {checkpoint}" for checkpoint in checkpoints)],
        [
            [str(rows), *(f"{statistics.fmean(column):.4f}" for column in zip(*runs, strict=True))]
            for rows, runs in found.items()
        ],
    )


if __name__ == "__main__":
    tables.run(main)
