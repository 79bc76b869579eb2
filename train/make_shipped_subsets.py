"""Make the small evaluation and calibration sets that the project ships.

    python train/make_shipped_subsets.py
    python train/make_shipped_subsets.py --dataset fashion-mnist --data DIR --output simplenet/shipped/fashion-mnist

evaluation.npz has images of the test split, calibration.npz of the training split, each with the same number of images
of every class. They are drawn with a fixed seed: the same dataset gives the same files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from simplenet import cli, datasets, files
from simplenet.datasets import LabeledImages
from simplenet.errors import DataError, one_line
from train import data, flags

EVALUATION_IMAGES = 2000
CALIBRATION_IMAGES = 500
SEED = 0


def balanced(split: LabeledImages, count: int, classes: int, seed: int = SEED) -> LabeledImages:
    """Draw `count` images without replacement, the same number of each class, in the split's order.

    Raises:
        DataError: `count` is not a multiple of `classes`, or a class has too few images.
    """
    per_class, rest = divmod(count, classes)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(split.labels == label) for label in range(classes)]
    if rest or min(map(len, members)) < per_class:
        raise DataError(f"{split.name} cannot give {count} images, the same number of each of its {classes} classes")
    chosen = np.sort(np.concatenate([rng.choice(of_class, per_class, replace=False) for of_class in members]))
    return LabeledImages(split.name, split.images[chosen], split.labels[chosen], split.classes)


def make_subsets(dataset: str, output: Path, data_folder: Path | None = None) -> tuple[Path, Path]:
    """Write evaluation.npz and calibration.npz to `output` and return their paths.

    Raises:
        UsageError: unknown dataset.
        DataError: the dataset cannot be read or is too small.
        SimpleNetError: `output` cannot be written.
    """
    spec = data.get(dataset)
    train_split, test_split = data.load(spec, data_folder)
    evaluation, calibration = output / "evaluation.npz", output / "calibration.npz"
    _write(evaluation, balanced(test_split, EVALUATION_IMAGES, len(test_split.classes)))
    _write(calibration, balanced(train_split, CALIBRATION_IMAGES, len(train_split.classes)))
    return evaluation, calibration


def _write(path: Path, images: LabeledImages) -> None:
    """Write an .npz, with one channel for gray images."""
    pixels = images.images
    if (pixels[..., :1] == pixels).all():
        pixels = pixels[..., 0]
    with files.replacing(path) as temporary:
        np.savez_compressed(temporary, images=pixels, labels=images.labels.astype(np.uint8), classes=images.classes)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    flags.add_dataset(parser)
    parser.add_argument(
        "--output", type=cli.path, metavar="DIR", help="output folder (default: that of the shipped sets)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    output = arguments.output or datasets.SHIPPED / arguments.dataset
    for path in make_subsets(arguments.dataset, output, arguments.data):
        count, megabytes = len(datasets.load(path)), path.stat().st_size / 1e6
        print(one_line(f"{path}: {count} images, {megabytes:.2f} MB, sha256 {files.sha256(path)}", limit=2000))
    return 0


if __name__ == "__main__":
    cli.run(main)
