"""Average the weights of several runs into one network, which is often better than each of them.

    python train/cifar.py --dataset cifar10 --data ~/cifar10-jpeg --weights cifar10 --seed 1 --output runs/a
    python train/cifar.py --dataset cifar10 --data ~/cifar10-jpeg --weights cifar10 --seed 2 --output runs/b
    python train/average.py runs/a/cifar-310k.safetensors runs/b/cifar-310k.safetensors --data ~/cifar10-jpeg

The runs are train/cifar.py's. They must have started from the same weights, or one from another's end (Izmailov et al.
2018, arXiv:1803.05407; Wortsman et al. 2022, arXiv:2203.05482): the average of strangers knows nothing.

Batch norm's means and variances are not averaged but measured anew, on training images that are moved and have squares
hidden as in the last of the runs, but are not mixed. So a single run is worth it too, after --mixup or --cutmix: what
batch norm then knows is from mixed images, and makes a network unsure of whole ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch.optim.swa_utils import update_bn

from simplenet import checkpoints, cli, strict_json, variants, weights
from simplenet.errors import UsageError, WeightsError, one_line
from simplenet.model import SimpleNet
from simplenet.model_card import ModelCard
from train import data, flags, friendly_errors, loop, report, results, run_lock
from train.distributed import Group
from train.in_memory_dataset import InMemoryDataset
from train.recipe import Recipe

STATISTICS_IMAGES = 10_000
"""Training images that batch norm's means and variances are measured on; of fewer, as many as make whole batches."""
_BATCH = 125


@dataclass(frozen=True)
class Member:
    """One of the averaged networks: its file, and the top-1 in percent that its run ended with."""

    weights: str
    top1: float


