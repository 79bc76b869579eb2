"""Top-1 and top-5 accuracy of any artifact, over a folder of classes or a set that comes with the project.

    python demos/evaluate.py fashion-mnist                    the shipped model on the pictures shipped with it
    python demos/evaluate.py ~/imagenet/val --variant 5.7m --precision int8 --calibration ~/imagenet/train
    python demos/evaluate.py ~/pictures --artifact artifacts/1.5m/onnx-int8 --limit 1000 --json
    python demos/evaluate.py ~/cifar10/test --variant cifar-5m --weights best.safetensors --backend torch

A folder of classes has a folder for each class, named as the class or as its id (n01440764, ...). Pictures are read
a batch at a time, so there may be any number of them; --limit takes some, spread evenly over all. The interval is
where the accuracy on all such pictures lies with 95 % confidence (Wilson's), as far as these are a fair sample.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from demos import model_flags
from demos.artifact_choice import SHIPPED_VARIANT
from demos.model_flags import is_untrained
from runtimes import Runtime
from simplenet import cli, datasets, image_sets
from simplenet.errors import DataError, one_line
from simplenet.image_sets import ImageSet
from simplenet.preprocessing import model_batch

FEWEST_CLASSES_FOR_TOP5 = 6
_Z_95_PERCENT = 1.959964
_SHOWN_REASONS = 10
_TELL_EVERY_S = 30.0
"""Where nobody sees a progress bar."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracies and intervals (lowest, highest) in percent of `images`; `unreadable` pictures are not among them."""

    source: str
    images: int
    top1_correct: int
    top1_percent: float
    top1_interval: tuple[float, float]
    top5_correct: int | None
    """None, like the other top-5 values, where there are so few classes that five answers are all of them."""
    top5_percent: float | None
    top5_interval: tuple[float, float] | None
    unreadable: list[str]


def evaluate(
    model: Runtime, found: ImageSet, *, batch: int = 64, on_progress: Callable[[int], None] = lambda images: None
) -> Evaluation:
    """Runs the model over labeled pictures, `batch` of them in memory at a time.

    Args:
        on_progress: is told after each batch how many pictures have been answered.

    Raises:
        DataError: nobody knows the pictures' classes, none can be read, or the model has fewer classes.
        BackendError: the model failed.
    """
    classes = model.manifest.num_classes
    if found.labels is None:
        whose = (
            f"class of {found.first_unlabeled} is"
            if found.first_unlabeled
            else f"classes of the pictures in {found.source} are"
        )
        raise DataError(f"the {whose} not known; {_name_folders(model)}")
    if len(found.labels) and found.labels.max() >= classes:
        raise DataError(f"{found.source} has classes beyond the model's {classes}; choose the model made for it")
    images = top1 = top5 = 0
    for inputs, labels in found.batches(batch):
        assert labels is not None  # found.labels is not None
        logits = model.infer_any(model_batch(inputs, model.manifest.input.dtype, model.manifest.preprocessing))
        best = np.argsort(-logits, axis=1, kind="stable")[:, :5]  # ties by class index, as classify() does
        top1 += int((best[:, 0] == labels).sum())
        top5 += int((best == labels[:, None]).any(axis=1).sum())
        images += len(labels)
        on_progress(images)
    if not images:
        reason = f"; the first reason: {found.unreadable[0]}" if found.unreadable else ""
        raise DataError(f"no picture of {found.source} can be read{reason}")
    has_top5 = classes >= FEWEST_CLASSES_FOR_TOP5
    return Evaluation(
        source=found.source,
        images=images,
        top1_correct=top1,
        top1_percent=100 * top1 / images,
        top1_interval=wilson_percent(top1, images),
        top5_correct=top5 if has_top5 else None,
        top5_percent=100 * top5 / images if has_top5 else None,
        top5_interval=wilson_percent(top5, images) if has_top5 else None,
        unreadable=found.unreadable,
    )


