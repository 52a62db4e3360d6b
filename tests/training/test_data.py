import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from controller.core.errors import ConfigurationError, DatasetError
from controller.training.data import load_dataset
from controller.training.dataset import Dataset, Split
from controller.training.trainer import normalise


def digits(**options: object) -> Dataset:
    return load_dataset("digits", downloads=Path("nothing is downloaded"), **options)


def folder(root: Path, **options: object) -> Dataset:
    return load_dataset(f"folder:{root}", downloads=root, **options)


def write_images(
    root: Path, counts: Mapping[str, int], *, mode: str = "RGB", size: tuple[int, int] = (6, 5)
) -> Path:
    """Write noisy images, counts of them by class; return root."""
    rng = np.random.default_rng(sum(map(ord, str(root.name))))
    channels = {"RGB": 3, "L": 1, "RGBA": 4}[mode]
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, size=(size[1], size[0], channels), dtype=np.uint8).squeeze()
            Image.fromarray(pixels).save(root / name / f"{index:02d}.png")
    return root


def sizes(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.validation), len(dataset.test)


def by_class(part: Split) -> list[int]:
    return torch.bincount(part.labels).tolist()


def contents(part: Split) -> set[tuple[bytes, int]]:
    return {
        (image.numpy().tobytes(), int(label)) for image, label in zip(part.images, part.labels, strict=True)
    }


def test_digits_are_split_once_for_all():
    dataset = digits()
    assert sizes(dataset) == (1079, 359, 359)
    assert dataset.info.image_shape == (1, 8, 8)
    assert dataset.info.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert not dataset.info.natural


def test_digits_splits_share_no_image_and_lose_none():
    dataset = digits()
    parts = [contents(part) for part in (dataset.train, dataset.validation, dataset.test)]
    original = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    everything = {
        (image.tobytes(), int(label)) for image, label in zip(original, load_digits().target, strict=True)
    }
    assert set.union(*parts) == everything
    # No two of its images are alike, so disjoint parts are as large together as the whole.
    assert sum(map(len, parts)) == len(everything) == 1797


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_digits_splits_hold_every_class_in_proportion(part: str):
    split: Split = getattr(digits(), part)
    whole = np.bincount(load_digits().target)
    assert by_class(split) == pytest.approx((whole * len(split) / 1797).tolist(), abs=1.5)


def test_normalised_training_images_have_mean_0_and_deviation_1():
    dataset = digits()
    images = normalise(dataset.train.images, dataset.info)
    assert images.dtype is torch.float32
    assert float(images.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(images.std()) == pytest.approx(1.0, abs=1e-3)


def test_normalised_colours_have_mean_0_and_deviation_1_each(image_folder: Path):
    dataset = folder(image_folder)
    images = normalise(dataset.train.images, dataset.info)
    assert images.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.0] * 3, abs=1e-3)
    assert images.std(dim=(0, 2, 3)).tolist() == pytest.approx([1.0] * 3, abs=1e-3)


def test_channel_that_never_changes_is_not_divided_by_its_deviation(tmp_path: Path):
    write_images(tmp_path, {"a": 5, "b": 5})
    for path in tmp_path.rglob("*.png"):
        pixels = np.array(Image.open(path))
        pixels[:, :, 1] = 128
        Image.fromarray(pixels).save(path)
    assert folder(tmp_path).info.std[1] == 1.0


@pytest.mark.parametrize("count", [10, 11, 500, 1070, 1078])
def test_train_images_are_as_many_as_wanted_of_every_class(count: int):
    dataset, whole = digits(train_images=count), digits()
    shares = [images * count / len(whole.train) for images in by_class(whole.train)]
    assert by_class(dataset.train) == pytest.approx(shares, abs=1.5)
    assert len(dataset.train) == count
    assert contents(dataset.train) <= contents(whole.train)


def test_train_images_leave_validation_and_test_as_they_were():
    dataset, whole = digits(train_images=100), digits()
    assert contents(dataset.validation) == contents(whole.validation)
    assert contents(dataset.test) == contents(whole.test)


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(5, 40), min_size=2, max_size=5), data=st.data())
def test_train_images_keep_the_rarest_class(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], data: st.DataObject
):
    root = tmp_path_factory.mktemp("unbalanced")
    write_images(root, {f"class {index}": count for index, count in enumerate(counts)}, size=(2, 2))
    wanted = data.draw(st.integers(len(counts), 20))
    kept = folder(root, train_images=wanted).train
    assert min(by_class(kept)) >= 1
    assert len(kept) == min(wanted, len(folder(root).train))


