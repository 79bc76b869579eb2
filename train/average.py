"""Average the weights of several runs into one network, which is often better than each run.

    python train/cifar.py --dataset cifar10 --data ~/cifar10-jpeg --weights cifar10 --seed 1 --output runs/a
    python train/cifar.py --dataset cifar10 --data ~/cifar10-jpeg --weights cifar10 --seed 2 --output runs/b
    python train/average.py runs/a/cifar-310k.safetensors runs/b/cifar-310k.safetensors --data ~/cifar10-jpeg

The runs are those of train/cifar.py. All must start from the same weights, or continue from one of the others (Izmailov
et al. 2018, arXiv:1803.05407; Wortsman et al. 2022, arXiv:2203.05482). Averaging unrelated checkpoints does not work.

Batch norm statistics are not averaged. They are measured again, on training images with the last run's translation and
cutout but without mixup and CutMix. So the script also improves a single run that used --mixup or --cutmix: statistics
of mixed images make a network less certain about unmixed ones.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from simplenet import cli  # before torch: handles Ctrl-C during its import

# isort: split
import torch
from torch.optim.swa_utils import update_bn

from simplenet import checkpoints, weights
from simplenet.errors import UsageError, one_line
from simplenet.model_card import ModelCard
from train import checkpoint, data, flags, launch, results
from train.distributed import Group
from train.in_memory_dataset import InMemoryDataset
from train.loop import Run
from train.recipe import Recipe
from train.results import Result

STATISTICS_IMAGES = 10_000
"""The maximum number of training images for the batch norm statistics."""
_BATCH = 125


@dataclass(frozen=True)
class AverageResult(Result):
    """The result of averaging; `averaged` has an entry for each run: its path as `weights`, and its `top1`."""

    averaged: list[dict[str, Any]]

    def summary(self) -> str:
        """The result in one line."""
        each = ", ".join(f"{member['top1']:.2f}" for member in self.averaged)
        runs = f"the average of {len(self.averaged)} runs" if len(self.averaged) > 1 else "one run"
        is_worse = len(self.averaged) > 1 and self.top1 < min(member["top1"] for member in self.averaged)
        hint = "; worse than each of them: did they start from the same weights?" if is_worse else ""
        return one_line(
            f"{self.variant} on {self.dataset}: {self.top1:.2f} % top-1, {runs} ({each} %){hint}: {self.checkpoint}",
            limit=2000,
        )


def average(
    paths: Sequence[Path],
    output: Path,
    data_folder: Path | None = None,
    *,
    device: torch.device | None = None,
    half: bool = False,
    command: str = "",
) -> AverageResult:
    """Write the average as <variant>.safetensors, with .training.json.

    Args:
        paths: the <variant>.safetensors of runs of train/cifar.py; batch norm uses the augmentation of the last one.
        half: store convolution and linear weights as float16.

    Raises:
        UsageError: a path is not a run's result, or is repeated; networks or datasets differ; or `output` holds a run.
        WeightsError: a file is damaged, or the average is not finite.
        DataError: the dataset cannot be read.
        SimpleNetError: `output` cannot be written.
    """
    group = Group(device or torch.device("cpu"))
    torch.backends.cudnn.allow_tf32 = False  # as in train/loop.py
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a file is named twice; name each once")
    cards = [_card(path) for path in paths]
    card, dataset = cards[-1], cards[-1].training["dataset"]
    for path, other in zip(paths, cards, strict=True):
        if (replace(other, training={}), other.training["dataset"]) != (replace(card, training={}), dataset):
            raise UsageError(
                f"{path} ({other.variant}, {other.training['dataset']}) and {paths[-1]} ({card.variant}, {dataset}) "
                "have different networks, classes or preprocessing; leave one of them out"
            )
    with checkpoint.lock(output, group, command):
        if checkpoint.holds_run(output, card.variant):
            raise UsageError(f"{output} holds a run already; choose another --output")
        spec = data.get(dataset)
        splits = data.load(spec, data_folder)
        if (splits[0].classes, data.preprocessing(spec, splits[0])) != (card.labels, card.preprocessing):
            raise UsageError(f"{paths[-1]} was trained on other classes or images; name its dataset: --data DIR")
        recorded = card.training["recipe"]
        flip = spec.allows_flip and recorded.get("flip") is not False
        augmentation = {"translate": recorded["translate"], "cutout": recorded["cutout"], "flip": flip}
        config = Recipe(batch_size=min(_BATCH, len(splits[0])), **augmentation)
        images = InMemoryDataset(splits, card.preprocessing, config, group)
        networks = [weights.load(card.variant, path).model for path in paths]
        states, network = [each.state_dict() for each in networks], networks[0]
        # The mean is computed in float64; loading it casts it to the network's types.
        network.load_state_dict({name: torch.stack([s[name].double() for s in states]).mean(0) for name in states[0]})
        network.to(group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        update_bn(itertools.islice(images.epoch(0, 0), STATISTICS_IMAGES // config.batch_size), network)
        averaged = [{"weights": str(path), "top1": of.training["top1"]} for path, of in zip(paths, cards, strict=True)]
        run = Run(dataset, output, config, card, options={}, group=group, half=half, command=command)
        return results.store(network, images, run, AverageResult, recipe=augmentation, averaged=averaged)


def _card(path: Path) -> ModelCard:
    """Return the card of a run's final weights.

    Raises:
        UsageError: the file is not the result of train/cifar.py or train/average.py.
    """
    card = checkpoints.read(path).card
    training: dict[str, Any] = card.training if card is not None else {}
    recipe = training.get("recipe")
    pixels: list[Any] = [recipe.get(name) if isinstance(recipe, dict) else None for name in ("translate", "cutout")]
    is_run = isinstance(training.get("top1"), float) and training.get("dataset") in tuple(data.DATASETS)
    if card is None or not is_run or not all(type(value) is int and 0 <= value <= 32 for value in pixels):
        raise UsageError(
            f"{path} is not the result of a run of train/cifar.py; name the <variant>.safetensors that it wrote last"
        )
    return card


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    weights_help = "<variant>.safetensors of finished runs"
    parser.add_argument("weights", type=cli.path, nargs="+", metavar="PATH", help=weights_help)
    flags.add_data(parser)
    flags.add_device(parser)
    flags.add_half(parser)
    output_help = "output folder (default: runs/average)"
    parser.add_argument("--output", type=cli.path, default=Path("runs/average"), metavar="DIR", help=output_help)
    cli.add_json(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("averaging runs in one process; start it with python, not with torchrun")
    with launch.friendly_errors():
        result = average(
            arguments.weights,
            arguments.output,
            arguments.data,
            device=flags.device(arguments.device),
            half=arguments.half,
            command=launch.command("train/average.py", argv),
        )
    print(result.to_json() if arguments.json else result.summary())
    return 0


if __name__ == "__main__":
    cli.run(main)
