"""What is known of a dataset, and its images in memory."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """Everything about a dataset but its images: what a deployed model must know.

    Attributes:
        name: `digits`, `cifar10`, `cifar100`, `fashion_mnist` or `folder`.
        path: Where a `folder` lies; None for the others.
        classes: Class names; a label is an index into them.
        image_shape: (channels, height, width) that images are decoded and resized to.
        mean: Per channel over the training images, of pixel values in [0, 1].
        std: Per channel over the training images, of pixel values in [0, 1].
        natural: Whether images may be flipped left to right and shifted; digits may not be flipped.
        split_seed: Seed of the split where the dataset brings none.
    """

    name: str
    path: str | None
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    natural: bool
    split_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Images and labels of one part of a dataset.

    Attributes:
        images: uint8, shape (n, channels, height, width).
        labels: int64, shape (n,).
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset decoded into memory. The search sees training and validation images only.

    Attributes:
        info: Everything but the images.
        train: What weights are fitted to.
        validation: What candidates are compared on.
        test: What the chosen network is judged on, once, after the search.
        skipped_files: Names of files that are no readable image.
    """

    info: DatasetInfo
    train: Split
    validation: Split
    test: Split
    skipped_files: tuple[str, ...]
