"""The shipped subsets: from the right split, balanced, reproducible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simplenet import datasets
from simplenet.errors import DataError
from train import data, make_shipped_subsets


def test_subsets_are_balanced_and_reproducible(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    folder = write_idx_set(tmp_path / "data", train=700, test=2300, classes=10)
    first = make_shipped_subsets.make_subsets("fashion-mnist", tmp_path / "a", folder)
    again = make_shipped_subsets.make_subsets("fashion-mnist", tmp_path / "b", folder)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]

    train, test = data.load(data.get("fashion-mnist"), folder)
    for path, split, count in zip(first, (test, train), (2000, 500), strict=True):
        chosen = datasets.load(path)
        assert np.bincount(chosen.labels).tolist() == [count // 10] * 10
        labels = {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
        found = [labels.pop(image.tobytes()) for image in chosen.images]  # pop: no image twice
        assert found == chosen.labels.tolist()


def test_refuses_a_dataset_that_is_too_small(tmp_path: Path, write_idx_set: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="cannot give 2000 images"):
        make_shipped_subsets.make_subsets(
            "fashion-mnist", tmp_path, write_idx_set(tmp_path / "data", train=700, test=1990, classes=10)
        )
    assert not list(tmp_path.glob("*.npz"))


def test_class_names_come_from_the_folders(tmp_path: Path) -> None:
    for split, count in (("train", 250), ("test", 1000)):
        for index, name in enumerate(("ash", "elm")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (32, 32), (100 * index, number % 256, number // 256))
                image.save(tmp_path / split / name / f"{number}.png")
    evaluation, calibration = (
        datasets.load(path) for path in make_shipped_subsets.make_subsets("folder", tmp_path / "out", tmp_path)
    )
    assert evaluation.classes == calibration.classes == ("ash", "elm")
    assert np.bincount(evaluation.labels).tolist() == [1000, 1000]
    assert np.bincount(calibration.labels).tolist() == [250, 250]
