"""The datasets: digits, those that torchvision downloads, and folders of images.

Each is decoded once and kept as uint8 tensors. What a dataset brings as its test set stays the test set;
validation images are split off the training images, stratified by class, by a seed of their own, so that
every run and the generated project split alike.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controller.core.errors import ConfigurationError, DatasetError
from controller.training.dataset import Dataset, DatasetInfo, Split
from controller.training.images import class_names, decode, find_images, find_parts, natural_shape

logger = logging.getLogger(__name__)

SPLIT_SEED = 0
_TEST_SHARE = 0.2  # of a dataset without a test set
_VALIDATION_SHARE_OF_UNSPLIT = 0.2  # of a dataset without a test set
_VALIDATION_SHARE_OF_TRAIN = 0.1  # of the training part of a dataset with one
_HISTOGRAM_IMAGES = 1000  # at a time: counting widens each pixel to eight bytes
_NAMED_FILES = 10  # skipped files that the log names one by one

_TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}
DATASETS = ("digits", *_TORCHVISION, "folder:PATH")


def load_dataset(
    name: str,
    *,
    downloads: Path,
    image_size: int | None = None,
    train_images: int | None = None,
    augment: bool | None = None,
) -> Dataset:
    """Return a dataset, decoded and split.

    Args:
        name: One of DATASETS.
        downloads: Where torchvision keeps what it downloads.
        image_size: Height and width to resize a folder's images to; None chooses.
        train_images: Most training images to keep, stratified by class; None keeps all.
        augment: Whether images may be flipped and shifted; None decides by the dataset.

    Raises:
        ConfigurationError: If name is unknown.
        DatasetError: If it cannot be found, read or split.
    """
    kind, _, path = name.partition(":")
    if kind == "folder" and path:
        root = Path(path).expanduser()
        try:
            dataset = _folder(root, image_size)
        except OSError as error:
            raise DatasetError(
                f"dataset folder {error.filename or root} cannot be read: {error.strerror}; check its permissions"
            ) from error
    elif name == "digits":
        dataset = _digits()
    elif name in _TORCHVISION:
        dataset = _torchvision(name, downloads)
    else:
        raise ConfigurationError(f"dataset {name!r} is unknown; expected one of {', '.join(DATASETS)}")
    if image_size is not None and kind != "folder":
        raise ConfigurationError(
            f"dataset {name!r} has images of {dataset.info.image_shape[1:]}; image_size is for folders"
        )
    if train_images is not None and train_images < len(dataset.train):
        if train_images < len(dataset.info.classes):
            raise ConfigurationError(
                f"train_images is {train_images}; expected at least one for each of {len(dataset.info.classes)} classes"
            )
        dataset = _replace(dataset, train=_subset(dataset.train, train_images))
    if augment is not None:
        dataset = _replace(dataset, augment=augment)
    return dataset


def _replace(dataset: Dataset, *, train: Split | None = None, augment: bool | None = None) -> Dataset:
    return _dataset(
        name=dataset.info.name,
        path=dataset.info.path,
        classes=dataset.info.classes,
        natural=dataset.info.natural if augment is None else augment,
        parts={"train": train or dataset.train, "validation": dataset.validation, "test": dataset.test},
        skipped=dataset.skipped_files,
    )


def _digits() -> Dataset:
    # Importing it takes a second, and a mistake in a configuration is told sooner without.
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    # The original pixels count ink on a scale of 0 to 16.
    images = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    parts = _complete({"train": Split(images=images, labels=torch.from_numpy(bunch.target).long())})
    return _dataset(name="digits", path=None, classes=tuple("0123456789"), natural=False, parts=parts)


def _torchvision(name: str, downloads: Path) -> Dataset:
    from torchvision import datasets

    factory: Callable[..., Any] = getattr(datasets, _TORCHVISION[name])
    try:
        loaded = {
            part: factory(str(downloads), train=part == "train", download=True) for part in ("train", "test")
        }
    except (OSError, RuntimeError) as error:
        raise DatasetError(
            f"dataset {name!r} could not be downloaded to {downloads}: {error}; check the network and the disk, or use folder:PATH"
        ) from error
    parts = {}
    for part, source in loaded.items():
        pixels = torch.as_tensor(np.asarray(source.data))
        images = pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2)
        parts[part] = Split(
            images=images.contiguous(), labels=torch.as_tensor(np.asarray(source.targets)).long()
        )
    return _dataset(
        name=name, path=None, classes=tuple(loaded["train"].classes), natural=True, parts=_complete(parts)
    )


def _folder(root: Path, image_size: int | None) -> Dataset:
    if not root.is_dir():
        raise DatasetError(
            f"dataset folder {root} does not exist; expected PATH/CLASS/IMAGE or PATH/train/CLASS/IMAGE"
        )
    folders = find_parts(root)
    if "train" not in folders:
        folders = {"train": root}
    classes = class_names(folders["train"])
    if len(classes) < 2:
        raise DatasetError(
            f"dataset folder {folders['train']} has {len(classes)} class folders; expected at least 2, "
            "laid out as PATH/CLASS/IMAGE or PATH/train/CLASS/IMAGE"
        )
    files = {part: find_images(folder, classes) for part, folder in folders.items()}
    shape = natural_shape(files["train"], image_size)
    parts: dict[str, Split] = {}
    skipped: list[str] = []
    for part, found in files.items():
        parts[part], unreadable = decode(found, shape)
        skipped += unreadable
    for file in skipped[:_NAMED_FILES]:
        logger.warning("%s is no readable image and is skipped", file)
    if skipped:
        logger.warning(
            "%d of %d images were skipped", len(skipped), sum(len(found.paths) for found in files.values())
        )
    return _dataset(
        name="folder",
        path=str(root.resolve()),
        classes=classes,
        natural=shape[0] == 3,
        parts=_complete(parts),
        skipped=tuple(skipped),
    )


def _complete(parts: Mapping[str, Split]) -> Mapping[str, Split]:
    """Return train, validation and test, splitting off the training images what is missing.

    Of a folder with training and validation images alone, the validation images become the test set: they
    are the ones its owner set aside to judge a model by.
    """
    train, validation, test = parts["train"], parts.get("validation"), parts.get("test")
    if test is None and validation is not None:
        test, validation = validation, None
    if test is None:
        count = len(train)
        train, test = _split(train, round(_TEST_SHARE * count))
        train, validation = _split(train, round(_VALIDATION_SHARE_OF_UNSPLIT * count))
    elif validation is None:
        train, validation = _split(train, round(_VALIDATION_SHARE_OF_TRAIN * len(train)))
    return {"train": train, "validation": validation, "test": test}


def _split(whole: Split, count: int) -> tuple[Split, Split]:
    """Return whole without count of its images, and those, stratified by class.

    Raises:
        DatasetError: If there are too few images of a class.
    """
    from sklearn.model_selection import train_test_split

    indices = np.arange(len(whole))
    try:
        rest, taken = train_test_split(
            indices, test_size=count, random_state=SPLIT_SEED, stratify=whole.labels.numpy()
        )
    except ValueError as error:
        fewest = int(torch.bincount(whole.labels).min())
        raise DatasetError(
            f"{len(whole)} images, {fewest} of the rarest class, cannot be split by class into {len(whole) - count} and {count}; add images to the rarest classes"
        ) from error
    return tuple(
        Split(images=whole.images[part], labels=whole.labels[part])
        for part in (np.sort(rest), np.sort(taken))
    )  # type: ignore[return-value]


def _subset(whole: Split, count: int) -> Split:
    """Return count of whole's images: of every class its share, and at least one."""
    rng = np.random.default_rng(SPLIT_SEED)
    labels = whole.labels.numpy()
    position = np.empty(len(whole))  # within the image's class, from 0 up to 1: every class begins with a 0
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        position[rng.permutation(members)] = np.arange(len(members)) / len(members)
    kept = np.sort(np.argsort(position, kind="stable")[:count])
    return Split(images=whole.images[kept], labels=whole.labels[kept])