def test_train_images_more_than_there_are_keep_all():
    assert sizes(digits(train_images=5000)) == (1079, 359, 359)


def test_train_images_fewer_than_classes_are_refused():
    with pytest.raises(
        ConfigurationError, match="train_images is 9; expected at least one for each of 10 classes"
    ):
        digits(train_images=9)


def test_augment_can_be_chosen(image_folder: Path):
    assert digits(augment=True).info.natural
    assert not folder(image_folder, augment=False).info.natural


def test_image_size_of_a_dataset_that_has_one_is_refused():
    with pytest.raises(
        ConfigurationError, match=r"dataset 'digits' has images of \(8, 8\); image_size is for folders"
    ):
        digits(image_size=16)


@pytest.mark.parametrize("name", ["mnist", "", "folder", "folder:", "digits:8"])
def test_unknown_dataset_is_named_among_those_there_are(name: str, tmp_path: Path):
    with pytest.raises(ConfigurationError) as caught:
        load_dataset(name, downloads=tmp_path)
    assert str(caught.value) == (
        f"dataset {name!r} is unknown; expected one of digits, cifar10, cifar100, fashion_mnist, folder:PATH"
    )


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"": (10, 20)}, (18, 6, 6)),
        ({"train": (10, 20)}, (18, 6, 6)),
        ({"train": (10, 20), "test": (3, 4)}, (27, 3, 7)),
        ({"training": (10, 20), "testing": (3, 4)}, (27, 3, 7)),
        ({"train": (10, 20), "val": (2, 3), "test": (3, 4)}, (30, 5, 7)),
        ({"train": (10, 20), "validation": (2, 3), "test": (3, 4)}, (30, 5, 7)),
        # What its owner set aside to judge a model by is the test set, whatever it is called.
        ({"train": (10, 20), "valid": (2, 3)}, (27, 3, 5)),
    ],
    ids=str,
)
def test_folder_layout(tmp_path: Path, parts: dict[str, tuple[int, int]], expected: tuple[int, int, int]):
    for part, (cats, dogs) in parts.items():
        write_images(tmp_path / part, {"cat": cats, "dog": dogs})
    dataset = folder(tmp_path)
    assert sizes(dataset) == expected
    assert dataset.info.classes == ("cat", "dog")


def test_folder_parts_hold_their_own_images(tmp_path: Path):
    shades = {"train": 10, "val": 20, "test": 30}
    for part, shade in shades.items():
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(3):
                Image.new("L", (4, 4), shade).save(tmp_path / part / name / f"{index}.png")
    dataset = folder(tmp_path)
    assert [int(part.images.unique()) for part in (dataset.train, dataset.validation, dataset.test)] == [
        10,
        20,
        30,
    ]


def test_folder_parts_of_an_undivided_folder_share_no_image(image_folder: Path):
    dataset = folder(image_folder)
    parts = [contents(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 60


def test_folder_is_split_alike_every_time(image_folder: Path):
    first, second = folder(image_folder), folder(image_folder)
    assert torch.equal(first.test.images, second.test.images)
    assert torch.equal(first.validation.images, second.validation.images)


def test_folder_labels_are_indices_into_its_sorted_classes(tmp_path: Path):
    for name, shade in (("zebra", 200), ("ape", 50)):
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.new("L", (4, 4), shade).save(tmp_path / name / f"{index}.png")
    dataset = folder(tmp_path)
    assert dataset.info.classes == ("ape", "zebra")
    assert [
        (int(image.unique()), int(label))
        for image, label in zip(dataset.test.images, dataset.test.labels, strict=True)
    ] == [(50, 0), (200, 1)]


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"], ids=("empty", "text", "cut off")
)
def test_file_that_is_no_image_is_named_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
):
    write_images(tmp_path, {"cat": 10, "dog": 10})
    broken = tmp_path / "cat" / "broken.png"
    broken.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        dataset = folder(tmp_path)
    assert dataset.skipped_files == (str(broken),)
    assert sum(sizes(dataset)) == 20
    assert [record.getMessage() for record in caplog.records] == [
        f"{broken} is no readable image and is skipped",
        "1 of 21 images were skipped",
    ]


