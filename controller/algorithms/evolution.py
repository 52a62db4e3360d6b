"""Steady-state evolution with NSGA-II survival.

Source: Deb et al. 2002, NSGA-II. We differ in that one child joins at a time instead of a generation, so
boards and accelerator never wait for the slowest of a generation.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from controller.algorithms.proposals import Proposals, ProposalState
from controller.core.architecture import Architecture
from controller.core.objective import Objective
from controller.core.protocols import Rng, SearchSpace
from controller.core.trial import Trial, TrialState
from controller.pareto.front import crowding_distance, minimised, ranks


class _Member(BaseModel):
    """An architecture whose outcome is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Mapping[str, str | int]
    objectives: tuple[float, ...]  # minimised; empty where infeasible
    violation: float  # 0 where feasible, inf where it failed


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    proposals: ProposalState
    population: tuple[_Member, ...]


class Evolution:
    """Keeps a population; children are crossed and mutated tournament winners.

    Args:
        space: What to search.
        objectives: What survival is decided by.
        seed: Of all random draws.
        population: Architectures kept, and random ones to begin with.
        crossover_probability: Share of children with two parents; every child is mutated besides.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int,
        population: int = 20,
        crossover_probability: float = 0.5,
    ) -> None:
        self._space = space
        self._objectives = tuple(objectives)
        self._proposals = Proposals(seed)
        self._size = population
        self._crossover_probability = crossover_probability
        self._population: list[_Member] = []

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count new architectures: random ones first, then children."""
        asked = []
        for _ in range(count):
            # Parents are drawn only once their results are in; until then the best guess is another sample.
            breeding = len(self._proposals) >= self._size and len(self._population) >= 2
            draws = (self._child, self._space.sample) if breeding else (self._space.sample,)
            architecture = self._proposals.fresh(*draws)
            if architecture is not None:
                asked.append(architecture)
        return asked

    def tell(self, trials: Sequence[Trial]) -> None:
        """Let the trials join the population and the worst leave it."""
        self._population += [self._member(trial) for trial in trials]
        excess = len(self._population) - self._size
        if excess > 0:
            order = np.argsort(self._fitness(), kind="stable")
            self._population = [self._population[index] for index in sorted(order[: self._size])]

    def state(self) -> bytes:
        """Return the generator's state, what was proposed and the population."""
        return (
            _State(proposals=self._proposals.state(), population=tuple(self._population))
            .model_dump_json()
            .encode()
        )

    def restore(self, state: bytes) -> None:
        """Continue from state."""
        restored = _State.model_validate_json(state)
        self._proposals.restore(restored.proposals)
        self._population = list(restored.population)

    def _member(self, trial: Trial) -> _Member:
        complete = trial.state is TrialState.COMPLETE
        return _Member(
            architecture=trial.architecture.values,
            objectives=tuple(minimised(self._objectives, [trial])[0]) if complete else (),
            # JSON has no infinity, and a failure is only ever compared.
            violation=trial.violation if complete or trial.violation else 1e300,
        )

    def _fitness(self) -> npt.NDArray[np.float64]:
        """Return each member's place, 0 for the fittest: feasible ones by rank then crowding, then by violation."""
        violations = np.array([member.violation for member in self._population])
        feasible = np.flatnonzero(violations == 0)
        rank = np.full(len(violations), np.inf)
        crowding = np.zeros(len(violations))
        if len(feasible):
            points = np.array([self._population[index].objectives for index in feasible])
            rank[feasible] = ranks(points)
            for front in np.unique(rank[feasible]):
                members = np.flatnonzero(rank == front)
                crowding[members] = crowding_distance(points[np.searchsorted(feasible, members)])
        place = np.empty(len(violations))
        place[np.lexsort((-crowding, rank, violations))] = np.arange(len(violations))
        return place

    def _child(self, rng: Rng) -> Architecture:
        fitness = self._fitness()
        child = self._parent(fitness, rng)
        if rng.random() < self._crossover_probability:
            child = self._space.cross(child, self._parent(fitness, rng), rng)
        return self._space.mutate(child, rng)

    def _parent(self, fitness: npt.NDArray[np.float64], rng: Rng) -> Architecture:
        """Return the winner of a binary tournament."""
        first, second = rng.integers(len(self._population), size=2)
        winner = first if fitness[first] <= fitness[second] else second
        return Architecture.of(self._population[winner].architecture)
