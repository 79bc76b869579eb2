"""Choose the images of an export, to calibrate int8 with and to check the result with; refuse poor ones."""

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

CALIBRATION_IMAGES = 500
MIN_RECOMMENDED_IMAGES = 30
SYNTHETIC_IMAGES = 64
POOR_CALIBRATION_ADVICE = (
    "calibrate with a few hundred typical images: --calibration DIR, or export with --allow-poor-calibration"
)
SYNTHETIC_NOTE = f"{SYNTHETIC}: for latency only"
FLOAT_CHECK_IMAGES = 16
"""Enough for the file of fp32 and fp16: a wrong float export is wrong on every image."""
FP16_RANGE_IMAGES = 100
"""Checked for overflow in fp16, besides as many varied ones: activations depend on the image."""
VARIED_IMAGES = 160
LEAST_VARIATION = 0.1
"""Standard deviation across calibration images, in units of the training set's. Measured: Fashion-MNIST 0.6, MNIST 0.7,
CIFAR-10 1.0, one class of them 0.26 or more; 1/16 of the brightness 0.04 to 0.06, one image with sensor noise 0.02."""
MOST_SATURATED = 0.98
"""Highest share of calibration pixel values that are 0 or 255. Measured: Fashion-MNIST 0.6, binary masks 1.0."""
INT8_LABELED_CHECK_IMAGES, INT8_UNLABELED_CHECK_IMAGES = 2000, 200


@dataclass(frozen=True)
class ImageBatch:
    """Preprocessed images in memory.

    Attributes:
        source: the name of the set or of the folder.
        inputs: uint8 [N, S, S, 3], preprocessed but not normalized.
        labels: class indices int64 [N], or None.
        fingerprint: hash of a calibration folder's files, as folders of one name may differ; '' for other images.
        doubt: why they are too poor to calibrate with, or ''.
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

        allow_poor: warn of images that hardly vary or are saturated, instead of raising DataError.

    Raises:
        DataError: there is no such folder or set, no image in it can be read, 'auto' has none for these weights, or
            trained weights would be calibrated with images that hardly vary or are saturated.
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
        batch = dataclasses.replace(batch, fingerprint=images.fingerprint(source))
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
    source = _shipped_set(loaded) or _source(loaded, requested) or SYNTHETIC
    found = _half(_load(loaded, source, "evaluation"), 1)
    if precision != "int8":
        return _read(dataclasses.replace(found, labels=None), FLOAT_CHECK_IMAGES)
    return _read(found, INT8_UNLABELED_CHECK_IMAGES if found.labels is None else INT8_LABELED_CHECK_IMAGES)


def for_fp16_range(loaded: LoadedWeights, requested: str | Path) -> ImageBatch:
    """Read images of `for_checking`, and `varied` ones, to look for overflow with."""
    source = _shipped_set(loaded) or _source(loaded, requested) or SYNTHETIC
    own, others = _read(_half(_load(loaded, source, "evaluation"), 1), FP16_RANGE_IMAGES), varied(loaded)
    return ImageBatch(f"{own.source}, {others.source}", np.concatenate([own.inputs, others.inputs]), None)


def varied(loaded: LoadedWeights) -> ImageBatch:
    """Return the same VARIED_IMAGES for every export: half shipped images, half synthetic ones.

    No model is calibrated with them. Every second shipped image is inverted: they are dark with a black background.
    """
    preprocessing, half = loaded.card.preprocessing, VARIED_IMAGES // 2
    parts = [image_sets.load(name, "evaluation", preprocessing, limit=half) for name in datasets.names()[:1]]
    parts.append(ImageSet(SYNTHETIC, list(image_sets.synthetic(half, preprocessing, seed=1)), None, preprocessing))
    inputs = [part.all()[0] for part in parts]
    inputs[0][1::2] = 255 - inputs[0][1::2]
    return ImageBatch(" and ".join(part.source for part in parts), np.concatenate(inputs), None)


def manifest_entry(batch: ImageBatch) -> dict[str, Any]:
    """The manifest's `calibration`: source and number of the images, and the fingerprint of a folder."""
    source = SYNTHETIC_NOTE if batch.is_synthetic else batch.source
    fingerprint = {"fingerprint": batch.fingerprint} if batch.fingerprint else {}
    doubt = {"doubt": batch.doubt} if batch.doubt else {}
    return {"source": source, "images": len(batch), **fingerprint, **doubt}


