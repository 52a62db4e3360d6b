"""Regularized evolution: the oldest dies, however good it is.

Source: Real et al. 2019, Regularized evolution for image classifier architecture search. We differ in that a
tournament is won by rank and crowding, as there are several objectives.
"""

from collections.abc import Sequence

from controller.algorithms.archive import Archive, tournament
from controller.algorithms.proposals import Proposals, SavedState, up_to
from controller.core.architecture import Architecture
from controller.core.protocols import Problem, Rng
from controller.core.trial import Trial


class RegularizedEvolution:
    """Mutates tournament winners among the youngest.

    Args:
        problem: What to search, and for what.
        seed: Of all random draws.
        population: The youngest that may be parents, and random ones to begin with.
        entrants: Members in a tournament.
    """

    def __init__(self, problem: Problem, seed: int, population: int = 30, entrants: int = 10) -> None:
        self._space = problem.space
        self._archive = Archive(problem.objectives)
        self._proposals = Proposals(seed)
        self._size = population
        self._entrants = entrants

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count new architectures: random ones first, then mutants."""
        youngest = range(max(0, len(self._archive) - self._size), len(self._archive))
        fittest = self._archive.fittest_first(youngest)

        def mutant(rng: Rng) -> Architecture:
            parent = tournament(fittest, self._entrants, rng)
            return self._space.mutate(self._archive.architecture(parent), rng)

        def propose() -> Architecture | None:
            breeding = len(self._proposals) >= self._size and len(youngest) >= 2
            draws = (mutant, self._space.sample) if breeding else (self._space.sample,)
            return self._proposals.fresh(*draws)

        return up_to(count, propose)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Let the trials join the population; the oldest leave it."""
        self._archive.add(trials)
        self._proposals.add_told(trials)

    def state(self) -> bytes:
        """Return the generator's state."""
        return SavedState(rng=self._proposals.state()).dump()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state."""
        self._archive.add(told)
        self._proposals.restore(SavedState.model_validate_json(state).rng, told, pending)
