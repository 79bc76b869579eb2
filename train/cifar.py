"""Train a SimpleNet on a small-image data set, on this machine's CPU.

    sudo apt install dataset-fashion-mnist
    python train/cifar.py --dataset fashion-mnist --variant cifar-310k --epochs 20 --output runs/fashion-mnist
    python train/cifar.py --dataset mnist --data ~/mnist --epochs 20
    python train/cifar.py --dataset cifar10 --data ~/cifar10-jpeg --variant cifar-5m --epochs 30

The output folder gets last.safetensors after every epoch (so Ctrl-C keeps the last whole one), log.jsonl with one
line per epoch, and at the end <variant>.safetensors, which any script here takes as --weights PATH, with its
.training.json (summary and log) and .training.png (the curve). The weights are the exponential moving average of
the last epoch: no epoch is chosen by its test accuracy, which is logged only to be looked at.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from rich.progress import Progress
from torch.nn import functional

from simplenet import cli, model, variants, weights
from simplenet.errors import DataError, SimpleNetError
from simplenet.model_card import ModelCard
from train import data, recipe, report
from train.recipe import Recipe


@dataclass(frozen=True)
class TrainingResult:
    """`top1` in percent of the whole test split, measured in float32 with the weights read back from the disk.

    `seconds` is the whole run with its evaluations, `images_per_second` the training alone.
    """

    checkpoint: Path
    dataset: str
    variant: str
    top1: float
    test_loss: float
    epochs: int
    seconds: float
    images_per_second: float
    machine: str

    def summary(self) -> str:
        return (
            f"{self.variant} on {self.dataset}: {self.top1:.2f} % top-1 after {self.epochs} epochs "
            f"in {self.seconds:.0f} s ({self.images_per_second:.0f} images/s) on {self.machine}: {self.checkpoint}"
        )


def train(
    dataset: str,
    variant: str,
    output: Path,
    how: Recipe = recipe.DEFAULT,
    data_folder: Path | None = None,
    command: str = "",
) -> TrainingResult:
    """Trains from random weights and writes the files that the module's docstring names into `output`.

    The same seed, threads and machine give the same weights. `command` is recorded in the results.

    Raises:
        UsageError: unknown data set or variant.
        DataError: the data set cannot be read.
        SimpleNetError: the loss is not a number any more, or `output` cannot be written; last.safetensors is intact.
    """
    spec = data.get(dataset)
    network = model.create(variant, len(spec.labels), seed=how.seed)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train_split, test_split = data.load(spec, data_folder)
    pixels, labels = recipe.to_tensors(train_split, spec.preprocessing)
    test = recipe.to_tensors(test_split, spec.preprocessing)
    if len(labels) < how.batch_size:
        raise DataError(f"{dataset} has {len(labels)} training images, fewer than one batch; use --batch {len(labels)}")

    card = ModelCard(variants.get(variant).name, len(spec.labels), spec.preprocessing, spec.labels)
    generator = torch.Generator().manual_seed(how.seed)
    optimizer = recipe.optimizer(network, how.weight_decay)
    average = recipe.WeightAverage(network, how.average_decay)
    steps_per_epoch = len(labels) // how.batch_size
    steps = how.epochs * steps_per_epoch
    log = report.Log(output / "log.jsonl")
    started = time.perf_counter()

    with Progress(*report.columns(), console=cli.console()) as progress:
        bar = progress.add_task(f"{variant} on {dataset}", total=steps * how.batch_size, note="")
        for epoch in range(how.epochs):
            epoch_started = time.perf_counter()
            train_loss = 0.0
            network.train()
            order = torch.randperm(len(labels), generator=generator)[: steps_per_epoch * how.batch_size]
            for step, chosen in enumerate(torch.split(order, how.batch_size), start=epoch * steps_per_epoch):
                # Pixels are uint8 until here; everything random comes from one generator.
                batch = recipe.augment(pixels[chosen], how.translate, spec.mirrored, generator)
                images = recipe.cutout(recipe.normalise(batch, spec.preprocessing), how.cutout, generator)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate(step, steps, how.peak_learning_rate, how.warmup)

                with recipe.autocast(how.bf16):
                    logits = network(images)
                loss = functional.cross_entropy(logits.float(), labels[chosen], label_smoothing=how.label_smoothing)
                if not math.isfinite(loss.item()):
                    raise SimpleNetError(f"the loss is {loss.item()} in epoch {epoch + 1}; try a lower --learning-rate")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                average.update(network)
                train_loss += loss.item() / steps_per_epoch
                progress.advance(bar, how.batch_size)

            seconds = time.perf_counter() - epoch_started
            top1, test_loss = recipe.evaluate(average.model, *test, spec.preprocessing, how.bf16)
            weights.save(output / "last.safetensors", average.model.state_dict(), card)
            speed = len(order) / seconds
            log.append(epoch + 1, seconds, speed, train_loss=train_loss, test_loss=test_loss, test_top1=top1)
            progress.update(bar, note=f"epoch {epoch + 1}: loss {train_loss:.3f}, test {top1:.2f} %")

    return _finish(output, dataset, how, card, test, log, time.perf_counter() - started, command)


def _finish(
    output: Path,
    dataset: str,
    how: Recipe,
    card: ModelCard,
    test: tuple[torch.Tensor, torch.Tensor],
    log: report.Log,
    seconds: float,
    command: str,
) -> TrainingResult:
    """Measures the last checkpoint as its users get it, from the file and in float32, and writes the final files."""
    network = weights.load(card.variant, output / "last.safetensors").model
    top1, test_loss = recipe.evaluate(network, *test, card.preprocessing, bf16=False)
    training_seconds = sum(line["seconds"] for line in log.lines)
    images = sum(line["seconds"] * line["images_per_second"] for line in log.lines)
    checkpoint = output / f"{card.variant}.safetensors"
    result = TrainingResult(
        checkpoint=checkpoint,
        dataset=dataset,
        variant=card.variant,
        top1=round(top1, 2),
        test_loss=round(test_loss, 5),
        epochs=how.epochs,
        seconds=round(seconds, 1),
        images_per_second=round(images / training_seconds, 1),
        machine=report.machine(),
    )
    facts = {
        **{name: value for name, value in asdict(result).items() if name != "checkpoint"},
        "test_images": len(test[1]),
        "recipe": asdict(how),
        "command": command,
        "versions": {"torch": torch.__version__, "python": sys.version.split()[0]},
    }
    weights.save(checkpoint, network.state_dict(), ModelCard(**{**card.__dict__, "training": facts}))
    report.write_json(checkpoint.with_suffix(".training.json"), {**facts, "log": log.lines})
    report.write_curve(checkpoint.with_suffix(".training.png"), f"{card.variant} on {dataset}", log.lines, result.top1)
    return result


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    default = recipe.DEFAULT
    parser.add_argument(
        "--dataset",
        type=cli.choice("data set", tuple(data.DATASETS)),
        default="fashion-mnist",
        metavar="NAME",
        help=f"{', '.join(data.DATASETS)} (default: fashion-mnist)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the data set's folder (default: where its Debian package puts it)"
    )
    cli.add_variant(parser, default="cifar-310k")
    parser.add_argument(
        "--epochs",
        type=cli.integer_in(1, 10_000),
        default=default.epochs,
        metavar="N",
        help=f"passes over the training images (default: {default.epochs})",
    )
    parser.add_argument(
        "--batch",
        type=cli.integer_in(2, 65_536),
        default=default.batch_size,
        metavar="N",
        help=f"images per step (default: {default.batch_size})",
    )
    parser.add_argument(
        "--learning-rate",
        type=_positive,
        default=default.peak_learning_rate,
        metavar="X",
        help=f"at the schedule's peak (default: {default.peak_learning_rate})",
    )
    parser.add_argument(
        "--cutout",
        type=cli.integer_in(0, 32),
        default=default.cutout,
        metavar="PIXELS",
        help=f"side of the square hidden in each image (default: {default.cutout})",
    )
    parser.add_argument("--fp32", action="store_true", help="compute in float32 only: slower, for CPUs without bf16")
    parser.add_argument(
        "--seed",
        type=cli.integer_in(0, 2**31),
        default=default.seed,
        metavar="N",
        help="weights, order and augmentation (default: 0)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: runs/<dataset>-<variant>)")
    cli.add_json(parser)
    return parser  # fmt: skip


def _positive(text: str) -> float:
    """argparse type: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    how = Recipe(
        epochs=arguments.epochs,
        batch_size=arguments.batch,
        peak_learning_rate=arguments.learning_rate,
        cutout=arguments.cutout,
        bf16=not arguments.fp32,
        seed=arguments.seed,
    )
    output = arguments.output or Path("runs") / f"{arguments.dataset}-{arguments.variant}"
    typed = shlex.join(["python", "train/cifar.py", *(sys.argv[1:] if argv is None else argv)])
    try:
        result = train(arguments.dataset, arguments.variant, output, how, arguments.data, command=typed)
    except KeyboardInterrupt:
        if epochs := report.epochs_logged(output / "log.jsonl"):
            cli.console().print(
                f"{output / 'last.safetensors'} holds the weights after epoch {epochs}", highlight=False
            )
        raise
    print(json.dumps({**asdict(result), "checkpoint": str(result.checkpoint)}) if arguments.json else result.summary())
    return 0


if __name__ == "__main__":
    cli.run(main)
