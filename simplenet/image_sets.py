"""Image sets to calibrate, check and evaluate with: a shipped dataset, a folder, or synthetic images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simplenet import datasets, files, image_folders, images
from simplenet.datasets import Split
from simplenet.errors import DataError, ImageError
from simplenet.labels import class_lookup, class_order
from simplenet.preprocessing import Preprocessing, UInt8Array, to_model_input

SYNTHETIC = "synthetic"

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels. `items` are RGB uint8 [H, W, 3] arrays or image files."""

    source: str
    items: Sequence[UInt8Array | Path]
    labels: Int64Array | None
    """int64 [N]; None if the labels are unknown."""
    preprocessing: Preprocessing
    unreadable: list[str] = field(default_factory=list)
    """Messages about the files that could not be read; `batches` skips such files and appends here."""
    first_unlabeled: Path | None = None
    """If `labels` is None because some images are outside the class folders: the first of them."""
    other_classes: str = ""
    """If `labels` is None because a shipped dataset has other classes than the model: its classes and size in words."""
    class_folders: Sequence[Path] = ()
    """The folders that are named after a class of the model."""

    def __len__(self) -> int:
        return len(self.items)

    def check_classes(self) -> None:
        """Check that an image in each class folder can be read; raise DataError if not."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(image_folders.check_class, self.class_folders))

    def batches(self, size: int) -> Iterator[tuple[UInt8Array, Int64Array | None]]:
        """Yield preprocessed uint8 [<= size, S, S, 3] and labels, in order; each batch is decoded on demand."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            for start in range(0, len(self.items), size):
                chunk = list(pool.map(self._read, self.items[start : start + size]))
                kept = [position for position, pixels in enumerate(chunk) if pixels is not None]
                if kept:
                    inputs = np.stack([pixels for pixels in chunk if pixels is not None])
                    labels = None if self.labels is None else self.labels[[start + position for position in kept]]
                    yield inputs, labels

    def all(self) -> tuple[UInt8Array, Int64Array | None]:
        """Return all images as one batch, for sets of up to a few thousand.

        Raises:
            DataError: no image can be read.
        """
        parts = list(self.batches(256))
        if not parts:
            raise DataError(f"no image of {self.source} can be read; the first error: {self.unreadable[0]}")
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
    """Load 'synthetic' images, a shipped dataset by its name, or a folder of images or of classes.

    Args:
        split: of a shipped dataset: 'evaluation' or 'calibration'. Of a folder with splits, 'evaluation' is its test,
            else val.
        labels, class_ids: the model's classes, to find the labels by the names of a folder's or shipped dataset's
            classes. A shipped dataset of other classes is loaded without labels.
        limit: the maximum number of images; they are spread evenly over all images.

    Raises:
        DataError: no such folder or dataset, or no image in it.

    Example:
        image_sets.load("fashion-mnist", "evaluation", manifest.preprocessing, labels=manifest.labels, limit=500)
    """
    if source == SYNTHETIC:
        return ImageSet(SYNTHETIC, list(synthetic(limit or 64, preprocessing)), None, preprocessing)
    if source in datasets.names():
        shipped = datasets.shipped(source, split)
        chosen = spread(len(shipped), limit)
        items = [shipped.images[i] for i in chosen]
        order = class_order(shipped.classes, labels, class_ids) if labels else range(len(shipped.classes))
        if order is None:
            height, width = shipped.images.shape[1:3]
            other = f"{few(shipped.classes)}, in {width}x{height} pixels"
            return ImageSet(shipped.name, items, None, preprocessing, other_classes=other)
        return ImageSet(shipped.name, items, np.array(order)[shipped.labels[chosen]], preprocessing)
    folder = check_source(source, split)
    found = image_folders.labeled_folder(folder, labels, class_ids)
    lookup = class_lookup(labels, class_ids)
    class_folders = [path for path in image_folders.list_folder(folder).folders if lookup(path.name)]
    chosen_files = [found[i] for i in spread(len(found), limit)]
    paths = [path for path, _ in chosen_files]
    indices = [index for _, index in chosen_files if index is not None]
    if len(indices) == len(paths):
        return ImageSet(str(folder), paths, np.array(indices, np.int64), preprocessing, class_folders=class_folders)
    # An accuracy on only the labeled part would be misleading.
    first_unlabeled = next(path for path, index in chosen_files if index is None) if indices else None
    return ImageSet(str(folder), paths, None, preprocessing, first_unlabeled=first_unlabeled)


def few(names: Sequence[str]) -> str:
    """Return the first names in a row, and how many there are."""
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")


def check_source(source: str, split: Split = "evaluation") -> Path:
    """Return the folder that `load` would read; call it before long work.

    Raises:
        DataError: `load` would find no images.
    """
    names = (*datasets.names(), SYNTHETIC)
    if source in names:
        return Path(source)
    if not files.is_folder(source):
        raise DataError(f"{source!r} is neither a folder of images nor one of: {', '.join(names)}")
    folder = Path(source)
    if split == "evaluation":
        folder = image_folders.evaluation_folder(folder, or_all=True)
    image_folders.find_images(folder)
    return folder


def synthetic(count: int, preprocessing: Preprocessing, seed: int = 0) -> UInt8Array:
    """Return colored clouds and shapes, RGB uint8 [count, R, R, 3], for latency and agreement only.

    Their brightness and contrast vary around the mean and standard deviation of `preprocessing`, and their spectra are
    those of photographs. R is `preprocessing.resize_shorter_side`.
    """
    random = np.random.default_rng(seed)
    size = preprocessing.resize_shorter_side
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequencies[0, 0] = 1 / size

    def clouds(exponent: float, channels: int) -> npt.NDArray[np.float64]:
        spectra = np.fft.rfft2(random.normal(size=(channels, size, size))) * frequencies**-exponent
        fields = np.fft.irfft2(spectra, (size, size))
        fields -= fields.mean(axis=(1, 2), keepdims=True)
        scaled: npt.NDArray[np.float64] = fields / fields.std(axis=(1, 2), keepdims=True)
        return np.moveaxis(scaled, 0, 2)

    images = np.empty((count, size, size, 3), np.uint8)
    for index, image in enumerate(images):
        pixels, saturation = clouds(random.uniform(0.7, 2), 3), random.uniform()
        pixels = pixels[..., :1] * (1 - saturation) + pixels * saturation
        pixels = pixels * random.uniform(0.3, 1.5) + random.normal(0, 0.7)
        if index % 2:  # a shape before a black, white or gray background
            background = random.choice([-3.0, 3.0, random.uniform(-1.5, 1.5)], p=[0.4, 0.3, 0.3])
            pixels = np.where(clouds(2, 1) > random.normal(0, 0.5), pixels, background)
        image[:] = np.clip(255 * (np.array(preprocessing.mean) + np.array(preprocessing.std) * pixels), 0, 255)
    return images


def spread(count: int, limit: int | None) -> npt.NDArray[np.intp]:
    """Return at most `limit` indices below `count`, evenly spaced: a sorted folder begins with one class."""
    return np.unique(np.linspace(0, count - 1, min(count, limit or count)).round().astype(np.intp))
