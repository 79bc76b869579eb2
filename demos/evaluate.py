"""Measure top-1 and top-5 accuracy of an artifact on a folder of classes or on a shipped set.

    python demos/evaluate.py fashion-mnist                    the shipped model on its shipped images
    python demos/evaluate.py ~/imagenet/val --variant 5.7m --precision int8 --calibration ~/imagenet/train
    python demos/evaluate.py ~/images --artifact artifacts/1.5m/onnx-int8 --limit 1000 --json
    python demos/evaluate.py ~/cifar10/test --variant cifar-5m --weights best.safetensors --backend torch

A folder of classes has one folder for each class, named by the class's label or id (n01440764, ...). Images are read
in batches, so memory does not limit their number; --limit selects some, evenly spaced. Of a dataset with splits, the
images in its test folder are measured, else those in val; the output names the folder. The interval is Wilson's 95 %
confidence interval of the accuracy, for images that are a random sample.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from demos import console, models
from demos.default_models import SHIPPED_VARIANT
from demos.models import ModelRequest, is_untrained
from runtimes import Runtime
from simplenet import cli, datasets, files, image_sets, metrics
from simplenet.errors import DataError, one_line
from simplenet.image_sets import ImageSet
from simplenet.preprocessing import model_batch

_Z = 1.959964
"""Standard normal quantile of a 95 % confidence interval."""
_SHOWN_REASONS = 10


@dataclass(frozen=True)
class Evaluation:
    """Accuracies and intervals (lowest, highest) in percent of `images`, which excludes `unreadable` files.

    `classes_without_images` has the labels (or indices) of the model's classes that none of the images shows. The top-5
    values are None for models with fewer than `metrics.FEWEST_CLASSES_FOR_TOP5` classes.
    """

    source: str
    images: int
    top1_correct: int
    top1_percent: float
    top1_interval: tuple[float, float]
    top5_correct: int | None
    top5_percent: float | None
    top5_interval: tuple[float, float] | None
    unreadable: list[str]
    classes_without_images: list[str]


def evaluate(
    model: Runtime, image_set: ImageSet, batch: int = 64, on_progress: Callable[[int], None] = lambda images: None
) -> Evaluation:
    """Measure a model's accuracy on labeled images, with `batch` of them in memory at a time.

    Args:
        on_progress: called after each batch with the number of images evaluated so far.

    Raises:
        DataError: the images have no labels, none can be read, or the model has fewer classes.
        BackendError: the model failed.
    """
    classes = model.manifest.num_classes
    if image_set.labels is None:
        raise DataError(_why_unlabeled(model, image_set))
    if len(image_set.labels) and image_set.labels.max() >= classes:
        raise DataError(f"{image_set.source} has more classes than the model's {classes}; choose the model made for it")
    seen: set[int] = set()
    images = top1 = top5 = 0
    for inputs, labels in image_set.batches(batch):
        assert labels is not None  # image_set.labels is not None
        logits = model.infer_any(model_batch(inputs, model.manifest.input.dtype, model.manifest.preprocessing))
        top1 += metrics.top_k_correct(logits, labels, 1)
        top5 += metrics.top_k_correct(logits, labels, 5)
        images += len(labels)
        seen.update(labels.tolist())
        on_progress(images)
    if not images:
        reason = f"; the first reason: {image_set.unreadable[0]}" if image_set.unreadable else ""
        raise DataError(f"no image of {image_set.source} can be read{reason}")
    has_top5 = classes >= metrics.FEWEST_CLASSES_FOR_TOP5
    return Evaluation(
        source=image_set.source,
        images=images,
        top1_correct=top1,
        top1_percent=100 * top1 / images,
        top1_interval=wilson_percent(top1, images),
        top5_correct=top5 if has_top5 else None,
        top5_percent=100 * top5 / images if has_top5 else None,
        top5_interval=wilson_percent(top5, images) if has_top5 else None,
        unreadable=image_set.unreadable,
        classes_without_images=[_class_name(model, index) for index in range(classes) if index not in seen],
    )


def wilson_percent(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion, in percent. It also holds near 0 and 100 %, unlike the normal one."""
    z, share = _Z, successes / trials
    scale = 1 + z * z / trials
    center = (share + z * z / (2 * trials)) / scale
    spread = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return 100 * max(0.0, center - spread), 100 * min(1.0, center + spread)


