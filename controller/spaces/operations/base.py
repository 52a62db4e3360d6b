"""What an operation is."""

from typing import Protocol

from controller.core.network import NetworkBuilder


class Operation(Protocol):
    """A choice of what one layer of a space computes."""

    @property
    def keeps_channels(self) -> bool:
        """Whether the output always has the input's channels, so that choosing them is pointless."""
        ...

    @property
    def activated(self) -> bool:
        """Whether a ReLU follows, after any skip connections have been added."""
        ...

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add the operation's layers to the builder's current block.

        Args:
            builder: Where layers are added.
            source: Name of the layer read.
            out_channels: Channels wanted; ignored where channels are kept.
            stride: 1, or 2 to halve height and width.

        Returns:
            The name of the last layer, or source where there is nothing to do.
        """
        ...
