"""Reading data sets: what is there is read exactly, what is hostile is refused with one clear line."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from simplenet.errors import DataError, UsageError
from train import data

FASHION = data.get("fashion-mnist")
HEADER = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 3, 4)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(shape=st.tuples(*[st.integers(1, 7)] * 3), seed=st.integers(0, 2**32 - 1))
def test_an_idx_file_is_read_exactly(tmp_path: Path, shape: tuple[int, int, int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", *shape) + array.tobytes(), 1))
    np.testing.assert_array_equal(data.read_idx(path, dimensions=3), array)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not an IDX file"),
        (b"\x00\x00\x08", "cannot read"),
        (HEADER + bytes(24), "cannot read"),
        (gzip.compress(HEADER + bytes(24))[:-12], "cannot read"),
        (gzip.compress(HEADER + bytes(24))[:-6] + bytes(6), "cannot read"),
        (gzip.compress(HEADER[:9]), "not an IDX file"),
        (gzip.compress(HEADER + bytes(23)), "shorter or longer"),
        (gzip.compress(HEADER + bytes(25)), "shorter or longer"),
        (gzip.compress(bytes((0, 0, 8, 1)) + struct.pack(">I", 24) + bytes(24)), "not an IDX file"),
        (gzip.compress(bytes((0, 0, 13, 3)) + HEADER[4:] + bytes(96)), "not an IDX file"),
        (gzip.compress(HEADER[:4] + struct.pack(">3I", 0, 3, 4)), "impossible shape"),
        (gzip.compress(HEADER[:4] + struct.pack(">3I", *[2**32 - 1] * 3)), "impossible shape"),
        (gzip.compress(HEADER[:4] + struct.pack(">3I", 1 << 20, 1 << 5, 1 << 5)), "shorter or longer"),
    ],
)
def test_a_hostile_idx_file_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        data.read_idx(path, dimensions=3)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200), zipped=st.booleans())
def test_random_bytes_are_never_more_than_a_data_error(tmp_path: Path, content: bytes, zipped: bool) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    with pytest.raises(DataError):
        data.read_idx(path, dimensions=3)


def test_grey_images_become_rgb_and_keep_their_labels(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    train, test = data.load(FASHION, write_idx_set(tmp_path, train=12, test=5))
    assert train.images.shape == (12, 28, 28, 3)
    assert train.images.dtype == np.uint8
    assert (train.images == train.images[..., :1]).all()
    assert train.labels.tolist() == [0, 1, 2, 3] * 3
    assert len(test) == 5


def test_counts_that_differ_are_refused(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    write_idx_set(tmp_path, train=12, test=5)
    write_idx_set(tmp_path / "other", train=13, test=5)
    (tmp_path / "other/train-labels-idx1-ubyte.gz").replace(tmp_path / "train-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match="12 train images but 13 labels"):
        data.load(FASHION, tmp_path)


def test_a_label_beyond_the_classes_is_refused(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="label is 10"):
        data.load(FASHION, write_idx_set(tmp_path, train=22, test=5, classes=11))


def test_a_missing_data_set_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt install dataset-fashion-mnist"):
        data.load(FASHION, tmp_path / "nowhere")
    with pytest.raises(DataError, match="--data DIR"):
        data.load(data.get("mnist"))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        data.load(FASHION, tmp_path)
    with pytest.raises(UsageError, match="did you mean 'fashion-mnist'"):
        data.get("fashion_mnist")


def _class_folders(folder: Path) -> Path:
    """Two images of each CIFAR-10 class in each split; the red channel is the class."""
    for split in ("train", "test"):
        for index, label in enumerate(data.get("cifar10").labels):
            (folder / split / label).mkdir(parents=True)
            for number in range(2):
                pixels = np.full((32, 32, 3), (20 * index, number, 9), np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
    return folder


def test_class_folders_are_read_in_the_order_of_classes_and_names(tmp_path: Path) -> None:
    train, test = data.load(data.get("cifar10"), _class_folders(tmp_path))
    assert train.images.shape == test.images.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(train.labels, np.repeat(np.arange(10), 2))
    np.testing.assert_array_equal(train.images[:, 0, 0, 0], 20 * train.labels)
    assert test.images[:, 5, 5, 1].tolist() == [0, 1] * 10


def test_bad_class_folders_are_refused_by_name(tmp_path: Path) -> None:
    folder, spec = _class_folders(tmp_path), data.get("cifar10")
    odd = folder / "train/frog/0.png"
    Image.new("RGB", (31, 32)).save(odd)
    with pytest.raises(DataError, match=r"frog/0\.png has the shape \(32, 31, 3\)"):
        data.load(spec, folder)
    Image.new("RGB", (32, 32)).save(odd)
    odd.write_bytes(odd.read_bytes()[:60])
    with pytest.raises(DataError, match=r"frog/0\.png: "):
        data.load(spec, folder)
    for image in (folder / "train/cat").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"no images in .*cat"):
        data.load(spec, folder)
