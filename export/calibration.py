"""Choose the images that an export calibrates int8 with and checks the result with; reject poor ones."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simplenet import datasets, files, image_folders, image_sets
from simplenet.errors import DataError, SimpleNetWarning
from simplenet.image_sets import SYNTHETIC, ImageSet
from simplenet.labels import class_order
from simplenet.preprocessing import UInt8Array

if TYPE_CHECKING:
    from simplenet.weights import LoadedWeights

CALIBRATION_IMAGES = 500
MIN_RECOMMENDED_IMAGES = 30
SYNTHETIC_IMAGES = 64
POOR_CALIBRATION_ADVICE = (
    "calibrate with a few hundred typical images: --calibration DIR, or export with --allow-poor-calibration"
)
SYNTHETIC_NOTE = f"{SYNTHETIC}: for latency only"
FLOAT_CHECK_IMAGES = 16
"""Enough for fp32 and fp16: a wrong float export is wrong on every image."""
FP16_RANGE_IMAGES = 100
"""Checked for overflow in fp16, in addition to the varied images: activations depend on the image."""
VARIED_IMAGES = 160
MIN_VARIATION = 0.1
"""Lowest accepted standard deviation across the calibration images, divided by that of the training set. Measured:
Fashion-MNIST 0.6, MNIST 0.7, CIFAR-10 1.0, a single class of these at least 0.26; images darkened to 1/16 of their
brightness 0.04 to 0.06, one image with sensor noise 0.02."""
MAX_SATURATED = 0.98
"""Highest accepted share of calibration pixel values 0 and 255. Measured: Fashion-MNIST 0.6, binary masks 1.0."""
INT8_LABELED_CHECK_IMAGES, INT8_UNLABELED_CHECK_IMAGES = 2000, 200


@dataclass(frozen=True)
class ImageBatch:
    """Preprocessed images in memory.

    Attributes:
        source: the name of the set or of the folder.
        inputs: uint8 [N, S, S, 3], preprocessed but not normalized.
        labels: class indices int64 [N], or None.
        fingerprint: hash of a calibration folder's files, because folders of one name may differ; else ''.
        doubt: why the images are too poor to calibrate with, or ''.
    """

    source: str
    inputs: UInt8Array
    labels: npt.NDArray[np.int64] | None
    fingerprint: str = ""
    doubt: str = ""

    @property
    def is_synthetic(self) -> bool:
        return self.source == SYNTHETIC and not self.fingerprint  # a folder may be named 'synthetic'

    def __len__(self) -> int:
        return len(self.inputs)


def for_calibration(loaded: LoadedWeights, requested: str | Path, allow_poor: bool = False) -> ImageBatch:
    """Read up to CALIBRATION_IMAGES images to calibrate int8 with.

    Args:
        requested: 'auto', 'synthetic', the name of a shipped set, or a folder.
        allow_poor: if images for trained weights hardly vary or are saturated, warn instead of raising DataError.

    Raises:
        DataError: no such folder or set, no readable image in it, none shipped for these weights, or poor images.
    """
    source = _source(loaded, requested)
    if source is None:
        raise DataError(
            f"int8 needs calibration images, and none are shipped for the weights {loaded.origin.name}; "
            "pass a folder of a few hundred typical images: --calibration DIR"
        )
    found = _load(loaded, source, "calibration")
    batch = _read(_half(found, 0), CALIBRATION_IMAGES)
    if _is_folder(found):
        batch = dataclasses.replace(batch, fingerprint=image_folders.fingerprint(source))
    if len(batch) < MIN_RECOMMENDED_IMAGES and not batch.is_synthetic:
        message = f"int8 is calibrated with only {len(batch)} images of {source}; a few hundred are better"
        warnings.warn(message, SimpleNetWarning, stacklevel=2)
    doubt = "" if loaded.origin.source == "random" else _doubt(batch.inputs, loaded.card.preprocessing.std)
    if doubt:
        doubt = f"the calibration images of {source} {doubt}"
        if not allow_poor:
            raise DataError(f"{doubt}; {POOR_CALIBRATION_ADVICE}")
        warnings.warn(f"{doubt}; the int8 model may be wrong on other images", SimpleNetWarning, stacklevel=2)
    return dataclasses.replace(batch, doubt=doubt)


def for_checking(loaded: LoadedWeights, requested: str | Path, precision: str) -> ImageBatch:
    """Read the images on which the export is compared with PyTorch.

    They are the set shipped with the weights, else `requested`, else synthetic images.

    Args:
        requested: as in `for_calibration`.

    Raises:
        DataError: there is no such folder or set, or no image in it can be read.
    """
    found = _check_set(loaded, requested)
    if precision != "int8":
        return _read(dataclasses.replace(found, labels=None), FLOAT_CHECK_IMAGES)
    return _read(found, INT8_UNLABELED_CHECK_IMAGES if found.labels is None else INT8_LABELED_CHECK_IMAGES)


def for_fp16_range(loaded: LoadedWeights, requested: str | Path) -> ImageBatch:
    """Read images of the set of `for_checking`, and `varied` ones, to check fp16 for overflow."""
    own, others = _read(_check_set(loaded, requested), FP16_RANGE_IMAGES), varied(loaded)
    return ImageBatch(f"{own.source}, {others.source}", np.concatenate([own.inputs, others.inputs]), None)


def varied(loaded: LoadedWeights) -> ImageBatch:
    """Return the same VARIED_IMAGES for every export: half shipped images, half synthetic ones.

    No model is calibrated with them. Every second shipped image is inverted, because they are dark with a black
    background.
    """
    preprocessing, half = loaded.card.preprocessing, VARIED_IMAGES // 2
    parts = [image_sets.load(name, "evaluation", preprocessing, limit=half) for name in datasets.names()[:1]]
    parts.append(ImageSet(SYNTHETIC, list(image_sets.synthetic(half, preprocessing, seed=1)), None, preprocessing))
    inputs = [part.all()[0] for part in parts]
    inputs[0][1::2] = 255 - inputs[0][1::2]
    return ImageBatch(" and ".join(part.source for part in parts), np.concatenate(inputs), None)


def manifest_entry(batch: ImageBatch) -> dict[str, Any]:
    """Return the manifest's `calibration`: source and number of the images; fingerprint and doubt if any."""
    optional = {"fingerprint": batch.fingerprint, "doubt": batch.doubt}
    source = SYNTHETIC_NOTE if batch.is_synthetic else batch.source
    return {"source": source, "images": len(batch), **{key: value for key, value in optional.items() if value}}