def in_batches(values: npt.NDArray[Any], size: int) -> list[npt.NDArray[Any]]:
    """The rows in batches of `size`; the last batch is padded with the first rows."""
    return [values[np.arange(start, start + size) % len(values)] for start in range(0, len(values), size)]


def _source(loaded: LoadedWeights, requested: str | Path) -> str | None:
    if str(requested) != "auto":
        return str(requested)
    return _shipped_set(loaded) or (SYNTHETIC if loaded.origin.source == "random" else None)


def _shipped_set(loaded: LoadedWeights) -> str | None:
    """Return the shipped set of the weights' own name, or for a checkpoint one with the same classes, or None."""
    names = datasets.names()
    if loaded.origin.source == "shipped":
        return loaded.origin.name if loaded.origin.name in names else None
    labels = loaded.card.labels
    return next((name for name in names if labels and labels == datasets.shipped(name, "evaluation").classes), None)


def _load(loaded: LoadedWeights, source: str, split: datasets.Split) -> ImageSet:
    card, limit = loaded.card, SYNTHETIC_IMAGES if source == SYNTHETIC else None
    classes = {"labels": card.labels, "class_ids": card.class_ids}
    try:
        found = image_sets.load(source, split, card.preprocessing, **classes, limit=limit)
    except DataError:
        if not files.is_folder(source):
            raise
        # The subfolders are not the model's classes: use their images without labels.
        found = ImageSet(source, images.find_images(source), None, card.preprocessing)
    if source in datasets.names() and source != _shipped_set(loaded):
        return dataclasses.replace(found, labels=None)  # labels of other classes than this model's
    return found


def _is_folder(found: ImageSet) -> bool:
    return any(isinstance(item, Path) for item in found.items)


def _half(found: ImageSet, which: int) -> ImageSet:
    """One of every two images of a folder, at random, so that calibration and check use different ones.

    Not every second one: images and their masks may take turns in a folder. Shipped sets are already split into two
    parts; synthetic images measure no accuracy.
    """
    if not _is_folder(found) or len(found) < 2:
        return found
    indices = np.arange(which, len(found), 2)
    chosen = np.minimum(indices ^ np.random.default_rng(0).integers(0, 2, len(indices)), len(found) - 1)
    labels = None if found.labels is None else found.labels[chosen]
    return dataclasses.replace(found, items=[found.items[index] for index in chosen], labels=labels)


def _doubt(inputs: UInt8Array, std: tuple[float, ...]) -> str:
    """Say why images are too poor to calibrate with, or ''."""
    if (inputs == inputs[0]).all():
        return "are all the same" if len(inputs) > 1 else "are a single one"
    variance = inputs.var(axis=0, dtype=np.float32).mean(axis=(0, 1)) / 255**2
    variation = float(np.sqrt(variance / np.square(std)).mean())
    if variation < LEAST_VARIATION:
        return f"hardly vary: {variation:.2f} of the standard deviation in training, {LEAST_VARIATION} is required"
    saturated = float(((inputs == 0) | (inputs == 255)).mean())
    if saturated > MOST_SATURATED:
        return f"are saturated: {saturated:.1%} of their pixel values are 0 or 255, {MOST_SATURATED:.0%} are allowed"
    return ""


def _read(found: ImageSet, limit: int) -> ImageBatch:
    """At most `limit` images, evenly spaced."""
    chosen = image_sets.spread(len(found), limit)
    labels = None if found.labels is None else found.labels[chosen]
    subset = dataclasses.replace(found, items=[found.items[index] for index in chosen], labels=labels)
    inputs, labels = subset.all()
    if subset.unreadable:
        count = f"{len(subset.unreadable)} of {len(subset)} images of {found.source} cannot be read and are left out"
        warnings.warn(f"{count}; the first: {subset.unreadable[0]}", SimpleNetWarning, stacklevel=2)
    # Only the folder's name: the manifest is shared with others, and a path may contain private names.
    source = Path(found.source).resolve().name if _is_folder(found) else found.source
    return ImageBatch(source, inputs, labels)
