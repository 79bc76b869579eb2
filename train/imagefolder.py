"""Train or fine-tune a SimpleNet on images in class folders: ImageNet, or your own.

    python train/imagefolder.py ~/flowers --variant 1.5m --weights pretrained --freeze 6 --epochs 10
    python train/imagefolder.py ~/flowers --variant 1.5m --weights runs/herbs/1.5m.safetensors
    python train/imagefolder.py ~/flowers --variant cifar-5m --size 64 --epochs 100 --mixup 0.2
    python train/imagefolder.py ~/flowers --resume          after Ctrl-C or a power cut, with the same flags
    torchrun --nproc-per-node 8 train/imagefolder.py ~/imagenet --variant 5.7m --batch 1024 --learning-rate 0.8 \\
        --epochs 100 --weight-decay 3e-5 --average-decay 0.9999 --label-smoothing 0.1

The folder has train/<class>/* and val/<class>/* or test/<class>/*; usual names such as Training or valid will do. With
both val and test, val is measured and test is not used. If there is only train/<class>/* or <class>/*, a random part of
the images is held out: --validation-share.

The names of the folders are the names of the classes. The checkpoint and every artifact exported from it store them.
Weights for other classes, or without class names, get a new last layer; --labels names the classes of such weights.

The files in the output folder, and training in several processes, are as in train/cifar.py (see its --help).
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from simplenet import cli, hardware, labels, variants
from simplenet.errors import UsageError
from simplenet.model_card import NO_OVERRIDES, CardOverrides, ModelCard
from train import checkpoint, class_folders, distributed, flags, launch, recipe, results
from train.distributed import Group
from train.folder_dataset import FolderDataset
from train.loop import Run
from train.recipe import Recipe
from train.results import TrainingResult

DEFAULT = Recipe(
    epochs=30,
    batch_size=64,
    peak_learning_rate=0.02,
    weight_decay=5e-5,
    label_smoothing=0.1,
    translate=0,
    cutout=0,
    average_decay=0.998,
)
DEFAULT_VALIDATION_SHARE = 0.1
DEFAULT_CROP_AREA = 0.25


def train(
    folder: Path,
    variant: str,
    output: Path,
    config: Recipe = DEFAULT,
    *,
    initial: str = "random",
    weights_key: str | None = None,
    overrides: CardOverrides = NO_OVERRIDES,
    validation_share: float = DEFAULT_VALIDATION_SHARE,
    crop_area: float = DEFAULT_CROP_AREA,
    workers: int = 2,
    group: Group | None = None,
    **settings: Any,
) -> TrainingResult | None:
    """Train on a folder of classes and write the files that the module's docstring names.

    Args:
        initial, weights_key: the initial weights, as --weights and --weights-key.
        overrides: preprocessing in place of that of the initial weights, or of the variant; a checkpoint without a card
            needs it. Labels and `dataset` describe the initial weights, too.
        validation_share: fraction of each class to hold out, if the folder has no train/.
        crop_area: the smallest fraction of an image that a random crop shows.
        workers: decoding processes per training process; 0 decodes in the training process.
        settings: other fields of `loop.Run`: resume, compile, half, minutes_between_saves, command.

    Returns:
        The result, or None in all processes of `group` but the first.

    Raises:
        DataError: the folder cannot be used.
        SimpleNetError, KeyboardInterrupt: as `train` of train/cifar.py.
    """
    group, spec, resume = group or Group(), variants.get(variant), bool(settings.get("resume"))
    classes, train_files, test_files = class_folders.split(folder, validation_share, config.seed)
    if output.resolve() in map(Path.resolve, {path.parent for path in (*train_files.paths, *test_files.paths)}):
        raise UsageError(f"{output} is a class's folder of images; choose another --output")
    names, ids = _labels_and_ids(classes)
    if initial == "random" and overrides.labels is not None:
        raise UsageError("--labels names the classes of initial weights; leave it out, or name them: --weights PATH")
    network, loaded = recipe.initial_network(variant, initial, names, config, overrides, weights_key, resume)
    saved = checkpoint.saved_card(output) if resume else None
    preprocessing = loaded.preprocessing if loaded else overrides.preprocessing((saved or spec).preprocessing)
    spec.check_side(preprocessing.crop_size, "choose a larger --size, or a cifar- variant")
    card = ModelCard(spec.name, len(classes), preprocessing, names, ids)
    images = FolderDataset(train_files, test_files, len(classes), card.preprocessing, config, group, workers, crop_area)
    options = {
        "--variant": card.variant,
        "--weights": initial,
        "--weights-key": weights_key,
        "classes": ", ".join(classes),
        "training images": len(train_files),
        "test images": len(test_files),
        "file fingerprint": f"{train_files.fingerprint(folder)}, {test_files.fingerprint(folder)}",
        "--size": card.preprocessing.crop_size,
        "preprocessing": str(card.preprocessing),
        "--crop-area": crop_area,
        **flags.by_flag(config),
    }
    return results.train_and_report(network, images, Run(folder.name, output, config, card, options, group, **settings))


def _labels_and_ids(folders: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return labels and ids of the classes. Folders named by ImageNet's ids get ImageNet's labels."""
    known = dict(zip(labels.imagenet_class_ids(), labels.imagenet_labels(), strict=True))
    if all(name in known for name in folders):
        return tuple(known[name] for name in folders), folders
    return folders, ()


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("folder", type=cli.path, metavar="DIR", help="train/<class>/* and val/<class>/*, or <class>/*")
    cli.add_variant(parser)
    flags.add_weights(parser)
    cli.add_overrides(parser)
    share = DEFAULT_VALIDATION_SHARE
    share_help = "fraction of each class to hold out if there is no folder train; drawn with --seed, so keep the seed "
    share_help += f"to continue from the weights of another run (default: {share})"
    parser.add_argument("--validation-share", type=flags.fraction, default=share, metavar="X", help=share_help)
    area_help = f"the smallest fraction of an image that a random crop shows (default: {DEFAULT_CROP_AREA})"
    parser.add_argument("--crop-area", type=flags.area, default=DEFAULT_CROP_AREA, metavar="X", help=area_help)
    cores = distributed.cores_per_process(hardware.usable_cores())
    workers_help = "decoding processes per training process (default: one per core, split across training processes)"
    parser.add_argument("--workers", type=cli.integer_in(0, 256), default=cores, metavar="N", help=workers_help)
    flags.add_recipe(parser, DEFAULT, without=("translate", "cutout", "small_first"))
    flags.add_run(parser, default_output="runs/<folder>-<variant>")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    folder = arguments.folder.absolute()
    output = arguments.output or Path("runs") / f"{folder.name}-{arguments.variant}"
    call = functools.partial(
        train,
        folder,
        arguments.variant,
        output,
        overrides=arguments.overrides,
        validation_share=arguments.validation_share,
        crop_area=arguments.crop_area,
        workers=arguments.workers,
    )
    return launch.run(call, DEFAULT, output, arguments, "train/imagefolder.py", argv)


if __name__ == "__main__":
    cli.run(main)
