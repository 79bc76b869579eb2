"""Train a SimpleNet on a data set of small images, on a CPU or a GPU.

    python train/cifar.py --dataset fashion-mnist --variant cifar-310k --epochs 20 --output runs/fashion-mnist
    python train/cifar.py --dataset mnist --data ~/mnist         four .gz files; without --data they are downloaded
    python train/cifar.py --dataset cifar10 --data ~/cifar10-jpeg --variant cifar-5m --epochs 30
    python train/cifar.py --dataset folder --data ~/leaves       train/<class>/*.jpg and test/<class>/*.jpg
    python train/cifar.py --dataset cifar100 --variant cifar-5m --weights cifar10          the last layer is new
    python train/cifar.py --dataset fashion-mnist --resume       after Ctrl-C or a power cut, with the same flags
    torchrun --nproc-per-node 2 train/cifar.py --dataset cifar100 --variant cifar-5m

The output folder gets, after every epoch, last.safetensors (the exponential moving average of the weights, which any
script here takes as --weights PATH), best.safetensors (that of the epoch with the best test accuracy, which is chosen
by the very number that it is then known by: an offer, not a result), log.jsonl, TensorBoard's files, and the state
that --resume continues from. At the end <variant>.safetensors is the last average, with its .training.json (summary
and log) and .training.png (the curve): no epoch is chosen by its test accuracy.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from simplenet import cli, variants
from simplenet.model_card import ModelCard
from train import (
    data,
    distributed,
    flags,
    friendly_errors,
    in_memory_dataset,
    init_model,
    loop,
    recipe,
    results,
    run_lock,
)
from train.distributed import Group
from train.in_memory_dataset import InMemoryDataset
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
    group: Group | None = None,
    resume: bool = False,
    compile: bool = False,
    half: bool = False,
    minutes_between_saves: float = 10.0,
    command: str = "",
) -> TrainingResult | None:
    """Trains a network and writes the files that the module's docstring names into `output`.

    The same seed, threads and machine give the same weights, on a CPU bit by bit, also over a `resume`. `initial` is
    what to start from, as --weights says. `half` writes the final weights as float16. `command` is recorded in the
    results.

    Returns:
        What was trained, or None in all processes of a group but the first.

    Raises:
        UsageError: unknown data set, variant or weights; nothing to resume, or a run with other options; or another run
            is writing to `output`.
        DataError: the data set cannot be read. WeightsError: the initial weights cannot.
        SimpleNetError: the loss is not a number any more, or `output` cannot be written; last.safetensors is intact.
        KeyboardInterrupt: after Ctrl-C, once the state is saved.
    """
    group = group or Group()
    spec, splits = data.read(dataset, data_folder)
    chosen = variants.get(variant)
    name, side = chosen.name, spec.preprocessing.input_size
    chosen.check_side(side, "choose a cifar- variant")
    if config.small_first:
        chosen.check_side(in_memory_dataset.smaller(side), "leave out --small-first")
    config = dataclasses.replace(config, flip=config.flip and spec.mirrored)
    network, _ = init_model.network(name, initial, spec.labels, config)
    images = InMemoryDataset.of(splits, spec.preprocessing, config, group)
    run = loop.Run(
        title=f"{name} on {dataset}",
        output=output,
        config=config,
        card=ModelCard(name, len(spec.labels), spec.preprocessing, spec.labels),
        options={
            "--dataset": dataset,
            "--variant": name,
            "--weights": initial,
            "training images": len(splits[0]),
            "test images": len(splits[1]),
            "images of fingerprint": data.fingerprint(splits),
            "preprocessing": str(spec.preprocessing),
            **flags.named(config),
        },
        group=group,
        resume=resume,
        compile=compile,
        minutes_between_saves=minutes_between_saves,
    )
    with run_lock.held(output, group):
        position = loop.train(network, images, run)
        if not group.is_first:
            return None
        return results.finish(run, images, position, dataset, command, half)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    flags.add_dataset(parser)
    cli.add_variant(parser, default="cifar-310k")
    flags.add_weights(parser)
    flags.add_recipe(parser, recipe.DEFAULT)
    for flag, value, meaning in (
        ("--translate", recipe.DEFAULT.translate, "how far each image is moved, at most, on each axis"),
        ("--cutout", recipe.DEFAULT.cutout, "side of the square hidden in each image"),
    ):
        parser.add_argument(
            flag, type=cli.integer_in(0, 32), default=value, metavar="PIXELS", help=f"{meaning} (default: {value})"
        )
    parser.add_argument(
        "--small-first",
        type=flags.share,
        default=recipe.DEFAULT.small_first,
        metavar="X",
        help="part of the epochs, from the first, on images of 3/4 of the side: almost twice as fast (default: 0)",
    )
    flags.add_run(parser, default_output="runs/<dataset>-<variant>")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    device = flags.device(arguments.device)
    config = Recipe(
        **flags.common_recipe(arguments, device),
        translate=arguments.translate,
        cutout=arguments.cutout,
        small_first=arguments.small_first,
    )
    output = arguments.output or Path("runs") / f"{arguments.dataset}-{arguments.variant}"
    with distributed.joined(device) as group, flags.resumable(output, group), friendly_errors.explained():
        result = train(
            arguments.dataset,
            arguments.variant,
            output,
            config,
            arguments.data,
            initial=arguments.weights,
            group=group,
            **flags.common_run(arguments),
            command=flags.typed("train/cifar.py", argv),
        )
    if result is not None:
        print(result.to_json() if arguments.json else result.summary())
    return 0


if __name__ == "__main__":
    cli.run(main)