@dataclass(frozen=True)
class AverageResult:
    """`top1` in percent of all readable test images, and their mean cross-entropy, in float32 by the stored weights."""

    checkpoint: Path
    dataset: str
    variant: str
    top1: float
    test_loss: float
    test_images: int
    unreadable_images: int
    averaged: list[Member]
    machine: str

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "checkpoint": str(self.checkpoint)})

    def summary(self) -> str:
        each = ", ".join(f"{member.top1:.2f}" for member in self.averaged)
        runs = f"the average of {len(self.averaged)} runs" if len(self.averaged) > 1 else "one run"
        is_worse = len(self.averaged) > 1 and self.top1 < min(member.top1 for member in self.averaged)
        doubt = "; less than each had: did they start from the same weights?" if is_worse else ""
        return one_line(
            f"{self.variant} on {self.dataset}: {self.top1:.2f} % top-1, {runs} ({each} %){doubt}: {self.checkpoint}",
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
    """Writes <variant>.safetensors, and its .training.json, into `output`.

    Args:
        paths: the final <variant>.safetensors of runs of train/cifar.py; images are augmented as in the last of them.
        half: write kernels and matrices as float16.

    Raises:
        UsageError: no runs of train/cifar.py, of different networks or data, or one twice; or `output` holds a run.
        WeightsError: a file is damaged, or the average is not finite. DataError: the data set cannot be read.
        SimpleNetError: `output` cannot be written.
    """
    group = Group(device or torch.device("cpu"))
    torch.backends.cudnn.allow_tf32 = False  # as in train/loop.py
    cards = [_card(path) for path in paths]
    card, dataset = cards[-1], cards[-1].training["dataset"]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a file is named twice; name each once")
    for path, other in zip(paths, cards, strict=True):
        if (replace(other, training={}), other.training["dataset"]) != (replace(card, training={}), dataset):
            raise UsageError(
                f"{path} ({other.variant}, {other.training['dataset']}) and {paths[-1]} ({card.variant}, {dataset}) "
                "are of different networks, classes or preprocessing; leave one of them out"
            )
    final = output / f"{card.variant}.safetensors"
    with run_lock.held(output, group):
        if loop.holds_run(output, card.variant):
            raise UsageError(f"{output} holds a run already; choose another --output")
        spec, splits = data.read(dataset, data_folder)
        if (spec.labels, spec.preprocessing) != (card.labels, card.preprocessing):
            raise UsageError(f"{paths[-1]} was trained on other classes or images; name its data set: --data DIR")
        config = _augmentation(card, paths[-1], spec.mirrored, len(splits[0]))
        images = InMemoryDataset.of(splits, spec.preprocessing, config, group)
        network = _mean([weights.load(card.variant, path).model for path in paths])
        network.to(group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        update_bn(itertools.islice(images.epoch(0, 0), STATISTICS_IMAGES // config.batch_size), network)
        state = results.halved(network.state_dict()) if half else network.state_dict()
        network.load_state_dict(state)  # as it will be read back
        top1, test_loss = images.evaluate(network, False, group)
        if not all(map(math.isfinite, (test_loss, *(float(tensor.abs().max()) for tensor in state.values())))):
            raise WeightsError(f"the average of {', '.join(map(str, paths))} is not finite; name other runs")
        members = [Member(str(path), of.training["top1"]) for path, of in zip(paths, cards, strict=True)]
        result = AverageResult(
            checkpoint=final,
            dataset=dataset,
            variant=card.variant,
            top1=round(top1, 2),
            test_loss=round(test_loss, 5),
            test_images=images.test_images,
            unreadable_images=images.unreadable_images,
            averaged=members,
            machine=report.machine(group.device),
        )
        augmentation = {"translate": config.translate, "cutout": config.cutout, "flip": config.flip}
        results.record(final, state, card, {**asdict(result), "recipe": augmentation, "command": command})
    return result


def _card(path: Path) -> ModelCard:
    """What a run of train/cifar.py wrote at its end, checked as far as it is used; a file may be anybody's."""
    _, card = checkpoints.read(path)
    training: dict[str, Any] = card.training if card is not None else {}
    dataset, top1 = training.get("dataset"), training.get("top1")
    if card is None or not isinstance(dataset, str) or dataset not in data.DATASETS or not isinstance(top1, float):
        raise UsageError(
            f"{path} is not the end of a run of train/cifar.py; name the <variant>.safetensors that a run has written"
        )
    try:
        return replace(card, variant=variants.get(card.variant).name)
    except UsageError as error:
        raise WeightsError(f"{path} holds weights of an {error}") from error


def _augmentation(card: ModelCard, path: Path, mirrored: bool, images: int) -> Recipe:
    """The recipe that a run's card tells of, as far as images that are not mixed depend on it.

    Raises:
        WeightsError: it tells of none, or of an impossible one.
    """
    told: Any = card.training.get("recipe")
    pixels: list[Any] = [told.get(name) if isinstance(told, dict) else None for name in ("translate", "cutout")]
    if not all(strict_json.is_integer(value) and 0 <= value <= 32 for value in pixels):
        raise WeightsError(f"{path} tells of no recipe that train/cifar.py could have had; name another run's file")
    flip = mirrored and told.get("flip") is not False
    return Recipe(batch_size=min(_BATCH, images), translate=pixels[0], cutout=pixels[1], flip=flip)


def _mean(networks: Sequence[SimpleNet]) -> SimpleNet:
    """The first network with the mean of all their weights, formed in float64."""
    states = [network.state_dict() for network in networks]
    mean = {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}
    networks[0].load_state_dict(mean)  # casts to what the network has
    return networks[0]


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "weights", type=cli.path, nargs="+", metavar="PATH", help="<variant>.safetensors of finished runs"
    )
    parser.add_argument(
        "--data",
        type=cli.path,
        metavar="DIR",
        help="the folder of the data set that the runs had (default: its Debian package's, else it is downloaded once)",
    )
    flags.add_device(parser)
    flags.add_half(parser)
    parser.add_argument(
        "--output", type=cli.path, default=Path("runs/average"), metavar="DIR", help="default: runs/average"
    )
    cli.add_json(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("averaging is the work of one process; start it with python, not with torchrun")
    with friendly_errors.explained():
        result = average(
            arguments.weights,
            arguments.output,
            arguments.data,
            device=flags.device(arguments.device),
            half=arguments.half,
            command=flags.typed("train/average.py", argv),
        )
    print(result.to_json() if arguments.json else result.summary())
    return 0


if __name__ == "__main__":
    cli.run(main)
