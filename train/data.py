"""Datasets of small images: the table of their files, labels and preprocessing, and the loader.

The official files come from --data DIR, packed or unpacked, from the Debian package, or from a verified and cached
download. SIMPLENET_DATASETS_URL names a mirror for downloads. --data DIR may also hold class folders: train/<class>/*
and test/<class>/*.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from simplenet import download, image_folders, labels
from simplenet.datasets import LabeledImages
from simplenet.errors import DataError, WeightsError, check_choice
from simplenet.preprocessing import Preprocessing
from train import class_folders
from train.dataset_files import Split, read_cifar, read_mnist, read_svhn

URL_VARIABLE = "SIMPLENET_DATASETS_URL"
DEBIAN_FOLDER = Path("/usr/share/datasets")
FOLDER_SIDE = 32  # pixels, for --dataset folder

Splits = tuple[LabeledImages, LabeledImages]


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset's entry in the table.

    Args:
        labels: the names of the classes; empty for `--dataset folder`, which takes them from the folders' names.
        preprocessing: None for --dataset folder, where it is computed from the training images.
        allows_flip: whether a mirrored image keeps its class.
        files: name and SHA-256 of each file below `url`.
        read: a function that reads the training and test split from the folder with these files.
    """

    name: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing | None
    allows_flip: bool
    url: str = ""
    files: tuple[tuple[str, str], ...] = ()
    read: Callable[[Path], tuple[Split, Split]] | None = None
    debian_package: str = ""


def fingerprint(splits: Splits) -> str:
    """Return a hash of all pixels and labels: a run resumes only with the same images."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()[:16]


def get(name: str) -> DatasetSpec:
    """Look up a dataset; raises UsageError for an unknown name, as `check_choice`."""
    return DATASETS[check_choice("dataset", name, DATASETS)]


def load(spec: DatasetSpec, folder: Path | None = None) -> Splits:
    """Read the training and test split: RGB uint8 [N, H, W, 3].

    Args:
        folder: the official files or class folders; None uses the Debian package, else downloads to the cache.

    Raises:
        DataError: the files are missing, damaged or inconsistent, or cannot be downloaded.
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"there is no folder {folder}; name the dataset's folder: --data DIR")
    if folder is not None and (spec.read is None or image_folders.dataset_folders(folder)[1]):
        train_folder, test_folder = class_folders.train_and_test(folder)
        if test_folder is None:
            raise DataError(
                f"{folder} has no test images, as in val/<class>/*.jpg or test/<class>/*.jpg; add some, or type python "
                "train/imagefolder.py DIR, which holds out a part of the training images"
            )
        classes, side = spec.labels or class_folders.class_names(train_folder), None if spec.read else FOLDER_SIDE
        return class_folders.load(spec.name, folder, (train_folder, test_folder), classes, side)
    if spec.read is None:
        raise DataError(
            "--dataset folder needs a folder; name one with train/<class>/*.jpg and test/<class>/*.jpg: --data DIR"
        )
    if folder is None:
        package = DEBIAN_FOLDER / spec.name
        folder = package if spec.debian_package and package.is_dir() else _downloaded(spec)
    train, test = (
        LabeledImages(f"{spec.name} {name}", *split, spec.labels, split=name)
        for name, split in zip(("train", "test"), spec.read(folder), strict=True)
    )
    for split in (train, test):
        if split.labels.max() >= len(spec.labels):
            count = int(split.labels.max()) + 1
            others = [other.name for other in DATASETS.values() if len(other.labels) == count]
            if others:
                advice = f"type --dataset {others[0]}"
            else:
                advice = "sort their images into train/<class>/* and test/<class>/*, and type --dataset folder"
            raise DataError(
                f"{folder}: the labels of {split.name} go up to {count - 1}, those of {spec.name} only to "
                f"{len(spec.labels) - 1}; if the files are another dataset's, {advice}"
            )
    return train, test


