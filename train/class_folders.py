"""Folders with one subfolder of images per class: list the files with labels, split or read them."""

from __future__ import annotations

import functools
import hashlib
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simplenet import cli, image_folders, images
from simplenet.datasets import LabeledImages
from simplenet.errors import DataError, ImageError, SimpleNetWarning, one_line
from simplenet.labels import class_lookup
from simplenet.preprocessing import Preprocessing, UInt8Array, to_model_input
from train.recipe import RngStream, seed_for


@dataclass(frozen=True)
class LabeledFiles:
    """Image files and their labels, int64 [N]; `name` is that of their split."""

    paths: Sequence[Path]
    labels: npt.NDArray[np.int64]
    name: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, mask: npt.NDArray[np.bool_], name: str) -> LabeledFiles:
        """Return the files where `mask`, bool [N], is True."""
        return LabeledFiles([self.paths[index] for index in np.flatnonzero(mask).tolist()], self.labels[mask], name)

    def check_classes(self, kind: str) -> None:
        """Check that one image of each class can be read; `kind` is what the message calls the images.

        Raises:
            DataError: no image of a class can be read.
        """
        of_class: dict[int, list[Path]] = {}
        for path, label in zip(self.paths, self.labels.tolist(), strict=True):
            of_class.setdefault(label, []).append(path)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda paths: image_folders.check_class(paths[0].parent, paths, kind), of_class.values()))

    def fingerprint(self, folder: Path) -> str:
        """Return a hash of names, sizes, order and labels: a run resumes only with the same files."""
        listing = "\n".join(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}" for path in self.paths)
        digest = hashlib.sha256(listing.encode("utf-8", "surrogateescape"))
        digest.update(self.labels.data)
        return digest.hexdigest()[:16]


