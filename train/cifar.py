"""Train a SimpleNet on a dataset of small images, on a CPU or a GPU.

    python train/cifar.py --dataset fashion-mnist --variant cifar-310k --epochs 20 --output runs/fashion-mnist
    python train/cifar.py --dataset mnist --data ~/mnist         its four files; without --data they are downloaded
    python train/cifar.py --dataset cifar10 --data ~/cifar10-jpeg --variant cifar-5m --epochs 30
    python train/cifar.py --dataset folder --data ~/leaves       train/<class>/*.jpg and test/<class>/*.jpg
    python train/cifar.py --dataset cifar100 --variant cifar-5m --weights cifar10     fine-tune, with a new last layer
    python train/cifar.py --dataset fashion-mnist --resume       after Ctrl-C or a power cut, with the same flags
    torchrun --nproc-per-node 2 train/cifar.py --dataset cifar100 --variant cifar-5m          one process per GPU

The output folder gets, after every epoch, log.jsonl, TensorBoard files, the state for --resume, and two files that
every script takes as --weights PATH:

    last.safetensors   the exponential moving average (EMA) of the weights
    best.safetensors   the EMA after the epoch with the best test accuracy, which is optimistically biased because the
                       epoch is selected on the test set

At the end, it gets <variant>.safetensors (the EMA after the last epoch), .training.json (summary and log) and
.training.png (curve).

With several processes, --batch is the global batch size. On GPUs, batch norm is synchronized. On CPUs, each process
computes its own batch statistics, so use one process per machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import warnings
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from simplenet import cli, variants
from simplenet.errors import AssumedCardWarning
from simplenet.model_card import ModelCard
from train import data, flags, in_memory_dataset, launch, recipe, results
from train.distributed import Group
from train.in_memory_dataset import InMemoryDataset
from train.loop import Run
from train.recipe import Recipe
from train.results import TrainingResult


def train(
    dataset: str,
    variant: str,
    output: Path,
    config: Recipe = recipe.DEFAULT,
    data_folder: Path | None = None,
    *,
    initial: str = "random",
    weights_key: str | None = None,
    group: Group | None = None,
    **settings: Any,
) -> TrainingResult | None:
    """Train a network and write the files that the module's docstring names.

    The same seed, number of threads and machine give the same weights; on a CPU bit for bit, also after `resume`.

    Args:
        data_folder: the dataset's files; None uses the Debian package or downloads them.
        initial, weights_key: the initial weights, as --weights and --weights-key.
        settings: other fields of `loop.Run`: resume, compile, half, minutes_between_saves, command.

    Returns:
        The result, or None in all processes of `group` but the first.

    Raises:
        UsageError: unknown dataset, variant or weights; nothing to resume, or other options; or `output` is in use.
        DataError: the dataset cannot be read.
        WeightsError: the initial weights cannot be used.
        SimpleNetError: the loss is not finite, or `output` cannot be written; last.safetensors is intact.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    group = group or Group()
    dataset_spec = data.get(dataset)
    splits = data.load(dataset_spec, data_folder)
    labels, preprocessing = splits[0].classes, data.preprocessing(dataset_spec, splits[0])
    spec = variants.get(variant)
    spec.check_side(preprocessing.input_size, "choose a cifar- variant")
    if config.small_first:
        spec.check_side(in_memory_dataset.reduced_side(preprocessing.input_size), "leave out --small-first")
    config = dataclasses.replace(config, flip=config.flip and dataset_spec.allows_flip)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumedCardWarning)  # the dataset's preprocessing is used
        network, _ = recipe.initial_network(
            spec.name, initial, labels, config, weights_key=weights_key, resume=bool(settings.get("resume"))
        )
    images = InMemoryDataset(splits, preprocessing, config, group)
    options = {
        "--dataset": dataset,
        "--variant": spec.name,
        "--weights": initial,
        "--weights-key": weights_key,
        "training images": len(splits[0]),
        "test images": len(splits[1]),
        "image fingerprint": data.fingerprint(splits),
        "preprocessing": str(preprocessing),
        **flags.by_flag(config),
    }
    card = ModelCard(spec.name, len(labels), preprocessing, labels)
    return results.train_and_report(network, images, Run(dataset, output, config, card, options, group, **settings))


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    flags.add_dataset(parser)
    cli.add_variant(parser, default="cifar-310k")
    flags.add_weights(parser)
    flags.add_recipe(parser, recipe.DEFAULT, without=("freeze",))
    flags.add_run(parser, default_output="runs/<dataset>-<variant>")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    output = arguments.output or Path("runs") / f"{arguments.dataset}-{arguments.variant}"
    call = functools.partial(train, arguments.dataset, arguments.variant, output, data_folder=arguments.data)
    return launch.run(call, recipe.DEFAULT, output, arguments, "train/cifar.py", argv)


if __name__ == "__main__":
    cli.run(main)