def in_batches(values: npt.NDArray[Any], size: int) -> list[npt.NDArray[Any]]:
    """Split rows into batches of `size`; the last batch is padded with the first rows."""
    return [values[np.arange(start, start + size) % len(values)] for start in range(0, len(values), size)]


def _check_set(loaded: LoadedWeights, requested: str | Path) -> ImageSet:
    source = _shipped_set(loaded) or _source(loaded, requested) or SYNTHETIC
    return _half(_load(loaded, source, "evaluation"), 1)


def _source(loaded: LoadedWeights, requested: str | Path) -> str | None:
    if str(requested) != "auto":
        return str(requested)
    return _shipped_set(loaded) or (SYNTHETIC if loaded.origin.source == "random" else None)


def _shipped_set(loaded: LoadedWeights) -> str | None:
    """Return the set that is shipped with the weights, or for a checkpoint one of the same classes."""
    names = datasets.names()
    if loaded.origin.source == "shipped":
        return loaded.origin.name if loaded.origin.name in names else None
    card = loaded.card
    classes = ((name, datasets.shipped(name, "evaluation").classes) for name in names if card.labels)
    return next((name for name, own in classes if class_order(own, card.labels, card.class_ids)), None)


def _load(loaded: LoadedWeights, source: str, split: datasets.Split) -> ImageSet:
    card, limit = loaded.card, SYNTHETIC_IMAGES if source == SYNTHETIC else None
    classes = {"labels": card.labels, "class_ids": card.class_ids}
    try:
        found = image_sets.load(source, split, card.preprocessing, **classes, limit=limit)
    except DataError:
        if not files.is_folder(source):
            raise
        # The subfolders are not the model's classes: use their images without labels.
        found = ImageSet(source, image_folders.find_images(source), None, card.preprocessing)
    found.check_classes()
    if source in datasets.names() and source != _shipped_set(loaded):
        return dataclasses.replace(found, labels=None)  # labels of other classes than this model's
    return found


def _is_folder(found: ImageSet) -> bool:
    return any(isinstance(item, Path) for item in found.items)


def _half(found: ImageSet, which: int) -> ImageSet:
    """Return half 0 or half 1 of a folder's images: calibration uses one, the check the other.

    The images are paired in order, and each half gets a random one of each pair: with every second image, one half
    could be the masks of the other. Shipped sets have two splits already; synthetic images measure no accuracy.
    """
    if not _is_folder(found) or len(found) < 2:
        return found
    indices = np.arange(which, len(found), 2)
    chosen = np.minimum(indices ^ np.random.default_rng(0).integers(0, 2, len(indices)), len(found) - 1)
    return _subset(found, chosen)


def _subset(found: ImageSet, indices: npt.NDArray[np.intp]) -> ImageSet:
    labels = None if found.labels is None else found.labels[indices]
    return dataclasses.replace(found, items=[found.items[index] for index in indices], labels=labels)


def _doubt(inputs: UInt8Array, std: tuple[float, ...]) -> str:
    """Say why images are too poor to calibrate with, or ''."""
    if (inputs == inputs[0]).all():
        return "are all the same" if len(inputs) > 1 else "are only one image"
    variance = inputs.var(axis=0, dtype=np.float32).mean(axis=(0, 1)) / 255**2
    variation = float(np.sqrt(variance / np.square(std)).mean())
    if variation < MIN_VARIATION:
        return f"hardly vary: {variation:.2f} of the standard deviation in training, {MIN_VARIATION} is required"
    saturated = float(((inputs == 0) | (inputs == 255)).mean())
    if saturated > MAX_SATURATED:
        return f"are saturated: {saturated:.1%} of their pixel values are 0 or 255, {MAX_SATURATED:.0%} are allowed"
    return ""


def _read(found: ImageSet, limit: int) -> ImageBatch:
    """Read at most `limit` images, evenly spaced."""
    subset = _subset(found, image_sets.spread(len(found), limit))
    inputs, labels = subset.all()
    if subset.unreadable:
        count = f"{len(subset.unreadable)} of {len(subset)} images of {found.source} cannot be read and are left out"
        warnings.warn(f"{count}; the first: {subset.unreadable[0]}", SimpleNetWarning, stacklevel=2)
    # Only the folder's name: the manifest is shared with others, and a path may contain private names.
    source = Path(found.source).resolve().name if _is_folder(found) else found.source
    return ImageBatch(source, inputs, labels)
