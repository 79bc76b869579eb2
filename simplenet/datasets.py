"""The datasets and weights that ship with the project: names, model cards and labeled images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from simplenet.errors import BackendUnavailable, DataError, check_choice, one_line
from simplenet.model_card import CARD_KEY, ModelCard

SHIPPED = Path(__file__).resolve().parent / "shipped"
SPLITS = ("evaluation", "calibration")
Split = Literal["evaluation", "calibration"]


@dataclass(frozen=True)
class LabeledImages:
    """Images in memory with their labels.

    Args:
        images: RGB uint8 [N, H, W, 3], not preprocessed.
        labels: int64 [N], indices into `classes`.
        classes: the names of the classes.
        left_out: the number of images that are missing in `images` because they could not be read.
        split: the name of the split, or of its folder, such as "val".
    """

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    left_out: int = 0
    split: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def names() -> tuple[str, ...]:
    """Return the sorted names of the shipped datasets that have both splits."""
    folders = sorted(SHIPPED.iterdir()) if SHIPPED.is_dir() else []
    return tuple(folder.name for folder in folders if all((folder / f"{split}.npz").is_file() for split in SPLITS))


def shipped_weights(variant: str | None = None) -> tuple[str, ...]:
    """Return the names of the shipped weights (of one variant), those of shipped datasets first."""
    found = {file.parent.name for file in SHIPPED.glob(f"*/{variant or '*'}.safetensors")}
    return tuple(sorted(found, key=lambda name: (name not in names(), name)))


def shipped_card(name: str, variant: str) -> ModelCard:
    """Return the card of weights from `shipped_weights`, without reading the tensors.

    Raises:
        BackendUnavailable: safetensors is not installed.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise BackendUnavailable("shipped weights need safetensors; type: pip install '.[torch]'") from error
    with safe_open(SHIPPED / name / f"{variant}.safetensors", framework="numpy") as file:
        return ModelCard.from_json(file.metadata()[CARD_KEY])


def shipped(name: str, split: Split) -> LabeledImages:
    """Return a shipped dataset's split: "evaluation" has test images, "calibration" training images.

    Raises:
        UsageError: no such dataset; the message lists the choices.
        DataError: the file is missing or damaged.
    """
    if not (choices := names()):
        raise DataError("no shipped datasets are installed; install simplenet again")
    check_choice("dataset", name, choices)
    return load(SHIPPED / name / f"{split}.npz")


def load(path: Path) -> LabeledImages:
    """Read the .npz file of a dataset.

    It has `images` (uint8 [N, H, W] gray or [N, H, W, 3] RGB), `labels` (uint8 [N]) and `classes` (strings).

    Raises:
        DataError: missing, damaged, of another form, or with pickled objects, which are not loaded.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels, classes = arrays["images"], arrays["labels"], arrays["classes"]
    except Exception as error:  # numpy and zipfile raise exceptions of many types for a damaged file
        raise DataError(f"cannot read the images in {path} ({one_line(error)}); install simplenet again") from error
    gray = images.ndim == 3
    shapes_fit = (gray or (images.ndim == 4 and images.shape[3] == 3)) and labels.shape == images.shape[:1]
    has_class_names = classes.ndim == 1 and classes.dtype.kind == "U"
    if images.dtype != np.uint8 or labels.dtype != np.uint8 or not shapes_fit or not has_class_names:
        raise DataError(
            f"{path} does not hold uint8 images [N, H, W(, 3)] with uint8 labels [N] and classes; install it again"
        )
    rgb = np.repeat(images[..., None], 3, axis=3) if gray else images
    name = f"{path.parent.name} {path.stem}"
    return LabeledImages(name, np.ascontiguousarray(rgb), labels.astype(np.int64), tuple(map(str, classes)))
