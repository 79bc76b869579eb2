"""A folder for each class: which images there are, and, where all fit in memory, their pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simplenet import images
from simplenet.datasets import LabeledImages
from simplenet.errors import DataError, ImageError, SimpleNetWarning, one_line
from simplenet.preprocessing import Preprocessing, to_model_input

UInt8Array = npt.NDArray[np.uint8]


class UnreadableImagesWarning(SimpleNetWarning):
    """Some images of a data set could not be read; the others are used."""


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, sorted.

    Raises:
        DataError: it cannot be read, has fewer than two folders, or one whose name no label can be.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read {folder} ({one_line(error)}); each class needs a folder in it") from error
    if len(names) < 2:
        raise DataError(f"{folder} has {len(names)} folders of classes; it needs two or more")
    if bad := [name for name in names if not name.isprintable()]:
        raise DataError(f"the class folder {one_line(repr(bad[0]), 80)} has a name that cannot be shown; rename it")
    return tuple(names)


def files_of_class(folder: Path) -> list[Path]:
    """Its images, sorted, hidden files left out; raises DataError where there is none."""
    try:
        paths = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in images.SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise DataError(f"cannot read {folder} ({one_line(error)}); every class needs a folder of images") from error
    if not paths:
        raise DataError(f"no images in {folder}; put some there, or remove the folder in training and test alike")
    return paths


def labeled_files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], npt.NDArray[np.int64]]:
    """Every image below `folder`/<class>, in the order of the classes and names, and its class.

    A folder is named as its class, or nearly so, as `images.class_lookup` has it.

    Raises:
        DataError: a class without images, or a folder that is none of the classes or another one's twin.
    """
    classes_named = images.class_lookup(classes)
    folder_of: dict[str, Path] = {}
    for name in class_names(folder):
        indices = classes_named(name)
        if len(indices) != 1:
            raise DataError(f"{folder / name} is none of the {len(classes)} classes; rename or remove it")
        label = classes[indices[0]]
        if label in folder_of:
            raise DataError(f"{folder / name} and {folder_of[label]} are one class, {label!r}; make them one")
        folder_of[label] = folder / name
    if lost := [name for name in classes if name not in folder_of]:
        raise DataError(f"{folder} has no folder for the class {lost[0]!r}; every class needs a folder of images")
    per_class = [files_of_class(folder_of[name]) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(paths) for paths in per_class])
    return [path for paths in per_class for path in paths], labels


def load(name: str, folder: Path, classes: tuple[str, ...], side: int | None) -> LabeledImages:
    """All of them as RGB uint8 [N, H, W, 3]; those that cannot be read are left out with a warning.

    Args:
        side: pixels, of the squares that pictures of any size are cut to as a runtime does it; None where all have one
            size and keep it.

    Raises:
        DataError: as `labeled_files`; sizes that differ; or a class of which nothing can be read.
    """
    paths, labels = labeled_files(folder, classes)
    unreadable: list[str] = []
    with ThreadPoolExecutor() as pool:
        pixels = list(pool.map(_reader(side, unreadable), paths))
    kept = [index for index, image in enumerate(pixels) if image is not None]
    if unreadable:
        text = f"{len(unreadable)} of {len(paths)} images in {folder} are left out; the first: {min(unreadable)}"
        warnings.warn(text, UnreadableImagesWarning, stacklevel=2)
    if lost := sorted(set(range(len(classes))) - set(labels[kept].tolist())):
        raise DataError(f"no image in {folder / classes[lost[0]]} can be read; the first reason: {min(unreadable)}")
    readable = [image for image in pixels if image is not None]
    for index, image in zip(kept, readable, strict=True):
        if image.shape != readable[0].shape:
            raise DataError(
                f"{paths[index]} has the shape {image.shape}, others {readable[0].shape}; make all of one size, "
                "or take --dataset folder"
            )
    return LabeledImages(name, np.stack(readable), labels[kept], classes, left_out=len(unreadable))


def _reader(side: int | None, unreadable: list[str]) -> Callable[[Path], UInt8Array | None]:
    def read(path: Path) -> UInt8Array | None:
        try:
            pixels = images.read_rgb(path)
            if side is None:
                return pixels
            return to_model_input(pixels, Preprocessing(side, side, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
        except ImageError as error:
            unreadable.append(str(error))
            return None

    return read
