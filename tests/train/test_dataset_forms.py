"""The official files as people have them: unpacked, renamed, in subfolders, in another version."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open

from simplenet.errors import DataError
from tests.train.conftest import idx_bytes, patterned
from train import cifar, data

PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _write_idx(folder: Path, names: tuple[str, ...] = PARTS, classes: int = 10) -> Path:
    """Write four files in MNIST's format, those with .gz in their names packed."""
    arrays = [*patterned(2 * classes, classes, seed=0), *patterned(classes, classes, seed=1)]
    for name, array in zip(names, arrays, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = idx_bytes(array)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def _train(output: Path, *flags: str) -> int:
    return cifar.main([*flags, "--output", str(output), "--epochs", "1", "--batch", "4", "--fp32", "--json"])


@pytest.mark.parametrize(
    "names",
    [
        PARTS,
        tuple(name.replace("-idx", ".idx") for name in PARTS),
        tuple(f"{name.replace('-idx', '.idx')}/{name.replace('-idx', '.idx')}" for name in PARTS),
        tuple(f"MNIST/raw/{name}" for name in PARTS),
        tuple(f"{folder}/{name}.gz" for folder, name in zip(("Train", "Train", "test", "test"), PARTS, strict=True)),
        tuple(name.upper().replace("T10K", "test") for name in PARTS),
        tuple(f"emnist-digits-{name.replace('t10k', 'test')}.gz" for name in PARTS),
    ],
    ids=["unpacked", "Kaggle", "Kaggle's folders", "torchvision", "folders of splits", "upper case", "EMNIST's digits"],
)
def test_reads_mnist_files_by_any_usual_name(
    names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _write_idx(tmp_path / "data", names)
    train, test = data.load(data.get("mnist"), folder)
    images, labels = patterned(20, 10, seed=0)
    expected = images.swapaxes(1, 2) if names[0].startswith("emnist") else images
    np.testing.assert_array_equal(train.images[..., 0], expected)
    np.testing.assert_array_equal(train.labels, labels)
    assert len(test) == 10
    assert _train(tmp_path / "run", "--dataset", "mnist", "--data", str(folder)) == 0
    assert json.loads(capsys.readouterr().out)["test_images"] == 10


def test_a_packed_name_may_hold_an_unpacked_file(tmp_path: Path) -> None:
    """Safari unpacks downloads, and keeps some of their names."""
    folder = _write_idx(tmp_path)
    for name in PARTS[:2]:
        (folder / name).rename(folder / f"{name}.gz")
    assert len(data.load(data.get("fashion-mnist"), folder)[0]) == 20


@pytest.mark.parametrize("prefix", ["emnist-balanced-", "emnist-bymerge-", ""])
def test_reads_emnists_47_classes_upright(prefix: str, tmp_path: Path) -> None:
    folder = _write_idx(tmp_path / "gzip", tuple(f"{prefix}{name}.gz" for name in PARTS), classes=47)
    if prefix:
        _write_idx(folder, tuple(f"emnist-letters-{name}" for name in PARTS), classes=26)
    assert _train(tmp_path / "run", "--dataset", "emnist-balanced", "--data", str(tmp_path)) == 0
    train, _ = data.load(data.get("emnist-balanced"), tmp_path)
    np.testing.assert_array_equal(train.images[..., 0].swapaxes(1, 2), patterned(94, 47, seed=0)[0])
    with safe_open(tmp_path / "run/cifar-310k.safetensors", "pt") as file:
        labels = json.loads(file.metadata()["simplenet"])["labels"]
    assert (labels[9], labels[10], labels[36], labels[46]) == ("9", "A", "a", "t")


def test_says_which_dataset_or_file_is_wrong(tmp_path: Path) -> None:
    def refusal(dataset: str, folder: Path | None) -> str:
        with pytest.raises(DataError) as caught:
            _train(tmp_path / "run", "--dataset", dataset, *(["--data", str(folder)] if folder else []))
        message = str(caught.value)
        assert "download it" not in message
        assert "\n" not in message
        return message

    plain = _write_idx(tmp_path / "plain", classes=47)
    assert "if the files are another dataset's, type --dataset emnist-balanced" in refusal("mnist", plain)
    letters = _write_idx(tmp_path / "letters", tuple(f"emnist-letters-{name}" for name in PARTS), classes=26)
    for dataset in ("mnist", "fashion-mnist", "emnist-balanced"):
        assert "has the files of emnist-letters, not of this dataset (" in refusal(dataset, letters)
    two = tmp_path / "two"
    _write_idx(two / "a"), _write_idx(two / "b")
    assert f"has several datasets; name the folder of one, such as --data {two / 'a'}" in refusal("mnist", two)
    (two / "a" / PARTS[3]).unlink()
    (two / "a/labels.csv").write_text("")
    assert "has no t10k-labels-idx1-ubyte (also as" in refusal("mnist", two / "a")
    assert "it has labels.csv, t10k-images-idx3-ubyte, train-images-idx3-ubyte" in refusal("mnist", two / "a")
    (two / "a/archive.zip").write_bytes(b"PK")
    assert "; unpack archive.zip, or name the folder" in refusal("mnist", two / "a")
    assert "; unpack archive.zip, or name the folder" in refusal("cifar100", two / "a")
    (two / "b" / PARTS[0]).rename(two / "b/x")
    (two / "b" / PARTS[1]).rename(two / "b" / PARTS[0])
    (two / "b/x").rename(two / "b" / PARTS[1])
    assert "train-images-idx3-ubyte has labels; swap the names" in refusal("mnist", two / "b")
    assert "unpack NIST's gzip.zip, and name its folder: --data DIR" in refusal("emnist-balanced", None)


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes bytes as Python 2 wrote its strings."""

    def _save_string(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, bytes: _save_string}  # type: ignore[attr-defined]


def _pickle(value: object) -> bytes:
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def _cifar_batch(labels_key: bytes, labels: list[int]) -> tuple[bytes, npt.NDArray[np.uint8]]:
    """A file of CIFAR's Python version, and its images [N, 32, 32, 3]."""
    planes = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3072)).astype(np.uint8)
    content = _pickle({b"batch_label": b"x", labels_key: labels, b"data": planes})
    return content, planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("place", ["cifar-10-batches-py", ".", "cifar-10-python.tar.gz", "cifar-10-python.tar"])