def wilson_percent(successes: int, trials: int, z: float = _Z_95_PERCENT) -> tuple[float, float]:
    """Wilson's score interval of a proportion, in percent; unlike mean +- 2 sigma it holds near 0 and 100 too."""
    share = successes / trials
    scale = 1 + z * z / trials
    center = (share + z * z / (2 * trials)) / scale
    spread = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return 100 * max(0.0, center - spread), 100 * min(1.0, center + spread)


def _name_folders(model: Runtime) -> str:
    manifest = model.manifest
    names = (manifest.class_ids or manifest.labels)[:3]
    return f"sort them into folders named {', '.join(names)}, ..." if names else "this model has no class names"


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    sets = ", ".join(datasets.names())
    parser.add_argument(
        "pictures",
        type=cli.path_or_name,
        metavar="DIR|NAME",
        help=f"a folder of classes, or a set that is shipped: {sets}",
    )
    parser.add_argument(
        "--limit", type=cli.integer_in(1, 10**9), metavar="N", help="at most so many pictures (default: all)"
    )
    parser.add_argument(
        "--batch",
        type=cli.integer_in(1, 4096),
        default=64,
        metavar="N",
        help="pictures in memory at a time (default: 64)",
    )
    model_flags.add_model(parser)
    cli.add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    arguments = build_parser().parse_args(argv)
    is_shipped = arguments.pictures in datasets.names()
    if is_shipped and arguments.artifact is None and arguments.variant is None and arguments.weights == "auto":
        arguments.variant, arguments.weights = SHIPPED_VARIANT, arguments.pictures  # the model those pictures belong to
    with model_flags.load(arguments) as model:
        manifest = model.manifest
        found = image_sets.load(
            arguments.pictures,
            "evaluation",
            manifest.preprocessing,
            labels=manifest.labels,
            class_ids=manifest.class_ids,
            limit=arguments.limit,
        )
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = cli.console()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("evaluating", total=len(found))
            told_s = time.monotonic()

            def tell(done: int) -> None:
                nonlocal told_s
                progress.update(task, completed=done)
                if not console.is_terminal and time.monotonic() - told_s >= _TELL_EVERY_S:
                    told_s = time.monotonic()
                    cli.log(f"{done:,} of {len(found):,} pictures")

            result = evaluate(model, found, batch=arguments.batch, on_progress=tell)
        for reason in result.unreadable[:_SHOWN_REASONS]:
            cli.log(f"left out: {reason}")
        if len(result.unreadable) > _SHOWN_REASONS:
            cli.log(f"left out: {len(result.unreadable) - _SHOWN_REASONS} more pictures")
        if arguments.json:
            print(json.dumps(_to_json(result, model)))
        else:
            _print(result, model)
    return 0


def _to_json(result: Evaluation, model: Runtime) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "variant": model.manifest.variant,
        "weights": dataclasses.asdict(model.manifest.weights),
        "untrained": is_untrained(model),
        "runtime": dataclasses.asdict(model.describe()),
        **dataclasses.asdict(result),
    }


def _print(result: Evaluation, model: Runtime) -> None:
    what = model.describe()
    print(f"{model.manifest.variant} ({model.manifest.weights.name} weights) with {what.backend} {what.precision}")
    print(one_line(f"{result.source}: {result.images} pictures, {len(result.unreadable)} left out", limit=2000))
    print(_line("top-1", result.top1_percent, result.top1_interval))
    if result.top5_percent is not None and result.top5_interval is not None:
        print(_line("top-5", result.top5_percent, result.top5_interval))
    else:
        print(f"top-5 is not given: of {model.manifest.num_classes} classes, five answers are all of them")
    if is_untrained(model):
        print("UNTRAINED: random weights, these accuracies are chance")


def _line(name: str, percent: float, interval: tuple[float, float]) -> str:
    return f"{name} {percent:.2f} % (95 % interval {interval[0]:.2f} to {interval[1]:.2f} %)"


if __name__ == "__main__":
    cli.run(main)
