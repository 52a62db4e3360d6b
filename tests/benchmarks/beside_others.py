"""EdgeNAS's algorithms beside pymoo's NSGA-II and Optuna's NSGA-II and TPE: all replay one table, in one run.

The figure is that of `edgenas compare`: the share of the table's hypervolume that the first n distinct
architectures cover, mean and standard deviation over seeds. Seeds are interleaved: everybody runs with one seed
before anybody runs with the next, so that a machine that becomes slower does so for all. Time is that of asking
and telling.

Choices are categories to the others. An architecture that they propose again is answered from memory and does not
count, but takes its time; one that the table lacks is infeasible to pymoo, failed to Optuna, and does not count
either. Whoever repeats itself 5,000 times in a row has come to its end. Populations are of 20. pymoo draws a
choice of a child anew with probability 1 / choices: with its default for categories, a half, it finds less
(.990 of NAS-Bench-201 rather than .995 after 400, 20 seeds). All else is as it comes.

OMP_NUM_THREADS=1 python tests/benchmarks/beside_others.py TABLE --objective accuracy --objective latency_ms@pi4
"""

import importlib.metadata
import json
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

import laboratory as lab
import numpy as np
import tables

from controller.algorithms import ALGORITHMS
from controller.core.architecture import Architecture, ChoiceValue
from controller.core.errors import ConfigurationError
from controller.core.plugins import find_plugin
from controller.core.protocols import Problem, SearchAlgorithm
from controller.core.trial import Trial
from controller.pareto.front import minimised
from controller.replay import REPLAYABLE, Comparison, Replayed

try:
    import optuna
    from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.individual import Individual
    from pymoo.core.mixed import MixedVariableDuplicateElimination, MixedVariableMating, MixedVariableSampling
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.core.termination import NoTermination
    from pymoo.core.variable import Choice as PymooChoice
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.mutation.rm import ChoiceRandomMutation
    from pymoo.operators.selection.tournament import TournamentSelection
    from pymoo.problems.static import StaticProblem
except ImportError as error:
    sys.exit(f"{error}; install them: python -m pip install 'pymoo>=0.6.2,<0.7' 'optuna>=5,<6'")

POPULATION = 20
PATIENCE = 5_000  # proposals without a new architecture: then the program has no more to say
OUTSIDE = 100.0  # how much an architecture that the table lacks violates: more than any bound is broken by
LEAST_SHARE = 0.5  # of all combinations that a table has, or the others mostly propose what it lacks


class Other(ABC):
    """Another program as an algorithm that is asked for one architecture at a time, and told of it.

    Args:
        problem: What to search, and for what.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._known: dict[Architecture, Trial] = {}
        self._open: dict[Architecture, object] = {}

    def ask(self, count: int) -> list[Architecture]:
        """Return an architecture that was not returned before; none where the program only repeats itself."""
        assert count == 1, "replay asks for one at a time"
        for _ in range(PATIENCE):
            proposal, values = self.propose()
            architecture = self.problem.space.compose(values)
            if architecture is not None and architecture not in self._known:
                self._open[architecture] = proposal
                return [architecture]
            self.answer(proposal, self._known[architecture] if architecture is not None else None)
        return []

    def tell(self, trials: Sequence[Trial]) -> None:
        """Answer what was asked for."""
        for trial in trials:
            self._known[trial.architecture] = trial
            self.answer(self._open.pop(trial.architecture), trial)

    def objectives(self, trial: Trial) -> list[float]:
        """Return a trial's objectives, to be minimised."""
        found: list[float] = minimised(self.problem.objectives, [trial])[0].tolist()
        return found

    @abstractmethod
    def propose(self) -> tuple[object, Mapping[str, ChoiceValue]]:
        """Return what the program calls its next proposal, and the options of it."""

    @abstractmethod
    def answer(self, proposal: object, trial: Trial | None) -> None:
        """Tell the program what became of a proposal; None where the table lacks it."""


