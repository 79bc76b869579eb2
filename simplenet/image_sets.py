"""Pictures to calibrate, check and evaluate with: a shipped set, somebody's folder, or synthetic ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simplenet import datasets, files, images
from simplenet.datasets import Split
from simplenet.errors import DataError, ImageError
from simplenet.preprocessing import Preprocessing, UInt8Array, to_model_input

SYNTHETIC = "synthetic"

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """`items` are RGB uint8 [H, W, 3] arrays or image files, `labels` int64 [N] or None where nobody knows them."""

    source: str
    items: Sequence[UInt8Array | Path]
    labels: Int64Array | None
    preprocessing: Preprocessing
    unreadable: list[str] = field(default_factory=list)
    """Files that could not be read, with the reason; `batches` leaves them out and fills this in."""
    stray: Path | None = None
    """The first picture that is in no class's folder, where others are: it is why there are no labels."""

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, size: int) -> Iterator[tuple[UInt8Array, Int64Array | None]]:
        """Model inputs uint8 [<= size, S, S, 3] and their labels, in order; a batch is decoded when it is asked for."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            for start in range(0, len(self.items), size):
                chunk = list(pool.map(self._read, self.items[start : start + size]))
                kept = [position for position, pixels in enumerate(chunk) if pixels is not None]
                if kept:
                    inputs = np.stack([pixels for pixels in chunk if pixels is not None])
                    labels = None if self.labels is None else self.labels[[start + position for position in kept]]
                    yield inputs, labels

    def all(self) -> tuple[UInt8Array, Int64Array | None]:
        """Every picture at once: for sets of hundreds or a few thousand.

        Raises:
            DataError: not one could be read.
        """
        parts = list(self.batches(256))
        if not parts:
            raise DataError(f"no picture of {self.source} can be read; the first reason: {self.unreadable[0]}")
        labels = None if self.labels is None else np.concatenate([part for _, part in parts if part is not None])
        return np.concatenate([inputs for inputs, _ in parts]), labels

    def _read(self, item: UInt8Array | Path) -> UInt8Array | None:
        try:
            pixels = images.read_rgb(item) if isinstance(item, Path) else item
            return to_model_input(pixels, self.preprocessing)
        except ImageError as error:
            self.unreadable.append(str(error))
            return None


def load(
    source: str,
    split: Split,
    preprocessing: Preprocessing,
    *,
    labels: Sequence[str] = (),
    class_ids: Sequence[str] = (),
    limit: int | None = None,
) -> ImageSet:
    """Pictures from 'synthetic', the name of a shipped set, or a folder (of classes, or just of pictures).

    Args:
        split: which part of a shipped set: 'evaluation' or 'calibration'.
        labels, class_ids: the model's classes; a folder named as one of them labels its pictures. A shipped set of
            other classes comes without its labels.
        limit: at most so many pictures, spread evenly over all.

    Raises:
        DataError: no such folder or set, or no picture in it.
    """
    if source == SYNTHETIC:
        return ImageSet(SYNTHETIC, list(synthetic(limit or 64, preprocessing)), None, preprocessing)
    if source in datasets.shipped_names():
        shipped = datasets.shipped(source, split)
        chosen = _spread(len(shipped), limit)
        is_of_these_classes = not labels or tuple(labels) == shipped.classes
        truth = shipped.labels[chosen] if is_of_these_classes else None
        return ImageSet(shipped.name, [shipped.images[i] for i in chosen], truth, preprocessing)
    check_source(source)
    found = images.labeled_folder(Path(source), labels, class_ids)
    some = [found[i] for i in _spread(len(found), limit)]
    paths = [path for path, _ in some]
    known = [index for _, index in some if index is not None]
    # Labels count only where every picture has one: half-labeled accuracy would be a number about something else.
    if not known or len(known) < len(some):
        stray = next((path for path, index in some if index is None), None) if known else None
        return ImageSet(source, paths, None, preprocessing, stray=stray)
    return ImageSet(source, paths, np.array(known, np.int64), preprocessing)


def check_source(source: str) -> None:
    """Raises DataError where `load` would find nothing, before anything long is begun."""
    names = (*datasets.shipped_names(), SYNTHETIC)
    if source in names:
        return
    try:
        is_folder = Path(source).is_dir()
    except OSError as error:
        raise DataError(f"cannot read {source}: {files.reason(error)}; name another folder") from error
    if not is_folder:
        raise DataError(f"{source!r} is neither a folder of pictures nor one of: {', '.join(names)}")
    images.find_images(source)


def synthetic(count: int, preprocessing: Preprocessing, seed: int = 0) -> UInt8Array:
    """Colored scenes with edges and noise, uint8 [count, R, R, 3]: for latency and agreement, never accuracy."""
    random = np.random.default_rng(seed)
    size = preprocessing.resize_shorter_side
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32) / size
    scenes = np.empty((count, size, size, 3), np.uint8)
    for scene in scenes:
        frequencies, phases = random.uniform(0.5, 6, (3, 2)), random.uniform(0, 2 * np.pi, 3)
        waves = [
            np.sin(2 * np.pi * (fx * xs + fy * ys) + phase) for (fx, fy), phase in zip(frequencies, phases, strict=True)
        ]
        picture = 127 + 80 * np.stack(waves, axis=-1)
        for _ in range(4):  # a few rectangles of one color: edges, as photographs have
            (top, left), (height, width) = random.integers(0, size, 2), random.integers(1, size // 2 + 1, 2)
            picture[top : top + height, left : left + width] = random.uniform(0, 255, 3)
        scene[:] = np.clip(picture + random.normal(0, 12, picture.shape), 0, 255)
    return scenes


def _spread(count: int, limit: int | None) -> npt.NDArray[np.intp]:
    """Indices of at most `limit` of `count` things, evenly apart: the first ones of a sorted folder are one class."""
    return np.unique(np.linspace(0, count - 1, min(count, limit or count)).round().astype(np.intp))