def class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the subfolders, sorted.

    Names that differ only in case are different classes, with a warning.

    Raises:
        DataError: the folder cannot be read, has fewer than two subfolders, or names that are unprintable or look the
            same.
    """
    listing = image_folders.list_folder(folder)
    if broken := [path for path in sorted(folder.iterdir()) if path.is_symlink() and not path.exists()]:
        raise DataError(f"{broken[0]} is a broken link, and may be that of a class; mend or remove it")
    names = sorted(path.name for path in listing.folders)
    if len(names) < 2:
        has = f"only one folder of a class, {names[0]}" if names else "no folders of classes"
        images = f" beside {len(listing.images)} images" if listing.images else ""
        inner = f", or name {folder / names[0]} if its folders are the classes" if names else ""
        raise DataError(f"{folder} has {has}{images}; training needs two or more: {folder}/<class>/*{inner}")
    if bad := [name for name in names if not name.isprintable() or not name.strip()]:
        raise DataError(f"the class folder {one_line(repr(bad[0]), 80)} has an unprintable name; rename it")
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", " ".join(name.split()))
        if key in seen:
            raise DataError(f"{folder / name} and {folder / seen[key]} look the same ({name!a}); merge them")
        seen[key] = name
    cased: dict[str, str] = {}
    for key in seen:
        if (other := cased.setdefault(key.casefold(), key)) != key:
            text = f"{folder}: {other} and {key} are different classes; if they are not, merge their folders"
            warnings.warn(text, SimpleNetWarning, stacklevel=2)
    return tuple(names)


def labeled_files(folder: Path, classes: Sequence[str], unused: Counter[str]) -> LabeledFiles:
    """Return all images in `folder`/<class>/, ordered by class and name; count the other entries in `unused`.

    A folder's name may differ from the class's name in case and punctuation, as `labels.class_lookup` allows.

    Raises:
        DataError: a class has no images, or a folder matches no class or the same class as another folder.
    """
    lookup = class_lookup(classes)
    top = image_folders.list_folder(folder)
    unused.update(top.unused)
    unused["image(s) outside of the class folders"] += len(top.images)
    of_class: dict[int, Path] = {}
    for path in top.folders:
        indices = lookup(path.name)
        if len(indices) != 1:
            raise DataError(f"{path} is none of the {len(classes)} classes; rename or remove it")
        if indices[0] in of_class:
            raise DataError(f"{path} and {of_class[indices[0]]} are both class {classes[indices[0]]!r}; merge them")
        of_class[indices[0]] = path
    if missing := [name for index, name in enumerate(classes) if index not in of_class]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{folder} has no folder for the class {missing[0]!r}{more}; every class needs a folder of images"
        )
    listings = [image_folders.list_folder(of_class[index]) for index in range(len(classes))]
    if not any(listing.images for listing in listings):
        raise DataError(
            f"no images in {folder}/<class>/*, where the folders are {_names(list(of_class.values()))}; name the "
            "folder that has the folders of classes, or rename the splits: train/<class>/*, val/<class>/*"
        )
    for index, listing in enumerate(listings):
        if not listing.images:
            image_folders.check_class(of_class[index])
        unused.update(image_folders.unused_in(listing))
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(listing.images) for listing in listings])
    return LabeledFiles([path for listing in listings for path in listing.images], labels, folder.name)


def train_and_test(folder: Path) -> tuple[Path, Path | None]:
    """Return the folders of the training images and of the images to measure: val, or test if there is no val.

    None: there are no test images, so a part of the training images is to be held out.

    Raises:
        DataError: as `image_folders.dataset_folders`; or there are no training images, or test images without classes.
    """
    root, splits = image_folders.dataset_folders(folder)
    folders = image_folders.list_folder(root).folders
    if "train" not in splits:
        named = {split for path in folders if (split := image_folders.split_of(path))}
        if splits or len(named) > 1 or (named and len(folders) == 1):
            raise DataError(f"{root} has no train/<class>/*, only {_names(folders)}; make it {root}/train/<class>/*")
        return root, None
    train, test = splits["train"], splits.get("val", splits.get("test"))
    others = [path for path in folders if not any(split.is_relative_to(path) for split in splits.values())]
    if test is None and others:
        raise DataError(
            f"{root} has train/<class>/*, but neither val/<class>/* nor test/<class>/*, only {_names(others)}; "
            f"sort test images into such folders, or name {train} alone: a part of it will be held out"
        )
    if test is not None and test != splits.get("test", test):
        cli.log(f"{test} is measured; {splits['test']} is not used: demos/evaluate.py can measure it at the end")
    return train, test


def _names(paths: Sequence[Path]) -> str:
    return one_line(", ".join(path.name for path in paths[:5]), 80)


def split(folder: Path, validation_share: float, seed: int) -> tuple[tuple[str, ...], LabeledFiles, LabeledFiles]:
    """Return the classes, the training files and the test files of a folder.

    The test files are those of val/ or test/, as `train_and_test` chooses. If there are none, they are a random part of
    each class, `validation_share` of its images, drawn with `seed`. A warning counts what is not used.

    Raises:
        DataError: there is no such folder, it has fewer than two classes, or a class has too few readable images.
    """
    train_folder, test_folder = train_and_test(folder)
    classes, unused = class_names(train_folder), Counter[str]()
    train = labeled_files(train_folder, classes, unused)
    if test_folder is not None:
        test = labeled_files(test_folder, classes, unused)
    else:
        held_out = _held_out(train, classes, validation_share, seed)
        train, test = (
            train.select(~held_out, train.name),
            train.select(held_out, f"held-out {100 * validation_share:g} %"),
        )
    _warn_of_unused(folder, unused)
    train.check_classes("training images")
    test.check_classes("test images")
    return classes, train, test


def _held_out(files: LabeledFiles, classes: Sequence[str], share: float, seed: int) -> npt.NDArray[np.bool_]:
    held_out = np.zeros(len(files), bool)
    for index in range(len(classes)):
        members = np.flatnonzero(files.labels == index)
        if len(members) < 2:
            raise DataError(f"{files.paths[members[0]].parent} has one image; validation needs another, so add some")
        count = min(max(1, round(share * len(members))), len(members) - 1)
        generator = np.random.default_rng(seed_for(seed, RngStream.SPLIT, index))
        held_out[generator.choice(members, count, replace=False)] = True
    return held_out


def _warn_of_unused(folder: Path, unused: Counter[str], first_unreadable: str = "") -> None:
    if unused := +unused:
        first = f"; the first unreadable one: {first_unreadable}" if first_unreadable else ""
        text = f"{folder}: not used: {image_folders.describe_unused(unused)}{first}"
        warnings.warn(text, SimpleNetWarning, stacklevel=3)


def load(
    dataset: str, folder: Path, folders: tuple[Path, Path], classes: tuple[str, ...], side: int | None
) -> tuple[LabeledImages, LabeledImages]:
    """Read all images of both splits as RGB uint8 [N, H, W, 3]. A warning counts what is not used or unreadable.

    Args:
        folder: the dataset's, for messages; `folders` are those of the training and the test images.
        side: resize and crop each image to a square with this side in pixels, as a runtime does. None: keep the
            images' size, which must be the same for all of a split.

    Raises:
        DataError: as `labeled_files`; or the sizes differ; or no image of a class can be read.
    """
    unused, reasons = Counter[str](), list[str]()
    splits = []
    for path in folders:
        files = labeled_files(path, classes, unused)
        with ThreadPoolExecutor() as pool:
            results = list(pool.map(functools.partial(_read, side=side), files.paths))
        reasons += sorted(str(result) for result in results if isinstance(result, ImageError))
        readable = [(index, result) for index, result in enumerate(results) if not isinstance(result, ImageError)]
        labels = files.labels[[index for index, _ in readable]]
        if len(set(labels.tolist())) < len(classes):
            files.check_classes("images")
        shape = readable[0][1].shape
        for index, pixels in readable:
            if pixels.shape != shape:
                raise DataError(
                    f"{files.paths[index]} has the shape {pixels.shape}, others {shape}; make all of one size, "
                    "or use --dataset folder"
                )
        pixels = np.stack([pixels for _, pixels in readable])
        splits.append(
            LabeledImages(f"{dataset} {path.name}", pixels, labels, classes, len(files) - len(readable), path.name)
        )
    unused["unreadable"] = len(reasons)
    _warn_of_unused(folder, unused, reasons[0] if reasons else "")
    return splits[0], splits[1]


def _read(path: Path, side: int | None) -> UInt8Array | ImageError:
    try:
        pixels = images.read_rgb(path)
        if side is None:
            return pixels
        return to_model_input(pixels, Preprocessing(side, side, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    except ImageError as error:
        return error
