"""The shipped images: content, origin and damaged files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simplenet import datasets
from simplenet.errors import DataError, UsageError


@pytest.mark.parametrize(("split", "count"), [("evaluation", 2000), ("calibration", 500)])
@pytest.mark.parametrize("name", datasets.names())
def test_the_shipped_images(name: str, split: datasets.Split, count: int) -> None:
    images = datasets.shipped(name, split)
    assert len(images) == count
    assert images.images.dtype == np.uint8
    assert images.images.shape[3] == 3
    assert images.labels.dtype == np.int64
    assert np.bincount(images.labels).tolist() == [count // 10] * 10
    assert images.images.std() > 40


def test_fashion_mnist_is_shipped() -> None:
    assert "fashion-mnist" in datasets.names()


@pytest.mark.parametrize(("split", "prefix"), [("evaluation", "t10k"), ("calibration", "train")])
def test_shipped_images_are_those_of_the_public_data_set(split: datasets.Split, prefix: str) -> None:
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    from train import data

    original = data.read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
    labels = data.read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
    truth = {image.tobytes(): label for image, label in zip(original, labels, strict=True)}
    shipped = datasets.shipped("fashion-mnist", split)
    assert [truth[image[..., 0].tobytes()] for image in shipped.images] == shipped.labels.tolist()


@pytest.mark.parametrize("name", ["fashion_mnist", "../fashion-mnist", "", ".", "/etc"])
def test_an_unknown_name_lists_the_choices(name: str) -> None:
    with pytest.raises(UsageError, match=r"choose from: .*fashion-mnist"):
        datasets.shipped(name, "evaluation")


def _savez(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_damaged_files_are_data_errors(tmp_path: Path) -> None:
    images, labels, classes = np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.uint8), np.array(["a", "b"])
    good = _savez(tmp_path / "good.npz", images=images, labels=labels, classes=classes)
    assert datasets.load(good).images.shape == (3, 4, 4, 3)
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(good.read_bytes()[:-40])
    flipped = tmp_path / "flipped.npz"
    flipped.write_bytes(good.read_bytes().replace(bytes(48), b"\x01" + bytes(47)))
    packed = datasets.SHIPPED / "fashion-mnist/calibration.npz"
    middle = packed.stat().st_size // 2
    garbled = tmp_path / "garbled.npz"
    garbled.write_bytes(packed.read_bytes()[:middle] + bytes(9) + packed.read_bytes()[middle + 9 :])
    plain = tmp_path / "plain.npz"
    with plain.open("wb") as file:
        np.save(file, images)
    bad = [
        tmp_path / "missing.npz",
        truncated,
        flipped,
        garbled,
        plain,
        _savez(tmp_path / "no_labels.npz", images=images, classes=classes),
        _savez(tmp_path / "no_classes.npz", images=images, labels=labels),
        _savez(tmp_path / "numbered.npz", images=images, labels=labels, classes=labels),
        _savez(tmp_path / "pickled.npz", images=np.array([{}] * 3, object), labels=labels, classes=classes),
        _savez(tmp_path / "float.npz", images=images.astype(np.float32), labels=labels, classes=classes),
        _savez(tmp_path / "count.npz", images=images, labels=labels[:2], classes=classes),
        _savez(tmp_path / "shape.npz", images=images[0], labels=labels[:2], classes=classes),
    ]
    for path in bad:
        with pytest.raises(DataError, match=path.name) as caught:
            datasets.load(path)
        assert "\n" not in str(caught.value)


def test_an_incomplete_shipped_folder_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fashion-mnist").mkdir()
    monkeypatch.setattr(datasets, "SHIPPED", tmp_path)
    assert datasets.names() == ()
    with pytest.raises(DataError, match="install simplenet again"):
        datasets.shipped("fashion-mnist", "evaluation")


def test_import_loads_neither_torch_nor_pillow() -> None:
    code = "import sys, json, simplenet.datasets; print(json.dumps(sorted(sys.modules)))"
    root = Path(datasets.__file__).parent.parent
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
    assert not {"torch", "PIL", "cv2", "rich"} & set(json.loads(output))
