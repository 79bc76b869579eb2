"""Small-image data sets: reading them from disk into one uint8 array per split.

Two forms are read: the MNIST family's four gzipped IDX files, and folders of images, `train/<class>/*` and
`test/<class>/*`. Files are hostile until checked: sizes are bounded before memory is asked for.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from simplenet import images as pictures
from simplenet.datasets import LabelledImages
from simplenet.errors import DataError, ImageError, UsageError, one_line
from simplenet.preprocessing import CIFAR10_PREPROCESSING, Preprocessing, to_model_input
from simplenet.variants import nearest

UInt8Array = npt.NDArray[np.uint8]
MAX_BYTES = 1 << 30  # of one decompressed file; the largest of the family, EMNIST, has 0.55e9
FOLDER_SIDE = 32  # pixels, of the images of --dataset folder


@dataclass(frozen=True)
class DatasetSpec:
    """What training must know of a data set. `mirrored` says whether a mirror image still shows the same class.

    `folders` is where the files are looked for when no folder is given; `install` says how to get them.
    """

    name: str
    form: Literal["idx", "folders"]
    labels: tuple[str, ...]
    """Empty where the folders' names are the classes."""
    preprocessing: Preprocessing | None
    """None where the training images' own mean and deviation are taken."""
    mirrored: bool
    install: str
    folders: tuple[Path, ...] = ()


def _grey28(mean: float, std: float) -> Preprocessing:
    """28x28 grey, repeated to RGB and padded with black to the 32x32 of the CIFAR variants: no pixel is invented."""
    return Preprocessing(28, 28, mean=(mean,) * 3, std=(std,) * 3, padding=2)


DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="fashion-mnist",
            form="idx",
            labels=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            preprocessing=_grey28(0.2860, 0.3530),
            mirrored=True,
            install="sudo apt install dataset-fashion-mnist",
            folders=(Path("/usr/share/datasets/fashion-mnist"),),
        ),
        DatasetSpec(
            name="mnist",
            form="idx",
            labels=tuple("0123456789"),
            preprocessing=_grey28(0.1307, 0.3081),
            mirrored=False,
            install="name the folder of its four .gz files: --data DIR",
        ),
        DatasetSpec(
            name="cifar10",
            form="folders",
            labels=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            preprocessing=CIFAR10_PREPROCESSING,
            mirrored=True,
            install="name a folder of train/<class>/ and test/<class>/ images: --data DIR",
        ),
        DatasetSpec(
            name="folder",
            form="folders",
            labels=(),
            preprocessing=None,
            mirrored=True,
            install="name a folder of train/<class>/ and test/<class>/ images: --data DIR",
        ),
    )
}  # fmt: skip


def get(name: str) -> DatasetSpec:
    """Raises UsageError for an unknown name; the message lists the choices and the nearest one."""
    if name in DATASETS:
        return DATASETS[name]
    raise UsageError(f"unknown data set {name!r}{nearest(name, DATASETS)}; choose from: {', '.join(DATASETS)}")


def load(spec: DatasetSpec, folder: Path | None = None) -> tuple[LabelledImages, LabelledImages]:
    """The whole training and test splits, as they are on disk: RGB uint8 [N, H, W, 3].

    `folder` None looks in the folders where the data set's package puts it.

    Raises:
        DataError: the files are not there, damaged, or do not fit together.
    """
    candidates = (folder,) if folder is not None else spec.folders
    folder = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if folder is None:
        where = " or ".join(map(str, candidates)) or "any usual folder"
        raise DataError(f"{spec.name} is not in {where}; get it: {spec.install}, or name its folder: --data DIR")
    if spec.form == "idx":
        return _idx_split(spec, folder, "train"), _idx_split(spec, folder, "t10k")
    return _folder_splits(spec, folder)


def _idx_split(spec: DatasetSpec, folder: Path, prefix: str) -> LabelledImages:
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
    if len(images) != len(labels):
        raise DataError(f"{folder}: {len(images)} {prefix} images but {len(labels)} labels; download the files again")
    if labels.max() >= len(spec.labels):
        raise DataError(
            f"{folder}: a {prefix} label is {labels.max()}, {spec.name} has classes 0 to {len(spec.labels) - 1}"
        )
    return LabelledImages(
        f"{spec.name} {prefix}", np.repeat(images[..., None], 3, axis=3), labels.astype(np.int64), spec.labels
    )


