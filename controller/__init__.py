"""EdgeNAS on the host: searches for networks, and measures them on the boards they are for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.api import NeuralArchitectureSearch, SearchResult

__all__ = ["NeuralArchitectureSearch", "SearchResult"]


def __getattr__(name: str) -> Any:
    """Import the interface when it is first used: it takes torch along, which most commands do without."""
    if name in __all__:
        from controller import api

        return getattr(api, name)
    raise AttributeError(f"module 'controller' has no attribute {name!r}")
