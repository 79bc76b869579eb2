"""The command-line flags that the training scripts share."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import torch

from simplenet import cli
from simplenet.errors import UsageError
from train import data, recipe
from train.recipe import Recipe

DEVICES = ("auto", "cpu", "cuda")
_FLAGS = {
    "batch_size": "--batch",
    "peak_learning_rate": "--learning-rate",
    "flip": "flip (--no-flip turns it off)",
    "bf16": "bf16 (used where the hardware supports it, unless --fp32 is given)",
}
"""Flags of the Recipe's fields; a field that is not listed has a flag of its own name."""


def add_dataset(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--dataset",
        type=cli.choice("dataset", tuple(data.DATASETS)),
        default="fashion-mnist",
        metavar="NAME",
        help=f"{', '.join(data.DATASETS)} (default: fashion-mnist)",
    )
    add_data(to)


def add_data(to: argparse.ArgumentParser) -> None:
    help = "the dataset's folder (default: that of its Debian package, else it is downloaded once)"
    to.add_argument("--data", type=cli.path, metavar="DIR", help=help)


def add_weights(to: argparse.ArgumentParser) -> None:
    help = "initial weights: random, the official ones, shipped ones by name, or a checkpoint (default: random)"
    to.add_argument("--weights", default="random", metavar="random|pretrained|NAME|PATH", help=help)
    cli.add_weights_key(to)


def add_recipe(to: argparse.ArgumentParser, default: Recipe, without: Collection[str]) -> None:
    """Add the flags of the Recipe's fields, except of the fields in `without`."""
    rows = (
        ("epochs", cli.integer_in(1, 10_000), "N", "passes over the training images"),
        ("batch_size", cli.integer_in(2, 65_536), "N", "global batch size, split across processes"),
        ("peak_learning_rate", rate, "X", "peak of the learning rate schedule"),
        ("warmup", fraction, "X", "fraction of the steps in which the learning rate rises; then it falls to 0"),
        ("weight_decay", fraction, "X", "weight decay of convolution and linear weights"),
        ("label_smoothing", fraction, "X", "probability spread evenly over all classes"),
        ("mixup", up_to_100, "A", "blend pairs of images, by Beta(A, A); 0 is off"),
        ("cutmix", up_to_100, "A", "swap rectangles of pairs of images, by Beta(A, A); 0 is off"),
        ("dropout", fraction, "X", "probability that Dropout2d drops a channel"),
        ("average_decay", fraction, "X", "decay of the weights' exponential moving average, per step"),
        ("seed", cli.integer_in(0, 2**31), "N", "seed of initial weights, order, augmentation and dropout"),
        ("translate", cli.integer_in(0, 32), "PIXELS", "largest shift along each axis"),
        ("cutout", cli.integer_in(0, 32), "PIXELS", "side of the square masked in each image"),
        ("small_first", fraction, "X", "fraction of the epochs, at the start, on images of 3/4 of the side: faster"),
        ("freeze", cli.integer_in(0, 100), "N", "do not train the first N convolutions and their batch norm"),
    )
    for field, type, metavar, help in rows:
        if field not in without:
            value = getattr(default, field)
            help = f"{help} (default: {value:g})"
            to.add_argument(_flag(field), dest=field, type=type, default=value, metavar=metavar, help=help)
    to.add_argument("--no-flip", dest="flip", action="store_false", help="never mirror images, as for letters")
    fp32_help = "train in float32 (default: bf16 if the hardware supports it)"
    to.add_argument("--fp32", dest="bf16", action="store_false", help=fp32_help)


def add_run(to: argparse.ArgumentParser, default_output: str) -> None:
    add_device(to)
    to.add_argument("--compile", action="store_true", help="use torch.compile: for GPUs, slower on a CPU")
    add_half(to)
    resume_help = "continue the run in --output exactly where it was last saved"
    to.add_argument("--resume", action="store_true", help=resume_help)
    save_help = "minutes between saves of the state within an epoch; 0: every step, on a GPU every tenth (default: 10)"
    to.add_argument("--save-minutes", type=up_to_100, default=10.0, metavar="X", help=save_help)
    to.add_argument("--output", type=cli.path, metavar="DIR", help=f"output folder (default: {default_output})")
    cli.add_json(to)


def add_device(to: argparse.ArgumentParser) -> None:
    name, help = cli.choice("device", DEVICES), "auto, cpu or cuda; auto is the GPU if there is one (default: auto)"
    to.add_argument("--device", type=name, default="auto", metavar="NAME", help=help)


def add_half(to: argparse.ArgumentParser) -> None:
    help = "store the final weights as float16, and measure accuracy with them"
    to.add_argument("--half", action="store_true", help=help)


def recipe_from(arguments: argparse.Namespace, default: Recipe, device: torch.device) -> Recipe:
    """Return the Recipe that the flags describe; fields without a flag keep their default."""
    given = {field.name: getattr(arguments, field.name) for field in fields(Recipe) if field.name in arguments}
    return replace(default, **given | {"bf16": arguments.bf16 and recipe.computes_bf16(device)})


def by_flag(config: Recipe) -> Mapping[str, Any]:
    """Return the recipe's values by flag, to compare with those of a run to resume."""
    return {_flag(field): value for field, value in asdict(config).items()}


def _flag(field: str) -> str:
    return _FLAGS.get(field, "--" + field.replace("_", "-"))


def device(name: str) -> torch.device:
    """Resolve --device; raises UsageError if there is no GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("PyTorch finds no GPU; use --device cpu, or install PyTorch with CUDA")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def _number_type(what: str, is_valid: Callable[[float], bool]) -> Callable[[str], float]:
    """Return an argparse type: a number that `is_valid` accepts; an error says that it is not `what`."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if is_valid(number := float(text)):
                return number
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")

    return parse


fraction = _number_type("a number from 0 to below 1", lambda number: 0 <= number < 1)
area = _number_type("a number above 0, up to 1", lambda number: 0 < number <= 1)
rate = _number_type("a number above 0, up to 1000", lambda number: 0 < number <= 1000)
up_to_100 = _number_type("a number from 0 to 100", lambda number: 0 <= number <= 100)
