"""Train or fine-tune a SimpleNet on a folder of classes of photographs: ImageNet, or your own.

    python train/imagefolder.py ~/flowers --variant 1.5m --weights pretrained --freeze 6 --epochs 10
    python train/imagefolder.py ~/flowers --variant 1.5m --weights runs/herbs/1.5m.safetensors
    python train/imagefolder.py ~/flowers --variant cifar-5m --size 64 --epochs 100 --mixup 0.2
    python train/imagefolder.py ~/flowers --resume          after Ctrl-C or a power cut, with the same flags
    torchrun --nproc-per-node 8 train/imagefolder.py ~/imagenet --variant 5.7m --batch 1024 --learning-rate 0.8 \\
        --epochs 100 --weight-decay 3e-5 --average-decay 0.9999 --label-smoothing 0.1

The folder has train/<class>/* and val/<class>/* (or test/<class>/*), or just <class>/*, of which --validation-share is
kept for measuring. The names of the folders are the names of the classes: the checkpoint carries them, and so does
every artifact that is made from it. Weights for other classes get a new last layer.

The output folder gets what train/cifar.py writes, in the same files. best.safetensors is chosen by the very accuracy
that it is then known by: an offer, not a result.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from simplenet import cli, hardware, images, labels, variants
from simplenet.errors import DataError
from simplenet.model import SimpleNet
from simplenet.model_card import ModelCard
from simplenet.preprocessing import Preprocessing
from train import class_folders, distributed, flags, friendly_errors, init_model, loop, recipe, results, run_lock
from train.distributed import Group
from train.folder_dataset import FolderDataset, LabeledFiles
from train.recipe import Recipe, RngStream
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
    size: int | None = None,
    validation_share: float = DEFAULT_VALIDATION_SHARE,
    crop_area: float = DEFAULT_CROP_AREA,
    workers: int = 2,
    group: Group | None = None,
    resume: bool = False,
    compile: bool = False,
    half: bool = False,
    minutes_between_saves: float = 10.0,
    command: str = "",
) -> TrainingResult | None:
    """Trains on a folder of classes and writes the files that the module's docstring names into `output`.

    Args:
        initial: the weights to start from, as --weights says.
        size: pixels of the network's square input; None is that of the initial weights, else the variant's own.
        validation_share: of each class, where the folder has no val/ or test/.
        crop_area: the smallest part of a photograph that a random crop shows.
        workers: processes that decode, of each training process; 0 decodes in the training process itself.
        half: write the final weights as float16.

    Returns:
        What was trained, or None in all processes of a group but the first.

    Raises:
        UsageError: unknown variant or weights; nothing to resume, or a run with other options; or another run is
            writing to `output`.
        DataError: the folder cannot be used. WeightsError: the initial weights cannot.
        SimpleNetError: the loss is not a number any more, or `output` cannot be written; last.safetensors is intact.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    group = group or Group()
    classes, train_files, test_files = split(folder, validation_share, config.seed)
    network, card = _start_from(variant, initial, classes, size, config)
    photographs = FolderDataset(
        train_files, test_files, len(classes), card.preprocessing, config, group, workers, crop_area
    )
    run = loop.Run(
        title=f"{card.variant} on {folder.name}",
        output=output,
        config=config,
        card=card,
        options={
            "--variant": card.variant,
            "--weights": initial,
            "classes": ", ".join(classes),
            "training images": len(train_files),
            "test images": len(test_files),
            "files of fingerprint": f"{train_files.fingerprint(folder)}, {test_files.fingerprint(folder)}",
            "--size": card.preprocessing.crop_size,
            "preprocessing": str(card.preprocessing),
            "--crop-area": crop_area,
            **flags.named(config),
        },
        group=group,
        resume=resume,
        compile=compile,
        minutes_between_saves=minutes_between_saves,
    )
    with run_lock.held(output, group):
        position = loop.train(network, photographs, run)
        if not group.is_first:
            return None
        return results.finish(run, photographs, position, folder.name, command, half)