def read_idx(path: Path, dimensions: int) -> UInt8Array:
    """A gzipped IDX file of unsigned bytes with that many dimensions, first axis the samples; never empty.

    Raises:
        DataError: not there, not gzip, another type or shape, truncated, or with bytes left over.
    """
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) != 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
                raise DataError(f"{path} is not an IDX file of bytes with {dimensions} dimensions; download it again")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = int(np.prod(shape, dtype=object))
            if not 0 < size <= MAX_BYTES:
                raise DataError(f"{path} claims the impossible shape {list(shape)}; download it again")
            content = file.read(size)
            if len(content) != size or file.read(1):
                raise DataError(f"{path} is shorter or longer than its shape {list(shape)} says; download it again")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({one_line(error)}); download it again") from error
    return np.frombuffer(content, np.uint8).reshape(shape)


@dataclass(frozen=True)
class Described:
    """A data set as training wants it: `labels` and `preprocessing` are known, whoever knew them."""

    labels: tuple[str, ...]
    preprocessing: Preprocessing
    mirrored: bool


def read(name: str, folder: Path | None = None) -> tuple[Described, tuple[LabelledImages, LabelledImages]]:
    """The training and test splits, and what is known of them; raises as `get` and `load` do."""
    spec = get(name)
    splits = load(spec, folder)
    preprocessing = spec.preprocessing or _measured(splits[0])
    return Described(splits[0].classes, preprocessing, spec.mirrored), splits


def _measured(train: LabelledImages) -> Preprocessing:
    """Of the size that the images have, and by their own mean and deviation."""
    scaled = train.images.reshape(-1, 3).astype(np.float32) / 255
    mean, std = (tuple(round(float(value), 4) for value in values) for values in (scaled.mean(0), scaled.std(0)))
    std = tuple(max(value, 0.01) for value in std)
    side = train.images.shape[1]
    return Preprocessing(side, side, mean=mean, std=std)  # type: ignore[arg-type]


def _folder_splits(spec: DatasetSpec, folder: Path) -> tuple[LabelledImages, LabelledImages]:
    """Every image below one folder per class, in the order of the classes and of the file names.

    Those of a named data set have one size, others are cut to a square as a runtime would do it.
    """
    classes = spec.labels or _class_folders(folder / "train")
    if not spec.labels and (others := set(_class_folders(folder / "test")) ^ set(classes)):
        raise DataError(
            f"{folder / 'train'} and {folder / 'test'} differ in the class {min(others)!r}; make them equal"
        )
    return _folder_split(spec, folder / "train", classes), _folder_split(spec, folder / "test", classes)


def _class_folders(folder: Path) -> tuple[str, ...]:
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read {folder} ({one_line(error)}); name its parent: --data DIR") from error
    if len(names) < 2:
        raise DataError(f"{folder} has {len(names)} folders of classes; it needs two or more")
    return tuple(names)


def _folder_split(spec: DatasetSpec, folder: Path, classes: tuple[str, ...]) -> LabelledImages:
    paths: list[Path] = []
    labels: list[int] = []
    for index, label in enumerate(classes):
        class_folder = folder / label
        found = sorted(path for path in class_folder.glob("*") if path.suffix.lower() in pictures.SUFFIXES)
        if not found:
            raise DataError(
                f"no images in {class_folder}; {spec.name} needs train/<class>/*.jpg and test/<class>/*.jpg "
                f"for the classes {one_line(', '.join(classes))}"
            )
        paths += found
        labels += [index] * len(found)
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(_read_image if spec.labels else _read_square, paths))
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise DataError(f"{path} has the shape {image.shape}, others {images[0].shape}; make all of one size")
    return LabelledImages(f"{spec.name} {folder.name}", np.stack(images), np.asarray(labels, np.int64), classes)


def _read_square(path: Path) -> UInt8Array:
    geometry = Preprocessing(FOLDER_SIDE, FOLDER_SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
    return to_model_input(_read_image(path), geometry)


def _read_image(path: Path) -> UInt8Array:
    """RGB uint8 [H, W, 3]."""
    try:
        return pictures.read_rgb(path)
    except ImageError as error:
        raise DataError(str(error)) from error