def _downloaded(spec: DatasetSpec) -> Path:
    """Download the files that are not in the cache yet; return the cache folder."""
    if not spec.files:
        raise DataError(f"{spec.name} is not downloaded; unpack NIST's gzip.zip, and name its folder: --data DIR")
    base = download.base_url(URL_VARIABLE, spec.url)
    folder = download.cache_folder() / "datasets" / spec.name
    package = f"type sudo apt install {spec.debian_package}, or " if spec.debian_package else ""
    for name, sha256 in spec.files:
        try:
            download.fetch(base + name, folder / name, sha256, f"{package}name the folder that has it: --data DIR")
        except WeightsError as error:
            raise DataError(str(error)) from error
    return folder


def preprocessing(spec: DatasetSpec, train: LabeledImages) -> Preprocessing:
    """Return the dataset's preprocessing, or compute it from the training images if it has none."""
    if spec.preprocessing is not None:
        return spec.preprocessing
    side = train.images.shape[1]
    counts = np.stack([np.bincount(train.images[..., channel].ravel(), minlength=256) for channel in range(3)])
    shares, levels = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    means = shares @ levels
    deviations = np.sqrt(np.maximum(shares @ levels**2 - means**2, 1e-4))
    mean, std = ([round(float(value), 4) for value in values] for values in (means, deviations))
    return Preprocessing(side, side, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


def _known(name: str) -> dict[str, Any]:
    known = labels.known_dataset(name)
    return {"name": name, "labels": known.labels, "preprocessing": known.preprocessing}


DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            **_known("fashion-mnist"),
            allows_flip=True,
            url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            files=(
                ("train-images-idx3-ubyte.gz", "08dc20ab1689590a0bcd66e874647b6ee8464e2d501b5a3f1f78831db19a3fdc"),
                ("train-labels-idx1-ubyte.gz", "b0197879cbda89f3dc7b894f9fd52b858e68ea4182b6947c9d8c2b67e5f18dcc"),
                ("t10k-images-idx3-ubyte.gz", "78dcbbfb5a27efaf1b6c1d616caca68560be8766c5bffcb2791df9273a534229"),
                ("t10k-labels-idx1-ubyte.gz", "42bd18137a62d5998cdeae52bf3a0676ac6b706f5cf8439b47bb5b151ae3dccf"),
            ),
            read=read_mnist,
            debian_package="dataset-fashion-mnist",
        ),
        DatasetSpec(
            **_known("mnist"),
            allows_flip=False,
            url="https://ossci-datasets.s3.amazonaws.com/mnist/",
            files=(
                ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
                ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
            ),
            read=partial(read_mnist, prefixes=("", "emnist-mnist", "emnist-digits")),
        ),
        DatasetSpec(
            **_known("emnist-balanced"),
            allows_flip=False,
            read=partial(read_mnist, prefixes=("emnist-balanced", "emnist-bymerge", ""), is_emnist=True),
        ),
        DatasetSpec(
            **_known("cifar10"),
            allows_flip=True,
            url="https://www.cs.toronto.edu/~kriz/",
            files=(
                ("cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
            ),
            read=partial(
                read_cifar,
                archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
                train=tuple(f"data_batch_{number}" for number in range(1, 6)),
                test=("test_batch",),
                label_bytes=1,
            ),
        ),
        DatasetSpec(
            **_known("cifar100"),
            allows_flip=True,
            url="https://www.cs.toronto.edu/~kriz/",
            files=(
                ("cifar-100-binary.tar.gz", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
            ),
            read=partial(
                read_cifar,
                archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
                train=("train",),
                test=("test",),
                label_bytes=2,
            ),
        ),
        DatasetSpec(
            **_known("svhn"),
            allows_flip=False,
            url="http://ufldl.stanford.edu/housenumbers/",
            files=(
                ("train_32x32.mat", "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
                ("test_32x32.mat", "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
            ),
            read=lambda folder: (read_svhn(folder / "train_32x32.mat"), read_svhn(folder / "test_32x32.mat")),
        ),
        DatasetSpec(name="folder", labels=(), preprocessing=None, allows_flip=True),
    )
}  # fmt: skip
"""Datasets by name. The SHA-256 are those that TensorFlow Datasets and others publish. The downloads were not tried."""