def _class_name(model: Runtime, index: int) -> str:
    return model.manifest.labels[index] if model.manifest.labels else str(index)


def _why_unlabeled(model: Runtime, image_set: ImageSet) -> str:
    """Say why the classes of the images are not known, and what to type."""
    manifest = model.manifest
    side = manifest.preprocessing.crop_size  # without padding, as the set's
    if image_set.other_classes:
        name, source = image_set.source.split()[0], manifest.preprocessing_source
        is_stated = not source.startswith(("flags", "assumed"))
        advice = (
            f"choose a model of {name}: --weights {name}"
            if is_stated
            else f"if it was trained on {name}, type --dataset {name}{' without --labels' * ('--labels' in source)}"
        )
        own = f"{image_sets.few(manifest.labels)}, in {side}x{side} ({source})"
        differs = f"its classes are {image_set.other_classes}, the model's {own}"
        return f"{image_set.source} is another dataset than the model's: {differs}; {advice}"
    names = image_sets.few([name.replace("/", "_") for name in manifest.class_ids or manifest.labels])
    advice = f"sort them into folders named {names}" if names else "this model has no class names"
    if manifest.preprocessing_doubt:
        advice = f"{manifest.preprocessing_doubt}; name the model's classes with --dataset or --labels"
    if image_set.first_unlabeled:
        return f"the class of {image_set.first_unlabeled} is not known; {advice}"
    return f"the classes in {image_set.source} are not known; {advice}"


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    sets = ", ".join(datasets.names())
    sets_help = f"a folder of classes, or a shipped set: {sets}"
    parser.add_argument("images", type=files.expand_home, metavar="DIR|NAME", help=sets_help)
    cli.add_count(parser, "--limit", "at most N images (default: all)")
    cli.add_count(parser, "--batch", "images in memory at a time", default=64, highest=4096)
    models.add_flags(parser)
    cli.add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    request = ModelRequest.from_flags(arguments)
    if arguments.images in datasets.names() and not request.names_model:
        request = replace(request, variant=SHIPPED_VARIANT, weights=arguments.images)  # trained on the same dataset
    with request.open() as model:
        image_set = models.evaluation_images(model.manifest, arguments.images, arguments.limit)
        with console.progress_bar("evaluating", len(image_set)) as update:
            result = evaluate(model, image_set, arguments.batch, lambda images: update(completed=images))
        for reason in result.unreadable[:_SHOWN_REASONS]:
            cli.log(f"skipped: {reason}")
        if len(result.unreadable) > _SHOWN_REASONS:
            cli.log(f"skipped: {len(result.unreadable) - _SHOWN_REASONS} more images")
        if arguments.json:
            print(json.dumps({**models.to_json(model), **dataclasses.asdict(result)}))
        else:
            _print(result, model)
    return 0


def _print(result: Evaluation, model: Runtime) -> None:
    description, manifest = model.describe(), model.manifest
    print(f"{manifest.variant} ({manifest.weights.name} weights) with {description.backend} {description.precision}")
    print(one_line(f"{result.source}: {result.images} images, {len(result.unreadable)} skipped", limit=2000))
    print(_line("top-1", result.top1_percent, result.top1_interval))
    if result.top5_percent is not None and result.top5_interval is not None:
        print(_line("top-5", result.top5_percent, result.top5_interval))
    else:
        print(f"top-5 is omitted: the model has only {manifest.num_classes} classes")
    if missing := result.classes_without_images:
        print(
            one_line(
                f"no images of {len(missing)} of the model's {manifest.num_classes} classes: {image_sets.few(missing)}",
                2000,
            )
        )
    if manifest.preprocessing_doubt:
        print(manifest.preprocessing_doubt)
    if is_untrained(model):
        print("UNTRAINED: random weights, so these accuracies are at chance level")


def _line(name: str, percent: float, interval: tuple[float, float]) -> str:
    return f"{name} {percent:.2f} % (95 % interval {interval[0]:.2f} to {interval[1]:.2f} %)"


if __name__ == "__main__":
    cli.run(main)
