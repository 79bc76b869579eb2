"""Folders with one subfolder of images per class: list the files with labels, split or read them."""

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

from simplenet import image_folders, images
from simplenet.datasets import LabeledImages
from simplenet.errors import DataError, ImageError, SimpleNetWarning, one_line
from simplenet.labels import class_lookup
from simplenet.preprocessing import Preprocessing, UInt8Array, to_model_input
from train.recipe import RngStream, seed_for


@dataclass(frozen=True)
class LabeledFiles:
    """Image files and their labels, int64 [N]."""

    paths: Sequence[Path]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, mask: npt.NDArray[np.bool_]) -> LabeledFiles:
        """Return the files where `mask`, bool [N], is True."""
        return LabeledFiles([self.paths[index] for index in np.flatnonzero(mask).tolist()], self.labels[mask])

    def fingerprint(self, folder: Path) -> str:
        """Return a hash of names, sizes, order and labels: a run resumes only with the same files."""
        listing = "\n".join(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}" for path in self.paths)
        digest = hashlib.sha256(listing.encode("utf-8", "surrogateescape"))
        digest.update(self.labels.data)
        return digest.hexdigest()[:16]


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the subfolders, sorted.

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
    """Return all images in `folder`/<class>/, ordered by class and name.

    A folder's name may differ from the class's name in case and punctuation, as `labels.class_lookup` allows.

    Raises:
        DataError: a class has no images, or a folder matches no class or the same class as another folder.
    """
    lookup = class_lookup(classes)
    folder_of: dict[str, Path] = {}
    for name in class_names(folder):
        indices = lookup(name)
        if len(indices) != 1:
            raise DataError(f"{folder / name} is none of the {len(classes)} classes; rename or remove it")
        label = classes[indices[0]]
        if label in folder_of:
            raise DataError(f"{folder / name} and {folder_of[label]} are both class {label!r}; merge them")
        folder_of[label] = folder / name
    if missing := [name for name in classes if name not in folder_of]:
        raise DataError(f"{folder} has no folder for the class {missing[0]!r}; every class needs a folder of images")
    per_class = [image_folders.list_folder(folder_of[name]).images for name in classes]
    if empty := [folder_of[name] for name, paths in zip(classes, per_class, strict=True) if not paths]:
        raise DataError(f"no images in {empty[0]}; add some, or remove the folder from both training and test images")
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(paths) for paths in per_class])
    return LabeledFiles([path for paths in per_class for path in paths], labels)


def split(folder: Path, validation_share: float, seed: int) -> tuple[tuple[str, ...], LabeledFiles, LabeledFiles]:
    """Return the classes, the training files and the test files of a folder.

    The test files are those in val/ or test/, beside train/. If there is no train/, they are a random part of each
    class, `validation_share` of its images, drawn with `seed`.

    Raises:
        DataError: there is no such folder, or it has fewer than two classes, or a class has too few images.
    """
    if (folder / "train").is_dir():
        test = image_folders.evaluation_folder(folder, ("val", "test"))
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
        side: resize and crop each image to a square with this side in pixels, as a runtime does. None: keep the
            images' size, which must be the same for all.

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
        warnings.warn(text, SimpleNetWarning, stacklevel=2)
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
