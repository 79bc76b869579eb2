"""Image folders with one subfolder per class: their files and labels, and reading all into memory."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simplenet import images
from simplenet.datasets import LabeledImages
from simplenet.errors import DataError, ImageError, SimpleNetWarning, one_line
from simplenet.files import error_message
from simplenet.labels import class_lookup
from simplenet.preprocessing import Preprocessing, to_model_input
from train.recipe import RngStream, seed_for

UInt8Array = npt.NDArray[np.uint8]


class UnreadableImagesWarning(SimpleNetWarning):
    """Some images of a dataset cannot be read; the others are used."""


@dataclass(frozen=True)
class LabeledFiles:
    """Image files and their labels, int64 [N]."""

    paths: Sequence[Path]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, mask: npt.NDArray[np.bool_]) -> LabeledFiles:
        """The files where bool [N] `mask` is True."""
        return LabeledFiles([self.paths[index] for index in np.flatnonzero(mask).tolist()], self.labels[mask])

    def fingerprint(self, folder: Path) -> str:
        """Hash of the names below `folder`, sizes, order and labels: a run resumes only with the same files.

        Raises:
            DataError: a file has disappeared.
        """
        try:
            sizes = [path.stat().st_size for path in self.paths]
        except OSError as error:
            raise DataError(
                f"cannot read {folder}: {error_message(error)}; do not change it during training"
            ) from error
        names = (path.relative_to(folder).as_posix() for path in self.paths)
        listing = "\n".join(f"{name}\0{size}" for name, size in zip(names, sizes, strict=True))
        digest = hashlib.sha256(listing.encode("utf-8", "surrogateescape"))
        digest.update(self.labels.data)
        return digest.hexdigest()[:16]


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the subfolders, sorted.

    Raises:
        DataError: the folder cannot be read, has fewer than two subfolders, or one with an unprintable name.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read {folder} ({one_line(error)}); each class needs a folder in it") from error
    if len(names) < 2:
        raise DataError(f"{folder} has {len(names)} folders of classes; it needs two or more")
    if bad := [name for name in names if not name.isprintable()]:
        raise DataError(f"the class folder {one_line(repr(bad[0]), 80)} has an unprintable name; rename it")
    return tuple(names)


def labeled_files(folder: Path, classes: Sequence[str]) -> LabeledFiles:
    """All images in `folder`/<class>/, ordered by class and name.

    A folder's name may differ from the class in case and punctuation, as `labels.class_lookup` allows.

    Raises:
        DataError: a class has no images, or a folder matches no class or the same class as another folder.
    """
    classes_named = class_lookup(classes)
    folder_of: dict[str, Path] = {}
    for name in class_names(folder):
        indices = classes_named(name)
        if len(indices) != 1:
            raise DataError(f"{folder / name} is none of the {len(classes)} classes; rename or remove it")
        label = classes[indices[0]]
        if label in folder_of:
            raise DataError(f"{folder / name} and {folder_of[label]} are both class {label!r}; merge them")
        folder_of[label] = folder / name
    if missing := [name for name in classes if name not in folder_of]:
        raise DataError(f"{folder} has no folder for the class {missing[0]!r}; every class needs a folder of images")
    per_class = [_images_in(folder_of[name]) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(paths) for paths in per_class])
    return LabeledFiles([path for paths in per_class for path in paths], labels)


def _images_in(folder: Path) -> list[Path]:
    """The images, sorted, without hidden files; raises DataError if there are none."""
    try:
        paths = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in images.SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise DataError(f"cannot read {folder} ({one_line(error)}); every class needs a folder of images") from error
    if not paths:
        raise DataError(f"no images in {folder}; add some, or remove the folder from both training and test images")
    return paths


def split(folder: Path, validation_share: float, seed: int) -> tuple[tuple[str, ...], LabeledFiles, LabeledFiles]:
    """The classes, the training files and the test files of a folder.

    The test files are those in val/ or test/ beside train/. Without train/, `validation_share` of each class, drawn
    with `seed`.

    Raises:
        DataError: there is no such folder, or it has fewer than two classes, or a class has too few images.
    """
    if (folder / "train").is_dir():
        test = images.evaluation_folder(folder, ("val", "test"))
        classes = class_names(folder / "train")
        return classes, labeled_files(folder / "train", classes), labeled_files(test, classes)
    classes = class_names(folder)
    files = labeled_files(folder, classes)
    held_out = np.zeros(len(files), bool)
    for index, name in enumerate(classes):
        members = np.flatnonzero(files.labels == index)
        if len(members) < 2:
            raise DataError(f"{folder / name} has one image; validation needs another, so add some")
        count = min(max(1, round(validation_share * len(members))), len(members) - 1)
        generator = np.random.default_rng(seed_for(seed, RngStream.SPLIT, index))
        held_out[generator.choice(members, count, replace=False)] = True
    return classes, files.select(~held_out), files.select(held_out)


def load(name: str, folder: Path, classes: tuple[str, ...], side: int | None) -> LabeledImages:
    """Read all images as RGB uint8 [N, H, W, 3]; leave out unreadable ones with a warning.

    Args:
        side: resize and crop to squares of this many pixels, as a runtime does; None: all images have the same size.

    Raises:
        DataError: as `labeled_files`; or the sizes differ; or no image of a class can be read.
    """
    files = labeled_files(folder, classes)
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(functools.partial(_read, side=side), files.paths))
    unreadable = [str(result) for result in results if isinstance(result, ImageError)]
    readable = [(index, result) for index, result in enumerate(results) if not isinstance(result, ImageError)]
    if unreadable:
        text = f"{len(unreadable)} of {len(files)} images in {folder} are left out; the first: {min(unreadable)}"
        warnings.warn(text, UnreadableImagesWarning, stacklevel=2)
    labels = files.labels[[index for index, _ in readable]]
    if empty := sorted(set(range(len(classes))) - set(labels.tolist())):
        raise DataError(f"no image in {folder / classes[empty[0]]} can be read; the first reason: {min(unreadable)}")
    shape = readable[0][1].shape
    for index, pixels in readable:
        if pixels.shape != shape:
            raise DataError(
                f"{files.paths[index]} has the shape {pixels.shape}, others {shape}; make all of one size, "
                "or use --dataset folder"
            )
    return LabeledImages(name, np.stack([pixels for _, pixels in readable]), labels, classes, len(unreadable))


def _read(path: Path, side: int | None) -> UInt8Array | ImageError:
    try:
        pixels = images.read_rgb(path)
        if side is None:
            return pixels
        return to_model_input(pixels, Preprocessing(side, side, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    except ImageError as error:
        return error
