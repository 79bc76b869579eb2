"""Class folders: read in a fixed order, and errors name the folder or file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simplenet.errors import DataError, SimpleNetWarning
from train import class_folders, data


def _class_folders(folder: Path) -> Path:
    """Two images of each CIFAR-10 class in each split; the red channel is the class."""
    for split in ("train", "test"):
        for index, label in enumerate(data.get("cifar10").labels):
            (folder / split / label).mkdir(parents=True)
            for number in range(2):
                pixels = np.full((32, 32, 3), (20 * index, number, 9), np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
    return folder


def test_reads_in_the_order_of_classes_and_names(tmp_path: Path) -> None:
    train, test = data.load(data.get("cifar10"), _class_folders(tmp_path))
    assert train.images.shape == test.images.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(train.labels, np.repeat(np.arange(10), 2))
    np.testing.assert_array_equal(train.images[:, 0, 0, 0], 20 * train.labels)
    assert test.images[:, 5, 5, 1].tolist() == [0, 1] * 10


def test_test_images_may_be_in_val(tmp_path: Path) -> None:
    folder, spec = _class_folders(tmp_path), data.get("cifar10")
    (folder / "test").rename(folder / "val")
    assert len(data.load(spec, folder)[1]) == 20
    (folder / "val").rename(folder / "holdout")
    with pytest.raises(
        DataError, match=r"has train/<class>/\*, but neither val/<class>/\* nor .*, only holdout; sort test images"
    ):
        data.load(spec, folder)


def test_leaves_out_unreadable_images_with_a_warning(tmp_path: Path) -> None:
    folder, spec = _class_folders(tmp_path), data.get("cifar10")
    for name in ("cat/0.png", "frog/1.png"):
        path = folder / "train" / name
        path.write_bytes(path.read_bytes()[:60])
    with pytest.warns(
        SimpleNetWarning, match=r": not used: 2 unreadable; the first unreadable one: .*cat/0\.png: incomplete"
    ):
        train, test = data.load(spec, folder)
    assert (len(train), len(test)) == (18, 20)
    assert (train.left_out, test.left_out) == (2, 0)
    np.testing.assert_array_equal(train.images[:, 0, 0, 0], 20 * train.labels)
    (folder / "train/cat/1.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"none of the 2 images in .*train/cat can be read: 1 x incomplete .*, 1 x the file is"
    ):
        data.load(spec, folder)


def test_refuses_bad_class_folders_by_name(tmp_path: Path) -> None:
    folder, spec = _class_folders(tmp_path), data.get("cifar10")
    Image.new("RGB", (31, 32)).save(folder / "train/frog/0.png")
    with pytest.raises(DataError, match=r"frog/0\.png has the shape \(32, 31, 3\)"):
        data.load(spec, folder)
    for image in (folder / "train/cat").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"no images in .*train/cat; add some"):
        data.load(spec, folder)
    (folder / "train/cat").rmdir()
    with pytest.raises(DataError, match=r"train has no folder for the class 'cat'; every class needs a folder"):
        data.load(spec, folder)
    (folder / "train/kitten").mkdir()
    with pytest.raises(DataError, match=r"train/kitten is none of the 10 classes"):
        data.load(spec, folder)


def test_folder_names_may_differ_in_punctuation(tmp_path: Path) -> None:
    spec = data.get("fashion-mnist")
    for split in ("train", "test"):
        for index, label in enumerate(spec.labels):
            folder = tmp_path / split / label.replace("/", "-")
            folder.mkdir(parents=True)
            Image.new("RGB", (28, 28), (20 * index, 0, 0)).save(folder / "1.png")
    train, _ = data.load(spec, tmp_path)
    assert train.classes == spec.labels
    assert train.classes[0] == "T-shirt/top"
    np.testing.assert_array_equal(train.images[:, 0, 0, 0], 20 * train.labels)
    (tmp_path / "test" / "t_shirt_top").mkdir()
    with pytest.raises(DataError, match=r"are both class 'T-shirt/top'; merge them"):
        data.load(spec, tmp_path)


def test_refuses_an_ambiguous_folder_name(tmp_path: Path) -> None:
    for name in ("train/C", "train/C++", "test/C", "test/C#"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    with pytest.raises(DataError, match="test/C# is none of the 2 classes"):
        data.load(data.get("folder"), tmp_path)


def test_training_and_test_folders_must_have_the_same_classes(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    with pytest.raises(DataError, match="test has no folder for the class 'b'; every class"):
        data.load(data.get("folder"), tmp_path)
    (tmp_path / "test/c").mkdir()
    with pytest.raises(DataError, match="test/c is none of the 2 classes"):
        data.load(data.get("folder"), tmp_path)


def test_refuses_unprintable_class_names(tmp_path: Path) -> None:
    for name in (b"good", b"\x1b[2J"):
        (tmp_path / name.decode()).mkdir()
    with pytest.raises(DataError, match="an unprintable name") as caught:
        class_folders.class_names(tmp_path)
    assert str(caught.value).isprintable()
