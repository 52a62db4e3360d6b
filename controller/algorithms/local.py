"""Pareto local search: the second control, and hard to beat in small spaces.

Source: Paquete et al. 2004, Pareto local optimum sets; White et al. 2021, Exploring the loss landscape in neural
architecture search, for its strength in cell spaces. We differ in that neighbours are told of one at a time.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from controller.algorithms.archive import Archive
from controller.algorithms.proposals import Proposals, SavedState, up_to
from controller.core.architecture import Architecture
from controller.core.protocols import Problem
from controller.core.trial import Trial


class _State(SavedState):
    neighbours: Mapping[int, int]
    exhausted: tuple[int, ...]


class LocalSearch:
    """Proposes neighbours of the front, those of its least explored member first.

    Args:
        problem: What to search, and for what.
        seed: Of all random draws.
        initial: Random architectures to begin with.
    """

    def __init__(self, problem: Problem, seed: int, initial: int = 10) -> None:
        self._space = problem.space
        self._archive = Archive(problem.objectives)
        self._proposals = Proposals(seed)
        self._initial = initial
        self._neighbours: dict[int, int] = {}
        self._exhausted: set[int] = set()

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count new architectures."""
        return up_to(count, self._propose)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the trials."""
        self._archive.add(trials)
        self._proposals.add_told(trials)

    def state(self) -> bytes:
        """Return the generator's state, and how far each member was explored."""
        return _State(
            rng=self._proposals.state(),
            neighbours=self._neighbours,
            exhausted=tuple(sorted(self._exhausted)),
        ).dump()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state."""
        restored = _State.model_validate_json(state)
        self._archive.add(told)
        self._proposals.restore(restored.rng, told, pending)
        self._neighbours = dict(restored.neighbours)
        self._exhausted = set(restored.exhausted)

    def _propose(self) -> Architecture | None:
        found = self._neighbour() if len(self._proposals) >= self._initial else None
        # Where the front has no unknown neighbours the search begins anew elsewhere.
        return found or self._proposals.fresh(self._space.sample)

    def _neighbour(self) -> Architecture | None:
        """Return a new neighbour of the front, or of what breaks the constraints least where nothing is feasible."""
        if not len(self._archive):
            return None
        centres = self._archive.centres(1).tolist()
        for centre in sorted(centres, key=lambda member: (self._neighbours.get(member, 0), member)):
            if centre in self._exhausted:
                continue
            found = self._proposals.fresh(partial(self._space.mutate, self._archive.architecture(centre)))
            if found is not None:
                self._neighbours[centre] = self._neighbours.get(centre, 0) + 1
                return found
            self._exhausted.add(centre)
        return None