def _dataset(
    *,
    name: str,
    path: str | None,
    classes: tuple[str, ...],
    natural: bool,
    parts: Mapping[str, Split],
    skipped: tuple[str, ...] = (),
) -> Dataset:
    images = parts["train"].images
    mean, std = _pixel_statistics(images)
    info = DatasetInfo(
        name=name,
        path=path,
        classes=classes,
        image_shape=(int(images.shape[1]), int(images.shape[2]), int(images.shape[3])),
        mean=mean,
        std=std,
        natural=natural,
        split_seed=SPLIT_SEED,
    )
    return Dataset(
        info=info,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        skipped_files=skipped,
    )


def _pixel_statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation per channel of pixel values in [0, 1], exactly, from their histograms.

    Args:
        images: uint8, shape (n, channels, height, width).
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.float64)
        for part in torch.split(images[:, channel], _HISTOGRAM_IMAGES):
            counts += torch.bincount(part.flatten(), minlength=256)
        shares = counts / counts.sum()
        mean = (shares * values).sum()
        deviation = float((shares * (values - mean) ** 2).sum().sqrt())
        means.append(round(float(mean), 4))
        # A channel that never changes carries nothing; dividing by it would.
        deviations.append(round(deviation, 4) if deviation > 1e-3 else 1.0)
    return tuple(means), tuple(deviations)