def test_image_that_is_cut_off_is_skipped(tmp_path: Path):
    write_images(tmp_path, {"cat": 10, "dog": 10}, size=(64, 64))
    cut = tmp_path / "dog" / "03.png"
    cut.write_bytes(cut.read_bytes()[:-2000])
    assert folder(tmp_path).skipped_files == (str(cut),)


def test_image_of_fractions_is_skipped(tmp_path: Path):
    write_images(tmp_path, {"cat": 10, "dog": 10})
    Image.fromarray(np.full((5, 6), 0.5, dtype=np.float32)).save(tmp_path / "cat" / "fractions.tiff")
    assert folder(tmp_path).skipped_files == (str(tmp_path / "cat" / "fractions.tiff"),)


def test_only_the_first_of_many_unreadable_files_are_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    write_images(tmp_path, {"cat": 10, "dog": 10})
    for index in range(30):
        (tmp_path / "cat" / f"broken {index:02d}.jpg").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        assert len(folder(tmp_path).skipped_files) == 30
    assert [record.getMessage() for record in caplog.records][-1] == "30 of 50 images were skipped"
    assert len(caplog.records) == 11


def test_files_that_are_not_named_as_images_are_not_looked_at(tmp_path: Path):
    write_images(tmp_path, {"cat": 10, "dog": 10})
    (tmp_path / "cat" / "notes.txt").write_text("about the cats")
    (tmp_path / ".cache").mkdir()
    dataset = folder(tmp_path)
    assert (sizes(dataset), dataset.skipped_files) == ((12, 4, 4), ())


def test_images_in_folders_below_a_class_belong_to_it(tmp_path: Path):
    write_images(tmp_path, {"cat": 10, "dog/small": 5, "dog/large": 5})
    assert sizes(folder(tmp_path)) == (12, 4, 4)


@pytest.mark.parametrize(("mode", "shape"), [("L", (1, 5, 6)), ("RGB", (3, 5, 6)), ("RGBA", (3, 5, 6))])
def test_channels_are_those_of_the_images(tmp_path: Path, mode: str, shape: tuple[int, int, int]):
    dataset = folder(write_images(tmp_path, {"cat": 5, "dog": 5}, mode=mode))
    assert dataset.info.image_shape == shape
    assert dataset.info.natural == (shape[0] == 3)


def test_one_colour_image_makes_all_of_them_colour(tmp_path: Path):
    write_images(tmp_path, {"cat": 5, "dog": 5}, mode="L")
    Image.new("RGB", (6, 5), "red").save(tmp_path / "cat" / "00.png")
    assert folder(tmp_path).info.image_shape == (3, 5, 6)


def test_images_of_one_size_keep_it(tmp_path: Path):
    write_images(tmp_path, {"cat": 5, "dog": 5}, size=(224, 20))
    assert folder(tmp_path).info.image_shape == (3, 20, 224)


@pytest.mark.parametrize(
    ("others", "side"),
    [((30, 20), 5), ((300, 400), 128), ((50, 90), 50)],
    ids=("most are small", "most are large", "most are middling"),
)
def test_images_of_mixed_sizes_are_made_square(tmp_path: Path, others: tuple[int, int], side: int):
    small, large = (6, 2) if side == 5 else (2, 6)
    write_images(tmp_path / "small", {"cat": small, "dog": small})
    write_images(tmp_path / "large", {"cat": large, "dog": large}, size=others)
    for path in (tmp_path / "large").rglob("*.png"):
        path.rename(tmp_path / "small" / path.parent.name / f"large {path.name}")
    assert folder(tmp_path / "small").info.image_shape == (3, side, side)


def test_one_size_too_large_is_made_smaller(tmp_path: Path):
    write_images(tmp_path, {"cat": 5, "dog": 5}, size=(300, 230))
    assert folder(tmp_path).info.image_shape == (3, 128, 128)


def test_image_size_can_be_chosen(tmp_path: Path):
    write_images(tmp_path, {"cat": 5, "dog": 5})
    dataset = folder(tmp_path, image_size=16)
    assert dataset.info.image_shape == (3, 16, 16)
    assert dataset.train.images.shape[1:] == (3, 16, 16)


def test_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(
        DatasetError, match=r"dataset folder .*nowhere does not exist; expected PATH/CLASS/IMAGE"
    ):
        folder(tmp_path / "nowhere")


def test_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(DatasetError) as caught:
        folder(tmp_path)
    assert str(caught.value).startswith(f"dataset folder {tmp_path} has 0 class folders; expected at least 2")


