"""What proposes architectures. Third parties add algorithms through the entry-point group `edgenas.algorithms`.

Each is called as `algorithm(space, objectives, seed)`, with options of its own by name, and only asks and
is told.
"""

from collections.abc import Callable, Mapping

from controller.algorithms.evolution import Evolution
from controller.algorithms.random import RandomSearch
from controller.core.protocols import SearchAlgorithm

AlgorithmFactory = Callable[..., SearchAlgorithm]

ALGORITHMS: Mapping[str, AlgorithmFactory] = {"random": RandomSearch, "evolution": Evolution}

__all__ = ["ALGORITHMS", "AlgorithmFactory", "Evolution", "RandomSearch"]
