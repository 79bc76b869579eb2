"""Datasets by name: on disk or downloaded from a local server, with one-line errors."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simplenet.errors import DataError, UsageError
from simplenet.preprocessing import CIFAR100_PREPROCESSING
from train import data

FASHION = data.get("fashion-mnist")


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
    with pytest.raises(
        DataError,
        match=r"labels of fashion-mnist train go up to 10, those of fashion-mnist only to 9; .* --dataset folder",
    ):
        data.load(FASHION, write_idx_set(tmp_path, train=22, test=5, classes=11))


def test_missing_dataset_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere; name the dataset's folder: --data DIR"):
        data.load(FASHION, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte \(also as .*\); it is empty; name the folder"):
        data.load(FASHION, tmp_path)
    with pytest.raises(
        DataError, match=r"neither cifar-10-binary\.tar\.gz nor cifar-10-python\.tar\.gz nor the unpacked data_batch_1"
    ):
        data.load(data.get("cifar10"), tmp_path)
    with pytest.raises(
        DataError, match=r"has no test images, as in val/<class>/\*.jpg or test/<class>/\*.jpg; add some"
    ):
        data.load(data.get("folder"), tmp_path)
    with pytest.raises(DataError, match="name one with train/<class>"):
        data.load(data.get("folder"))
    with pytest.raises(UsageError, match="did you mean 'fashion-mnist'"):
        data.get("fashion_mnist")


def _cifar_tar(path: Path, members: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path.read_bytes()


def _record(*labels: int, red: int = 0) -> bytes:
    return bytes(labels) + bytes([red]) * 1024 + bytes(2048)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served on this machine; datasets are downloaded from it into an empty cache."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("SIMPLENET_DATASETS_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("SIMPLENET_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield folder
        server.shutdown()
        thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _expecting(spec: data.DatasetSpec, **contents: bytes) -> data.DatasetSpec:
    files = tuple((name, hashlib.sha256(contents[name]).hexdigest()) for name, _ in spec.files)
    return dataclasses.replace(spec, files=files)


def test_cifar_is_downloaded_once_checked_and_read(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar10 = _cifar_tar(
        server / "cifar-10-binary.tar.gz",
        {f"d/data_batch_{n}.bin": _record(n, red=n) for n in range(1, 6)} | {"d/test_batch.bin": _record(9) * 2},
    )
    spec = _expecting(data.get("cifar10"), **{"cifar-10-binary.tar.gz": tar10})
    train, test = data.load(spec)
    assert train.labels.tolist() == [1, 2, 3, 4, 5] == train.images[:, 7, 7, 0].tolist()
    assert (len(test), test.classes[9]) == (2, "truck")
    monkeypatch.setenv("SIMPLENET_DATASETS_URL", "https://nowhere.invalid")
    assert len(data.load(spec)[0]) == 5  # from the cache
    assert len(data.load(data.get("cifar10"), tmp_path / "cache/datasets/cifar10")[0]) == 5  # or named


def test_cifar_100_has_fine_labels(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = _cifar_tar(
        server / "cifar-100-binary.tar.gz",
        {"d/train.bin": _record(3, 42), "d/test.bin": _record(7, 99)},
    )
    monkeypatch.setitem(data.DATASETS, "cifar100", _expecting(data.get("cifar100"), **{"cifar-100-binary.tar.gz": tar}))
    train, test = data.load(data.get("cifar100"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([42], [99])
    assert (len(train.classes), train.classes[42], test.classes[99]) == (100, "leopard", "worm")
    assert data.preprocessing(data.get("cifar100"), train) == CIFAR100_PREPROCESSING


def test_svhn_is_downloaded_and_read(server: Path) -> None:
    matlab = pytest.importorskip("scipy.io")
    contents = {}
    for split, count in (("train", 3), ("test", 2)):
        name = f"{split}_32x32.mat"
        matlab.savemat(server / name, {"X": np.zeros((32, 32, 3, count), np.uint8), "y": np.full((count, 1), 10)})
        contents[name] = (server / name).read_bytes()
    train, test = data.load(_expecting(data.get("svhn"), **contents))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 0], [0, 0])


def test_another_file_than_the_official_one_is_kept_aside(
    server: Path, tmp_path: Path, write_idx_set: Callable[..., Path]
) -> None:
    write_idx_set(server, train=4, test=4)
    with pytest.raises(DataError, match=r"should begin with 440fcabf.* kept aside as .*\.rejected; name the folder"):
        data.load(data.get("mnist"))
    assert not (tmp_path / "cache/datasets/mnist/train-images-idx3-ubyte.gz").exists()


def test_no_network_says_what_to_type(server: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "no such folder")
    with pytest.raises(DataError, match=r"cannot download .* or type sudo apt install dataset-fashion-mnist, or name"):
        data.load(FASHION)
    monkeypatch.setenv("SIMPLENET_DATASETS_URL", "file:///etc")
    with pytest.raises(UsageError, match="SIMPLENET_DATASETS_URL: name the http or https address"):
        data.load(data.get("mnist"))


def test_every_official_file_has_a_whole_checksum() -> None:
    for spec in data.DATASETS.values():
        assert all(len(sha256) == 64 and int(sha256, 16) for _, sha256 in spec.files)
        assert bool(spec.files) == bool(spec.url) == (spec.name not in ("folder", "emnist-balanced"))
        assert bool(spec.read) == (spec.name != "folder")


def test_any_class_folder_is_a_dataset(tmp_path: Path) -> None:
    """Images become 32x32; mean and standard deviation come from the training images."""
    for split, level in (("train", 100), ("test", 200)):
        for name, size in (("oak", (48, 40)), ("ash tree", (32, 32)), ("elm", (20, 64))):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", size, (level, 51, 0)).save(tmp_path / split / name / "1.png")
    train, test = data.load(data.get("folder"), tmp_path)
    assert train.classes == ("ash tree", "elm", "oak") == test.classes
    assert train.images.shape == (3, 32, 32, 3)
    assert train.labels.tolist() == [0, 1, 2]
    spec = data.preprocessing(data.get("folder"), train)
    assert spec.mean == (round(100 / 255, 4), 0.2, 0.0)
    assert spec.std == (0.01, 0.01, 0.01)
    assert spec.input_size == 32
