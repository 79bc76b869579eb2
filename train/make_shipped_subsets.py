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
    _write_balanced(evaluation, test_split, EVALUATION_IMAGES)
    _write_balanced(calibration, train_split, CALIBRATION_IMAGES)
    return evaluation, calibration


def _write_balanced(path: Path, split: LabeledImages, count: int) -> None:
    """Draw `count` images of `split`, the same number of each class, and write them in the split's order.

    Gray images are written with one channel.
    """
    classes, rng = len(split.classes), np.random.default_rng(SEED)
    per_class, rest = divmod(count, classes)
    members = [np.flatnonzero(split.labels == label) for label in range(classes)]
    if rest or min(map(len, members)) < per_class:
        raise DataError(f"{split.name} cannot give {count} images, the same number of each of its {classes} classes")
    chosen = np.sort(np.concatenate([rng.choice(of_class, per_class, replace=False) for of_class in members]))
    pixels, labels = split.images[chosen], split.labels[chosen].astype(np.uint8)
    if (pixels[..., :1] == pixels).all():
        pixels = pixels[..., 0]
    with files.replacing(path) as temporary:
        np.savez_compressed(temporary, images=pixels, labels=labels, classes=split.classes)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    flags.add_dataset(parser)
    output_help = "output folder (default: that of the shipped sets)"
    parser.add_argument("--output", type=cli.path, metavar="DIR", help=output_help)
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