def test_reads_cifars_python_version(place: str, tmp_path: Path) -> None:
    batches = {f"data_batch_{n}": _cifar_batch(b"labels", [n] * n) for n in range(1, 6)}
    batches["test_batch"] = _cifar_batch(b"labels", [9, 0, 3])
    contents = {name: content for name, (content, _) in batches.items()}
    if ".tar" in place:
        _tar(tmp_path / place, {f"cifar-10-batches-py/{name}": content for name, content in contents.items()})
    for name, content in contents.items() if ".tar" not in place else ():
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / name).write_bytes(content)
    train, test = data.load(data.get("cifar10"), tmp_path)
    np.testing.assert_array_equal(train.images, np.concatenate([batches[f"data_batch_{n}"][1] for n in range(1, 6)]))
    assert train.labels.tolist() == [1, *[2] * 2, *[3] * 3, *[4] * 4, *[5] * 5]
    np.testing.assert_array_equal(test.images, batches["test_batch"][1])
    assert test.labels.tolist() == [9, 0, 3]


def test_reads_unpacked_cifar_100(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in (("train", 8), ("test", 5)):
        binary = b"".join(bytes((3, 90 + n)) + bytes([n]) * 3072 for n in range(count))
        python, _ = _cifar_batch(b"fine_labels", [*range(90, 90 + count)])
        for name, content in ((f"cifar-100-binary/{split}.bin", binary), (f"cifar-100-python/{split}", python)):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
    for version in ("binary", "python"):
        folder = tmp_path / f"cifar-100-{version}"
        assert data.load(data.get("cifar100"), folder)[0].labels.tolist() == list(range(90, 98))
        assert _train(tmp_path / version, "--dataset", "cifar100", "--data", str(folder)) == 0
        assert json.loads(capsys.readouterr().out)["test_images"] == 5


def test_a_hostile_pickle_is_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return (print, ("called",))

    (tmp_path / "test").write_bytes(_cifar_batch(b"fine_labels", [1])[0])
    good = _cifar_batch(b"fine_labels", [1, 2])[0]
    for content, reason in (
        (_pickle({b"data": Code(), b"fine_labels": [1]}), r"it names (__builtin__|builtins)\.print"),
        (good[:-2000], "is not a file of the Python version"),
        (good.replace(b"fine_labels", b"fine_lxxxxx"), "is not a file of the Python version"),
        (_pickle([1]), "is not a file of the Python version"),
        (b"data", "is not a file of the Python version"),
    ):
        (tmp_path / "train").write_bytes(content)
        with pytest.raises(DataError, match=rf"cannot read .*\(train .*{reason}"):
            data.load(data.get("cifar100"), tmp_path)
