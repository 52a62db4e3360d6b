"""What proposes architectures. Third parties add algorithms through the entry-point group `edgenas.algorithms`.

Each is called as `algorithm(problem, seed)`, with options of its own by name, and only asks and is told.
"""

from collections.abc import Callable, Mapping

from controller.algorithms.darts import Darts
from controller.algorithms.ensemble import Ensemble
from controller.algorithms.evolution import Evolution
from controller.algorithms.local import LocalSearch
from controller.algorithms.progressive import Progressive
from controller.algorithms.random import RandomSearch
from controller.algorithms.regularized_evolution import RegularizedEvolution
from controller.algorithms.reinforce import Reinforce
from controller.algorithms.surrogate import Surrogate
from controller.core.protocols import SearchAlgorithm

AlgorithmFactory = Callable[..., SearchAlgorithm]

ALGORITHMS: Mapping[str, AlgorithmFactory] = {
    "random": RandomSearch,
    "local": LocalSearch,
    "evolution": Evolution,
    "regularized_evolution": RegularizedEvolution,
    "darts": Darts,
    "reinforce": Reinforce,
    "progressive": Progressive,
    "surrogate": Surrogate,
    "ensemble": Ensemble,
}

WITH_SUPERNET = ("darts",)
"""Those that search only a space that has one; a table has none."""

__all__ = [
    "ALGORITHMS",
    "WITH_SUPERNET",
    "AlgorithmFactory",
    "Darts",
    "Ensemble",
    "Evolution",
    "LocalSearch",
    "Progressive",
    "RandomSearch",
    "RegularizedEvolution",
    "Reinforce",
    "Surrogate",
]
