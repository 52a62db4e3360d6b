"""What a model-based algorithm looks at before it proposes: what is near the front, and what is anywhere.

Both are functions of the seed alone, of the architecture they surround and of how many trials are known, so they are kept
for as long as they are of use and need not be saved.
"""

import numpy as np

from controller.algorithms.archive import Archive
from controller.algorithms.proposals import Proposals
from controller.core.architecture import Architecture
from controller.core.protocols import SearchSpace

_RANDOM = 200
_RENEWED_AFTER = 25  # trials: then the random ones are drawn anew
_NEIGHBOURS = 40  # draws around one member
_TWO_STEPS = 0.3  # of them
_FITTEST = 5  # members to look around where nothing is feasible yet
_MOST_MEMBERS = 40


class Candidates:
    """Offers architectures to choose from.

    Args:
        space: Where they come from.
        seed: Of all random draws.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._around: dict[str, list[Architecture]] = {}
        self._anywhere: list[Architecture] = []
        self._generation = -1

    def offered(self, archive: Archive, proposals: Proposals) -> list[Architecture]:
        """Return architectures that were not proposed, each once: neighbours of the front, and random ones."""
        members = archive.centres(_FITTEST)
        if len(members) > _MOST_MEMBERS:
            members = members[np.linspace(0, len(members) - 1, _MOST_MEMBERS).astype(np.int64)]
        centres = [archive.architecture(int(member)) for member in members]
        self._around = {
            centre.id: self._around.get(centre.id) or self._neighbours(centre) for centre in centres
        }
        self._renew(len(archive) // _RENEWED_AFTER)
        found = {
            architecture.id: architecture
            for group in (*self._around.values(), self._anywhere)
            for architecture in group
            if architecture not in proposals
        }
        return list(found.values())

    def _neighbours(self, centre: Architecture) -> list[Architecture]:
        rng = np.random.default_rng([self._seed, int(centre.id, 16)])
        found = []
        for _ in range(_NEIGHBOURS):
            near = self._space.mutate(centre, rng)
            found.append(self._space.mutate(near, rng) if rng.random() < _TWO_STEPS else near)
        return found

    def _renew(self, generation: int) -> None:
        if generation != self._generation:
            rng = np.random.default_rng([self._seed, generation, 1])
            self._anywhere = [self._space.sample(rng) for _ in range(_RANDOM)]
            self._generation = generation
