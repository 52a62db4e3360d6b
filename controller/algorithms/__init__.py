"""What proposes architectures. Third parties add algorithms through the entry-point group `edgenas.algorithms`.

Each is called as `algorithm(space, objectives, seed)` and only asks and is told.
"""

from collections.abc import Callable, Mapping, Sequence

from controller.algorithms.evolution import Evolution
from controller.algorithms.random import RandomSearch
from controller.core.objective import Objective
from controller.core.protocols import SearchAlgorithm, SearchSpace

AlgorithmFactory = Callable[[SearchSpace, Sequence[Objective], int], SearchAlgorithm]

ALGORITHMS: Mapping[str, AlgorithmFactory] = {"random": RandomSearch, "evolution": Evolution}

__all__ = ["ALGORITHMS", "AlgorithmFactory", "Evolution", "RandomSearch"]
