"""What can be searched. Third parties add spaces through the entry-point group `edgenas.spaces`."""

from collections.abc import Callable, Mapping

from controller.core.protocols import SearchSpace
from controller.spaces.cell import CellSpace
from controller.spaces.chain import ChainSpace
from controller.spaces.mobile import MobileSpace
from controller.spaces.presets import PRESETS, Limits

SPACES: Mapping[str, Callable[..., SearchSpace]] = {
    "chain": ChainSpace,
    "cell": CellSpace,
    "mobile": MobileSpace,
}

__all__ = ["PRESETS", "SPACES", "CellSpace", "ChainSpace", "Limits", "MobileSpace"]
