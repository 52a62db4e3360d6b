"""What the networks of several spaces begin and end with."""

from collections.abc import Sequence

from controller.core.errors import SpaceError
from controller.core.network import INPUT, NetworkBuilder
from controller.core.primitives import BatchNorm2d, Conv2d, GlobalAvgPool2d, Linear, ReLU, Shape

_LARGE_IMAGE = 96  # pixels of the smaller side, from which the stem halves


def check_classes(classes: int) -> None:
    """Refuse a task that is no classification.

    Raises:
        SpaceError: If there are fewer than two classes.
    """
    if classes < 2:
        raise SpaceError(f"the dataset has {classes} class; a classifier needs at least 2")


def check_ascending(name: str, options: Sequence[int]) -> None:
    """Refuse options of a size that are not distinct positive numbers, ascending.

    Raises:
        SpaceError: If they are not.
    """
    if not options or min(options) < 1 or list(options) != sorted(set(options)):
        raise SpaceError(f"{name} are {list(options)}; expected distinct positive numbers, ascending")


def stem_stride(shape: Shape) -> int:
    """Return by how much the first convolution shrinks an image of this shape."""
    return 2 if min(shape[1:]) >= _LARGE_IMAGE else 1


def add_stem(builder: NetworkBuilder, channels: int, source: str = INPUT) -> str:
    """Add a block `stem` of a 3×3 convolution with batch norm and ReLU, and return its output."""
    with builder.block("stem", "stem"):
        conv = builder.add("conv", Conv2d(channels, 3, stride=stem_stride(builder.shape(source))), source)
        return builder.add("relu", ReLU(), builder.add("bn", BatchNorm2d(), conv))


def add_head(builder: NetworkBuilder, source: str, classes: int) -> None:
    """Add a block `head` that classifies by the mean over all pixels."""
    with builder.block("head", "head"):
        builder.add("classifier", Linear(classes), builder.add("pool", GlobalAvgPool2d(), source))