class Pymoo(Other):
    """NSGA-II of pymoo, which asks and is told by the generation."""

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem)
        choices = problem.space.choices
        self._theirs = PymooProblem(
            vars={choice.name: PymooChoice(options=list(choice.options)) for choice in choices},
            n_obj=len(problem.objectives),
            n_ieq_constr=1,
        )
        unequal = MixedVariableDuplicateElimination()
        self._algorithm = NSGA2(
            pop_size=POPULATION,
            sampling=MixedVariableSampling(),
            mating=MixedVariableMating(
                selection=TournamentSelection(func_comp=binary_tournament),
                crossover={PymooChoice: UX()},
                mutation={PymooChoice: ChoiceRandomMutation(prob_var=1 / len(choices))},
                eliminate_duplicates=unequal,
            ),
            eliminate_duplicates=unequal,
        )
        self._algorithm.setup(self._theirs, termination=NoTermination(), seed=seed)
        self._answers: list[tuple[list[float], float]] = []
        self._proposals = self._generations()

    def propose(self) -> tuple[object, Mapping[str, ChoiceValue]]:
        proposal = next(self._proposals)
        return proposal, proposal.X

    def answer(self, proposal: object, trial: Trial | None) -> None:
        nothing = [0.0] * len(self.problem.objectives)
        self._answers.append((self.objectives(trial), trial.violation) if trial else (nothing, OUTSIDE))

    def _generations(self) -> Iterator[Individual]:
        """Yield the individuals of one generation after the other; each is answered before the next is taken."""
        while True:
            generation = self._algorithm.ask()
            self._answers = []
            yield from generation
            objectives, violations = zip(*self._answers, strict=True)
            static = StaticProblem(self._theirs, F=np.array(objectives), G=np.array(violations)[:, None])
            Evaluator().eval(static, generation)
            self._algorithm.tell(infills=generation)


class Optuna(Other):
    """A sampler of Optuna."""

    def __init__(self, problem: Problem, sampler: optuna.samplers.BaseSampler) -> None:
        super().__init__(problem)
        self._study = optuna.create_study(directions=["minimize"] * len(problem.objectives), sampler=sampler)
        self._choices = {
            choice.name: optuna.distributions.CategoricalDistribution(choice.options)
            for choice in problem.space.choices
        }

    def propose(self) -> tuple[object, Mapping[str, ChoiceValue]]:
        proposal = self._study.ask(self._choices)
        return proposal, proposal.params

    def answer(self, proposal: object, trial: Trial | None) -> None:
        if trial is None:
            self._study.tell(proposal, state=optuna.trial.TrialState.FAIL)
            return
        if self.problem.constraints:
            proposal.set_constraint("violation", trial.violation)
        self._study.tell(proposal, self.objectives(trial))


OTHERS: Mapping[str, Callable[[Problem, int], Other]] = {
    "pymoo-nsga2": Pymoo,
    "optuna-nsga2": lambda problem, seed: Optuna(
        problem, optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    ),
    "optuna-tpe": lambda problem, seed: Optuna(problem, optuna.samplers.TPESampler(seed=seed)),
}


def main() -> None:
    parser = tables.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="runs of each, with the seeds 0, 1, and so on")
    parser.add_argument("--evaluations", type=int, default=400, help="distinct architectures in each run")
    parser.add_argument(
        "--algorithm", action="append", help=f"may be repeated; all of {', '.join([*REPLAYABLE, *OTHERS])}"
    )
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    replay = tables.replay(options)
    combinations = math.prod(len(choice.options) for choice in replay.problem.space.choices)
    if len(replay) < LEAST_SHARE * combinations:
        raise ConfigurationError(
            f"table {options.table} has {len(replay)} of {combinations} combinations; expected at least half of them, "
            "as the others know nothing of a table but its choices; compare EdgeNAS's own with `edgenas compare`"
        )
    factories: dict[str, Callable[[Problem, int], SearchAlgorithm]] = {
        name: OTHERS[name] if name in OTHERS else find_plugin("algorithms", ALGORITHMS, name)
        for name in options.algorithm or [*REPLAYABLE, *OTHERS]
    }
    at = replay.checkpoints(options.evaluations)
    runs: dict[str, list[Replayed]] = {name: [] for name in factories}
    for seed in range(options.seeds):
        for name, factory in factories.items():
            runs[name].append(replay.run(factory, seed, at))
        print(f"{seed + 1} of {options.seeds} seeds", file=sys.stderr)
    results = [Comparison.of(name, at, found) for name, found in runs.items()]
    versions = {name: importlib.metadata.version(name) for name in ("pymoo", "optuna")}
    if options.json:
        made = {
            "table": options.table.name,
            "objectives": options.objective,
            "seeds": options.seeds,
            **versions,
        }
        print(json.dumps({**made, "results": [asdict(result) for result in results]}, indent=2))
        return
    print(
        f"{options.table.name}: {' and '.join([*options.objective, *options.constraint])}, {options.seeds} seeds; "
        f"pymoo {versions['pymoo']}, Optuna {versions['optuna']}; {lab.machine()}\n"
    )
    tables.print_markdown(
        ["", *(f"n = {n}" for n in at), *(f"regret, {text}" for text in options.objective), "ms an ask"],
        [
            [
                result.algorithm,
                *(f"{one.hypervolume_mean:.3f} ± {one.hypervolume_std:.3f}" for one in result.checkpoints),
                *(f"{gap:.3g}" for gap in result.regret),
                f"{1e3 * result.checkpoints[-1].seconds_per_ask:.2g}",
            ]
            for result in results
        ],
    )


if __name__ == "__main__":
    tables.run(main)
