"""The flags that the scripts of this folder share, and what they mean."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from simplenet import cli
from simplenet.errors import UsageError
from train import checkpoint, data, recipe
from train.distributed import Group
from train.recipe import Recipe

DEVICES = ("auto", "cpu", "cuda")
_FLAGS = {
    "batch_size": "--batch",
    "peak_learning_rate": "--learning-rate",
    "flip": "flip (--no-flip turns it off)",
    "bf16": "bf16 (the machine's choice unless --fp32 is given)",
}
"""Of those fields of Recipe whose flag has another name."""


def add_dataset(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--dataset",
        type=cli.choice("data set", tuple(data.DATASETS)),
        default="fashion-mnist",
        metavar="NAME",
        help=f"{', '.join(data.DATASETS)} (default: fashion-mnist)",
    )
    to.add_argument(
        "--data",
        type=cli.path,
        metavar="DIR",
        help="the data set's folder (default: its Debian package's, else it is downloaded once)",
    )


def add_weights(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--weights",
        default="random",
        metavar="random|pretrained|NAME|PATH",
        help="what to start from: random ones, the official ones, shipped ones or a checkpoint (default: random)",
    )


def add_recipe(to: argparse.ArgumentParser, default: Recipe) -> None:
    """Every flag that both scripts have for a field of Recipe."""

    def add(flag: str, type: Callable[[str], Any], value: float, metavar: str, help: str) -> None:
        to.add_argument(flag, type=type, default=value, metavar=metavar, help=f"{help} (default: {value:g})")

    add("--epochs", cli.integer_in(1, 10_000), default.epochs, "N", "passes over the training images")
    add("--batch", cli.integer_in(2, 65_536), default.batch_size, "N", "images per step, of all processes together")
    add("--learning-rate", rate, default.peak_learning_rate, "X", "at the schedule's peak")
    add("--warmup", share, default.warmup, "X", "part of the steps in which the rate rises; then it falls to 0")
    add("--weight-decay", share, default.weight_decay, "X", "of convolution and linear weights")
    add("--label-smoothing", share, default.label_smoothing, "X", "probability that is shared by all classes")
    add("--mixup", weight, default.mixup, "A", "fade pairs of images into each other, by Beta(A, A); 0 is off")
    add("--cutmix", weight, default.cutmix, "A", "swap rectangles of pairs of images, by Beta(A, A); 0 is off")
    add("--dropout", share, default.dropout, "X", "part of the channels that each Dropout2d hides in training")
    add("--average-decay", share, default.average_decay, "X", "of the moving average of the weights, each step")
    to.add_argument("--no-flip", action="store_true", help="never mirror an image: for letters, say")
    to.add_argument("--fp32", action="store_true", help="compute in float32; default: bf16 where the hardware has it")
    add("--seed", cli.integer_in(0, 2**31), default.seed, "N", "of weights, order, augmentation and dropout")


def add_run(to: argparse.ArgumentParser, default_output: str) -> None:
    add_device(to)
    to.add_argument(
        "--compile", action="store_true", help="torch.compile the network, for a GPU: on a CPU it is slower"
    )
    add_half(to)
    to.add_argument(
        "--resume", action="store_true", help="continue the run in --output exactly where it was last saved"
    )
    to.add_argument(
        "--save-minutes",
        type=weight,
        default=10.0,
        metavar="X",
        help="save the state also within an epoch, every so many minutes; 0 is every step, on a GPU every tenth "
        "(default: 10)",
    )
    to.add_argument("--output", type=cli.path, metavar="DIR", help=f"where to write (default: {default_output})")
    cli.add_json(to)


def add_device(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--device",
        type=cli.choice("device", DEVICES),
        default="auto",
        metavar="NAME",
        help="auto, cpu or cuda; auto is the GPU if there is one (default: auto)",
    )


def add_half(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--half", action="store_true", help="write the final weights as float16, and measure the accuracy with them"
    )


def common_recipe(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The fields of Recipe that `add_recipe` asks for."""
    return {
        "epochs": arguments.epochs,
        "batch_size": arguments.batch,
        "peak_learning_rate": arguments.learning_rate,
        "warmup": arguments.warmup,
        "weight_decay": arguments.weight_decay,
        "label_smoothing": arguments.label_smoothing,
        "flip": not arguments.no_flip,
        "mixup": arguments.mixup,
        "cutmix": arguments.cutmix,
        "dropout": arguments.dropout,
        "average_decay": arguments.average_decay,
        "bf16": not arguments.fp32 and recipe.computes_bf16(device),
        "seed": arguments.seed,
    }


def common_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_run` asks for of a run, by the parameters of both scripts' `train`."""
    return {
        "resume": arguments.resume,
        "compile": arguments.compile,
        "half": arguments.half,
        "minutes_between_saves": arguments.save_minutes,
    }


def named(config: Recipe) -> Mapping[str, Any]:
    """The recipe by flag, for a resumed run to be compared with."""
    return {_FLAGS.get(field, "--" + field.replace("_", "-")): value for field, value in asdict(config).items()}


def device(name: str) -> torch.device:
    """Raises UsageError where there is no GPU to be had."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("PyTorch finds no GPU here; type --device cpu, or install PyTorch with CUDA")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


@contextlib.contextmanager
def resumable(output: Path, group: Group) -> Iterator[None]:
    """After Ctrl-C, says how to go on, where there is something to go on with."""
    try:
        yield
    except KeyboardInterrupt:
        if group.is_first and (output / checkpoint.STATE_NAME).is_file():
            age = timedelta(seconds=round(time.time() - (output / checkpoint.STATE_NAME).stat().st_mtime))
            cli.log(f"{output} holds the run as it was saved {age} ago; the same command with --resume continues it")
        raise


def typed(script: str, argv: Sequence[str] | None) -> str:
    """The command line as it can be typed again, for the results."""
    size, local_size = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    nodes = ["--nnodes", str(size // local_size)] if size > local_size else []
    program = ["python"] if size == 1 else ["torchrun", *nodes, "--nproc-per-node", str(local_size)]
    return shlex.join([*program, script, *(sys.argv[1:] if argv is None else argv)])


def share(text: str) -> float:
    """argparse type: a number from 0 to below 1."""
    return _number(text, "a number from 0 to below 1", lambda number: 0 <= number < 1)


def rate(text: str) -> float:
    """argparse type: a number above 0, up to 1000."""
    return _number(text, "a number above 0, up to 1000", lambda number: 0 < number <= 1000)


def area(text: str) -> float:
    """argparse type: a number above 0, up to 1."""
    return _number(text, "a number above 0, up to 1", lambda number: 0 < number <= 1)


def weight(text: str) -> float:
    """argparse type: a number from 0 to 100."""
    return _number(text, "a number from 0 to 100", lambda number: 0 <= number <= 100)


def _number(text: str, what: str, is_good: Callable[[float], bool]) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not is_good(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number