def test_folder_of_one_class_is_refused(tmp_path: Path):
    write_images(tmp_path, {"cat": 5})
    with pytest.raises(DatasetError, match="has 1 class folders; expected at least 2"):
        folder(tmp_path)


def test_class_without_images_is_refused(tmp_path: Path):
    write_images(tmp_path, {"cat": 5, "dog": 0})
    with pytest.raises(DatasetError) as caught:
        folder(tmp_path)
    assert str(caught.value).startswith(
        f"dataset folder {tmp_path / 'dog'} has no images; expected files ending in "
    )


def test_class_whose_files_are_no_images_is_refused(tmp_path: Path):
    write_images(tmp_path, {"cat": 5, "dog": 0})
    (tmp_path / "dog" / "dog.jpg").write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        folder(tmp_path)
    assert str(caught.value) == (
        f"dataset folder {tmp_path / 'dog'} has no readable image; 1 files could not be decoded, {tmp_path / 'dog' / 'dog.jpg'} first"
    )


def test_folder_without_a_readable_file_is_refused(tmp_path: Path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        folder(tmp_path)
    assert str(tmp_path / "cat" / "1.png") in str(caught.value)


def test_class_of_the_test_part_that_training_lacks_is_refused(tmp_path: Path):
    write_images(tmp_path / "train", {"cat": 5, "dog": 5})
    write_images(tmp_path / "test", {"cat": 2, "dog": 2, "emu": 2})
    with pytest.raises(DatasetError) as caught:
        folder(tmp_path)
    assert str(caught.value) == (
        f"dataset folder {tmp_path / 'test'} has the class 'emu', which the training part lacks; expected cat, dog"
    )


@pytest.mark.parametrize("tested", [{"cat": 2}, {"cat": 2, "dog": 0}], ids=("no folder", "no images"))
def test_class_that_the_test_part_lacks_is_refused(tmp_path: Path, tested: dict[str, int]):
    write_images(tmp_path / "train", {"cat": 5, "dog": 5})
    write_images(tmp_path / "test", tested)
    with pytest.raises(DatasetError, match=r"dataset folder .*test/dog has no images"):
        folder(tmp_path)


@pytest.mark.parametrize("counts", [(1, 20), (2, 2), (3, 3)], ids=str)
def test_too_few_images_of_a_class_are_refused(tmp_path: Path, counts: Sequence[int]):
    write_images(tmp_path, dict(zip(("cat", "dog"), counts, strict=True)))
    with pytest.raises(DatasetError) as caught:
        folder(tmp_path)
    assert f"{sum(counts)} images, {min(counts)} of the rarest class, cannot be split by class" in str(
        caught.value
    )
    assert "add images to the rarest classes" in str(caught.value)


def test_images_that_would_not_fit_into_memory_are_refused(tmp_path: Path):
    write_images(tmp_path, {"cat": 400, "dog": 400}, size=(2, 2))
    with pytest.raises(DatasetError, match=r"800 images of \(3, 1000000, 1000000\) take 2400000\.0 GB"):
        folder(tmp_path, image_size=1_000_000)


def test_images_of_16_bits_keep_their_upper_ones(tmp_path: Path):
    for label, name in enumerate(("dark", "light")):
        (tmp_path / name).mkdir()
        for index in range(20):
            pixels = np.full((8, 8), 256 * (100 * label + index), dtype=np.uint16)
            Image.fromarray(pixels).save(tmp_path / name / f"{index:02d}.png")

    dataset = folder(tmp_path)

    values = torch.cat([dataset.train.images, dataset.validation.images, dataset.test.images])[:, 0, 0, 0]
    assert sorted(values.tolist()) == [*range(20), *range(100, 120)]


def test_test_folder_beside_classes_is_not_taken_for_a_class(tmp_path: Path):
    write_images(tmp_path, {"cat": 10, "dog": 10})
    (tmp_path / "test").mkdir()

    with pytest.raises(
        DatasetError, match=r"has test but no train; move the folders of the classes into train"
    ):
        folder(tmp_path)


def test_statistics_are_those_of_the_pixels_whatever_their_number(image_folder: Path):
    dataset = folder(image_folder)

    pixels = dataset.train.images.double() / 255
    assert dataset.info.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-4)
    assert dataset.info.std == pytest.approx(pixels.std(dim=(0, 2, 3)).tolist(), abs=1e-3)