def split(folder: Path, validation_share: float, seed: int) -> tuple[tuple[str, ...], LabeledFiles, LabeledFiles]:
    """The classes, and the files to train on and to measure with.

    Raises:
        DataError: no such folder, fewer than two classes, or a class without images on either side.
    """
    if (folder / "train").is_dir():
        held_out = images.held_out(folder, ("val", "test"))
        classes = class_folders.class_names(folder / "train")
        return (
            classes,
            LabeledFiles(*class_folders.labeled_files(folder / "train", classes)),
            LabeledFiles(*class_folders.labeled_files(held_out, classes)),
        )
    classes = class_folders.class_names(folder)
    paths, of_class = class_folders.labeled_files(folder, classes)
    held = np.zeros(len(paths), bool)
    for index, name in enumerate(classes):
        members = np.flatnonzero(of_class == index)
        if len(members) < 2:
            raise DataError(f"{folder / name} has one image, so that none is left to measure with; add some")
        count = min(max(1, round(validation_share * len(members))), len(members) - 1)
        generator = np.random.default_rng(recipe.seed_for(seed, RngStream.SPLIT, index))
        held[generator.choice(members, count, replace=False)] = True
    kept = [LabeledFiles([paths[i] for i in np.flatnonzero(part)], of_class[part]) for part in (~held, held)]
    return classes, kept[0], kept[1]


def _start_from(
    variant: str, initial: str, classes: tuple[str, ...], size: int | None, config: Recipe
) -> tuple[SimpleNet, ModelCard]:
    """The network with the initial weights, and the card of what is trained."""
    spec = variants.get(variant)
    names, ids = _class_names(classes)
    network, card = init_model.network(variant, initial, names, config)
    views = card.preprocessing if card is not None else spec.preprocessing
    if size is not None:
        views = Preprocessing(max(size, round(size * _resize_ratio(views))), size, views.mean, views.std)
        views.check()
    spec.check_side(views.crop_size, "choose a larger --size, or a cifar- variant")
    return network, ModelCard(spec.name, len(classes), views, names, ids)


def _resize_ratio(views: Preprocessing) -> float:
    """256 / 224 for ImageNet's: how much of the picture lies outside the crop stays the same at another size."""
    return views.resize_shorter_side / views.crop_size


def _class_names(folders: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels and ids of the classes: folders that are named by ImageNet's ids get the names that people know."""
    known = dict(zip(labels.imagenet_class_ids(), labels.imagenet_labels(), strict=True))
    if all(name in known for name in folders):
        return tuple(known[name] for name in folders), folders
    return folders, ()


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("folder", type=cli.path, metavar="DIR", help="train/<class>/* and val/<class>/*, or <class>/*")
    cli.add_variant(parser)
    flags.add_weights(parser)
    parser.add_argument(
        "--freeze",
        type=cli.integer_in(0, 100),
        default=0,
        metavar="N",
        help="the first N convolutions stay as they are, with their batch norm's statistics (default: 0)",
    )
    parser.add_argument(
        "--size",
        type=cli.integer_in(16, 1024),
        metavar="PIXELS",
        help="side of the network's input (default: that of the weights or the variant)",
    )
    parser.add_argument(
        "--validation-share",
        type=flags.share,
        default=DEFAULT_VALIDATION_SHARE,
        metavar="X",
        help="of each class, where there is no folder val or test; --seed chooses the pictures: keep it when a run "
        f"starts from weights of another one (default: {DEFAULT_VALIDATION_SHARE})",
    )
    parser.add_argument(
        "--crop-area",
        type=flags.area,
        default=DEFAULT_CROP_AREA,
        metavar="X",
        help=f"the smallest part of a picture that a random crop shows (default: {DEFAULT_CROP_AREA})",
    )
    parser.add_argument(
        "--workers",
        type=cli.integer_in(0, 256),
        default=distributed.share_of(hardware.usable_cores()),
        metavar="N",
        help="processes that decode, of each training process (default: one a core, shared out)",
    )
    flags.add_recipe(parser, DEFAULT)
    flags.add_run(parser, default_output="runs/<folder>-<variant>")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    device = flags.device(arguments.device)
    config = Recipe(**flags.common_recipe(arguments, device), translate=0, cutout=0, freeze=arguments.freeze)
    folder = arguments.folder.absolute()
    output = arguments.output or Path("runs") / f"{folder.name}-{arguments.variant}"
    with distributed.joined(device) as group, flags.resumable(output, group), friendly_errors.explained():
        result = train(
            folder,
            arguments.variant,
            output,
            config,
            initial=arguments.weights,
            size=arguments.size,
            validation_share=arguments.validation_share,
            crop_area=arguments.crop_area,
            workers=arguments.workers,
            group=group,
            **flags.common_run(arguments),
            command=flags.typed("train/imagefolder.py", argv),
        )
    if result is not None:
        print(result.to_json() if arguments.json else result.summary())
    return 0


if __name__ == "__main__":
    cli.run(main)
