"""What a model-based algorithm looks at before it proposes: what is near the front, and what is anywhere."""

from controller.algorithms.archive import Archive
from controller.algorithms.proposals import Proposals
from controller.core.architecture import Architecture
from controller.core.protocols import SearchSpace

_RANDOM = 200
_NEAR = 500
_MOST_NEIGHBOURS = 40  # of one member
_CROSSED = 0.2
_FITTEST = 5  # members to start from where nothing is feasible yet


def candidates(space: SearchSpace, archive: Archive, proposals: Proposals) -> list[Architecture]:
    """Return architectures that were not proposed: neighbours and children of the front, and random ones; each once."""
    rng = proposals.rng
    parents = archive.front()
    if not len(parents):
        parents = archive.fittest_first(range(len(archive)))[:_FITTEST]
    found: dict[str, Architecture] = {}

    def offer(architecture: Architecture) -> None:
        if architecture not in proposals:
            found[architecture.id] = architecture

    for _ in range(_RANDOM):
        offer(space.sample(rng))
    for _ in range(min(_NEAR, _MOST_NEIGHBOURS * len(parents))):
        parent = archive.architecture(int(rng.choice(parents)))
        if rng.random() < _CROSSED:
            offer(space.cross(parent, archive.architecture(int(rng.choice(parents))), rng))
        else:
            offer(space.mutate(parent, rng))
    return list(found.values())
