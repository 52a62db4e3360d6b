"""Folders of image files, decoded once into uint8 tensors."""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from PIL import Image

from controller.core.errors import DatasetError
from controller.training.dataset import Split

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16"})
_LARGEST_OWN_SIZE = 224  # pixels; images that all have one size up to this keep it
_DEFAULT_SIDE = 128  # pixels; others are made square, at most this
_HEADERS_READ = 500
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFiles:
    """Paths of image files and their labels."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in folder, sorted: one is one class."""
    return tuple(
        sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    )


def find_images(folder: Path, classes: Sequence[str]) -> ImageFiles:
    """Return the image files below folder/CLASS, in sorted order.

    Raises:
        DatasetError: If a class has no image, or there is a folder that is none of the classes.
    """
    unknown = sorted(set(class_names(folder)) - set(classes))
    if unknown:
        raise DatasetError(
            f"dataset folder {folder} has the class {unknown[0]!r}, which the training part lacks; expected {', '.join(classes)}"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = _image_files(folder / name)
        if not files:
            raise DatasetError(
                f"dataset folder {folder / name} has no images; expected files ending in {', '.join(sorted(SUFFIXES))}; add some or remove the class"
            )
        paths += files
        labels += [label] * len(files)
    return ImageFiles(paths=tuple(paths), labels=tuple(labels))


def _image_files(folder: Path) -> list[Path]:
    """Return the image files anywhere below folder, sorted; a folder that cannot be read is an error, not empty."""
    if not folder.exists():
        return []

    def fail(error: OSError) -> None:
        raise error

    return sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder, onerror=fail)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    )


def natural_shape(files: ImageFiles, image_size: int | None) -> tuple[int, int, int]:
    """Return the (channels, height, width) to decode to.

    Args:
        files: Some of them are opened, headers only.
        image_size: Height and width wanted; None keeps the size that all images share, or else takes a square.

    Raises:
        DatasetError: If no file is readable.
    """
    step = max(1, len(files.paths) // _HEADERS_READ)
    headers = [header for header in map(_header, files.paths[::step]) if header]
    if not headers:
        raise DatasetError(
            f"none of the files looked at is an image, {files.paths[0]} among them; expected JPEG, PNG or the like"
        )
    channels = 1 if all(mode in _GREY_MODES for mode, _ in headers) else 3
    if image_size is not None:
        return channels, image_size, image_size
    sizes = {size for _, size in headers}
    width, height = next(iter(sizes))
    if len(sizes) == 1 and max(width, height) <= _LARGEST_OWN_SIZE:
        return channels, height, width
    side = min(_DEFAULT_SIDE, int(median(min(size) for _, size in headers)))
    logger.info(
        "images have %d sizes; they are resized to %d × %d (--image-size chooses another)",
        len(sizes),
        side,
        side,
    )
    return channels, side, side


def _header(path: Path) -> tuple[str, tuple[int, int]] | None:
    try:
        with Image.open(path) as image:
            return image.mode, image.size
    except _UNREADABLE:
        return None


def decode(files: ImageFiles, shape: tuple[int, int, int]) -> tuple[Split, tuple[str, ...]]:
    """Return the images, resized where they differ from shape, and the files that are no readable image.

    Args:
        files: What to decode.
        shape: (channels, height, width).

    Raises:
        DatasetError: If they do not fit into half of the free memory, or a class has no readable image.
    """
    needed, free = len(files.paths) * int(np.prod(shape)), psutil.virtual_memory().available
    if needed > free / 2:
        raise DatasetError(
            f"{len(files.paths)} images of {shape} take {needed / 1e9:.1f} GB; expected at most half of the {free / 1e9:.1f} GB "
            "that are free; choose a smaller --image-size"
        )
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda path: _pixels(path, shape), files.paths, chunksize=64))
    skipped = tuple(str(path) for path, pixels in zip(files.paths, decoded, strict=True) if pixels is None)
    kept = [
        (pixels, label) for pixels, label in zip(decoded, files.labels, strict=True) if pixels is not None
    ]
    empty = sorted(set(files.labels) - {label for _, label in kept})
    if empty:
        names = next(path for path, label in zip(files.paths, files.labels, strict=True) if label == empty[0])
        raise DatasetError(
            f"dataset folder {names.parent} has no readable image; {len(skipped)} files could not be decoded, {skipped[0]} first"
        )
    images = torch.from_numpy(np.stack([pixels for pixels, _ in kept]))
    return Split(images=images, labels=torch.tensor([label for _, label in kept])), skipped


def _pixels(
    path: Path, shape: tuple[int, int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            converted = eight_bit(image).convert("L" if channels == 1 else "RGB")
            if converted.size != (width, height):
                converted = converted.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(converted, dtype=np.uint8)
    except _UNREADABLE:
        return None
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def eight_bit(image: Image.Image) -> Image.Image:
    """Return an image of 16 bits a pixel with its upper 8; converting it otherwise would cut off all but the lowest.

    Raises:
        ValueError: If the pixels are fractions, whose range nobody knows.
    """
    if image.mode == "F":
        raise ValueError("the pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))


def find_parts(root: Path) -> Mapping[str, Path]:
    """Return the folders of root that hold parts of the dataset: `train`, `validation`, `test` where present.

    Raises:
        DatasetError: If there is a part to test on beside classes, and none to train on.
    """
    spellings = {
        "train": ("train", "training"),
        "validation": ("validation", "val", "valid"),
        "test": ("test", "testing"),
    }
    found = {
        part: [root / name for name in names if (root / name).is_dir()] for part, names in spellings.items()
    }
    parts = {part: folders[0] for part, folders in found.items() if folders}
    if parts and "train" not in parts:
        raise DatasetError(
            f"dataset folder {root} has {', '.join(folder.name for folder in parts.values())} but no train; "
            "move the folders of the classes into train"
        )
    return parts
