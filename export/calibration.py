"""Which pictures an export is calibrated with and which it is checked with: never the same where there are two."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simplenet import datasets, files, image_sets, images
from simplenet.errors import DataError, SimpleNetWarning
from simplenet.image_sets import SYNTHETIC, ImageSet
from simplenet.preprocessing import UInt8Array

if TYPE_CHECKING:
    from simplenet.weights import LoadedWeights

CALIBRATION_PICTURES = 500
FEWEST_GOOD = 30
SYNTHETIC_PICTURES = 64
SYNTHETIC_NOTE = f"{SYNTHETIC}: for latency only"
FLOAT_CHECKED = 16
"""ImageSet that a float export is checked with: it is right to the last digits, or wrong on every one."""

INT8_CHECKED_LABELED, INT8_CHECKED_UNLABELED = 2000, 200


@dataclass(frozen=True)
class ImageBatch:
    """`inputs` uint8 [N, S, S, 3], preprocessed but not normalized; `labels` int64 [N] or None.

    `fingerprint` tells a folder of pictures to calibrate with from another of the same name.
    """

    source: str
    inputs: UInt8Array
    labels: npt.NDArray[np.int64] | None
    fingerprint: str = ""

    @property
    def is_synthetic(self) -> bool:
        return self.source == SYNTHETIC and not self.fingerprint  # a folder may have that name

    def __len__(self) -> int:
        return len(self.inputs)


def for_calibration(loaded: LoadedWeights, asked: str | Path) -> ImageBatch:
    """Up to CALIBRATION_PICTURES pictures to calibrate int8 with.

    Raises:
        DataError: no such folder or set, nothing readable in it, or none is known for these weights.
    """
    source = _source(loaded, asked)
    if source is None:
        raise DataError(
            f"int8 needs pictures to calibrate {loaded.origin.name} weights with, and none are shipped for them; "
            "export it from a folder of a few hundred typical ones: --calibration DIR"
        )
    found = _load(loaded, source, "calibration")
    samples = _read(_part(found, 0), CALIBRATION_PICTURES)
    if _is_folder(found):
        samples = dataclasses.replace(samples, fingerprint=images.fingerprint(source))
    if len(samples) < FEWEST_GOOD and not samples.is_synthetic:
        message = f"int8 is calibrated with only {len(samples)} pictures of {source}; a few hundred are better"
        warnings.warn(message, SimpleNetWarning, stacklevel=2)
    return samples


def for_checking(loaded: LoadedWeights, asked: str | Path, precision: str) -> ImageBatch:
    """ImageSet on which an export must agree with PyTorch: labeled ones where there are any, else synthetic ones.

    Raises:
        DataError: no such folder or set, or nothing readable in it.
    """
    own = _shipped_set(loaded)
    source = own or _source(loaded, asked) or SYNTHETIC
    found = _part(_load(loaded, source, "evaluation"), 1)
    if precision != "int8":
        return _read(dataclasses.replace(found, labels=None), FLOAT_CHECKED)
    return _read(found, INT8_CHECKED_UNLABELED if found.labels is None else INT8_CHECKED_LABELED)


def note(samples: ImageBatch) -> dict[str, Any]:
    """What the manifest says of the pictures an export was calibrated with."""
    source = SYNTHETIC_NOTE if samples.is_synthetic else samples.source
    fingerprint = {"fingerprint": samples.fingerprint} if samples.fingerprint else {}
    return {"source": source, "images": len(samples), **fingerprint}


def in_batches(values: npt.NDArray[Any], size: int) -> list[npt.NDArray[Any]]:
    """The rows in batches of `size`; the last one is filled up from the beginning."""
    return [values[np.arange(start, start + size) % len(values)] for start in range(0, len(values), size)]


def _source(loaded: LoadedWeights, asked: str | Path) -> str | None:
    if str(asked) != "auto":
        return str(asked)
    return _shipped_set(loaded) or (SYNTHETIC if loaded.origin.source == "random" else None)


def _shipped_set(loaded: LoadedWeights) -> str | None:
    """The shipped pictures of these weights' classes: those shipped with them, or with others of the same classes."""
    names = datasets.shipped_names()
    if loaded.origin.source == "shipped":
        return loaded.origin.name if loaded.origin.name in names else None
    labels = loaded.card.labels
    return next((name for name in names if labels and labels == datasets.shipped(name, "evaluation").classes), None)


def _load(loaded: LoadedWeights, source: str, split: datasets.Split) -> ImageSet:
    card, limit = loaded.card, SYNTHETIC_PICTURES if source == SYNTHETIC else None
    classes = {"labels": card.labels, "class_ids": card.class_ids}
    try:
        found = image_sets.load(source, split, card.preprocessing, **classes, limit=limit)
    except DataError:
        if not files.is_folder(source):
            raise
        # Its folders are not the model's classes: pictures to calibrate with all the same, if there are any.
        found = ImageSet(source, images.find_images(source), None, card.preprocessing)
    if source in datasets.shipped_names() and source != _shipped_set(loaded):
        return dataclasses.replace(found, labels=None)  # labels of other classes than this model's
    return found


def _is_folder(found: ImageSet) -> bool:
    return any(isinstance(item, Path) for item in found.items)


def _part(found: ImageSet, which: int) -> ImageSet:
    """Every second picture of a folder, so that it is not checked with what it was calibrated with."""
    if not _is_folder(found) or len(found) < 2:
        return found  # shipped sets have their own split, synthetic pictures prove nothing either way
    labels = None if found.labels is None else found.labels[which::2]
    return dataclasses.replace(found, items=found.items[which::2], labels=labels)


def _read(found: ImageSet, limit: int) -> ImageBatch:
    chosen = np.unique(np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(np.intp))
    labels = None if found.labels is None else found.labels[chosen]
    some = dataclasses.replace(found, items=[found.items[index] for index in chosen], labels=labels)
    inputs, known = some.all()
    if some.unreadable:
        counted = f"{len(some.unreadable)} of {len(some)} pictures of {found.source} are left out"
        warnings.warn(f"{counted}; the first: {some.unreadable[0]}", SimpleNetWarning, stacklevel=2)
    # The manifest travels: a folder's name tells its maker enough, its path would tell others too much.
    source = Path(found.source).resolve().name if _is_folder(found) else found.source
    return ImageBatch(source, inputs, known)
