"""Compares latency and accuracy of one model over every backend and precision that this machine has.

    python demos/compare.py                                   the shipped model, on its 2,000 shipped pictures
    python demos/compare.py --variant 1.5m                    another variant
    python demos/compare.py --image ~/pictures                on your pictures; folders named as classes give accuracy
    python demos/compare.py --data ~/cifar10-jpeg             the weights shipped for its classes, on its test pictures
    python demos/compare.py --backend openvino,onnxruntime --precision fp32,int8
    python demos/compare.py --json > comparison.json          with every raw sample

Missing artifacts are made first. Answers are compared before speed. Every backend runs in a fresh process of its own;
the processes take turns, in an order that rotates and is reversed every second round, after a warm-up until steady.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import runtimes
from demos import data_folder
from demos.artifact_choice import (
    artifact_precision,
    choose_weights,
    ensure_artifact,
    format_of,
    precisions_of,
    several,
)
from demos.benchmark import machine, table
from demos.benchmark.comparison import Comparison, Row, compare, steps
from runtimes.loader import backend_class
from simplenet import cli, hardware, image_sets
from simplenet.artifacts import Artifact
from simplenet.errors import (
    BackendUnavailable,
    DataError,
    SimpleNetError,
    SimpleNetWarning,
    UntrainedWarning,
    UsageError,
)
from simplenet.formats import PRECISIONS

DEFAULT_VARIANT = "cifar-310k"
FRAME_WIDTH, FRAME_HEIGHT = 640, 480


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_variant(parser, default=DEFAULT_VARIANT)
    cli.add_weights(parser)
    parser.add_argument("--backend", default="all", metavar="A,B", help=f"{', '.join(runtimes.names())} (default: all)")
    parser.add_argument("--precision", default="all", metavar="A,B", help="fp32, fp16, bf16, int8 (default: all)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--image",
        type=cli.path_or_name,
        metavar="DIR|NAME",
        help="pictures, or folders of classes (default: those of the weights)",
    )
    source.add_argument(
        "--data",
        type=cli.path,
        metavar="DIR",
        help="a data set's folder with test/<class>/*; then the default weights are the ones shipped for its classes, "
        "and train/<class>/* calibrates int8",
    )
    parser.add_argument(
        "--limit",
        type=cli.integer_in(1, 100_000),
        default=2000,
        metavar="N",
        help="at most so many pictures (default: 2000)",
    )
    parser.add_argument(
        "--samples", type=cli.integer_in(1, 1_000_000), default=700, metavar="N",
        help="timed inferences a row; 662 allow a p99 (default: 700)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=cli.integer_in(1, 1000), default=10, metavar="N", help="turns a row (default: 10)"
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="cpu, cuda, gpu or npu, for all; backends without it are left out (default: each backend's first)",
    )
    cli.add_calibration(parser)
    cli.add_threads(parser)
    cli.add_artifacts(parser)
    cli.add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    backends = several("backend", arguments.backend, runtimes.names())
    precisions = several("precision", arguments.precision, PRECISIONS)
    image, weights, calibration = _asked_for(arguments)
    result = run(
        variant=arguments.variant,
        weights=weights,
        backends=backends,
        precisions=precisions,
        image=image,
        calibration=calibration,
        limit=arguments.limit,
        samples=arguments.samples,
        rounds=arguments.rounds,
        threads=arguments.threads,
        device=arguments.device,
        artifacts=arguments.artifacts,
    )
    if result.reference is None:
        reasons = dict.fromkeys(row.reason for row in result.rows if row.reason)
        raise SimpleNetError(f"nothing could be measured: {'; '.join(reasons)}")
    if arguments.json:
        json.dump(result.to_json(), sys.stdout)
        print()
    else:
        from rich.console import Console

        table.show(result, Console(width=None if cli.is_terminal(sys.stdout) else 160))
    return 0


def _asked_for(arguments: argparse.Namespace) -> tuple[str | None, str, str]:
    """ImageSet, weights, and pictures to calibrate with, as --image, --data and --weights name them."""
    if arguments.data is None:
        return arguments.image, arguments.weights, arguments.calibration
    folder = arguments.data
    test = data_folder.evaluation_pictures(folder)
    weights = data_folder.weights_for(test, arguments.variant) if arguments.weights == "auto" else arguments.weights
    if arguments.calibration != "auto":
        return str(test), weights, arguments.calibration
    return str(test), weights, str(data_folder.calibration_pictures(folder) or "auto")


def run(
    *,
    variant: str,
    weights: str = "auto",
    backends: Sequence[str],
    precisions: Sequence[str],
    image: str | None = None,
    calibration: str = "auto",
    limit: int = 2000,
    samples: int = 700,
    rounds: int = 10,
    threads: int | None = None,
    device: str | None = None,
    artifacts: Path = cli.DEFAULT_ARTIFACTS,
) -> Comparison:
    """Makes what is missing, then compares; progress goes to stderr.

    Raises:
        UsageError: nothing can run that. DataError: no pictures. SimpleNetError: no artifact could be made.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    rows = _rows(backends, precisions, device)
    if image is not None:
        image_sets.check_source(image)
    weights = choose_weights(variant, weights, [_form(row) for row in rows], artifacts)
    threads = threads or hardware.physical_cores()
    console = cli.console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("preparing", total=len(rows))
        for row in rows:
            progress.update(task, description=f"preparing {row.name}")
            _give_artifact(row, variant, weights, artifacts, calibration)
            progress.advance(task)
        made = [row.artifact for row in rows if row.artifact]
        if not made:
            raise SimpleNetError(f"no artifact could be made; the first reason: {rows[0].reason}")
        if len({artifact.manifest.weights.sha256 for artifact in made}) > 1:
            raise SimpleNetError(
                f"artifacts of {variant} in {artifacts} were made from different weights; remove the old ones"
            )
        name, inputs, labels = _pictures(made[0], image, limit)
        frame = _frame(made[0])
        busy = machine.busy_percent()
        progress.reset(task, total=steps(rows, rounds), description="opening")
        result = compare(
            rows,
            inputs,
            labels,
            pictures_name=name,
            frame=frame,
            threads=threads,
            samples=samples,
            rounds=rounds,
            device=device,
            on_progress=lambda what, done: progress.update(task, description=what, advance=done),
            log=(lambda line: None) if console.is_terminal else cli.log,
        )
        busy = max(busy, machine.busy_percent())
    if made[0].manifest.weights.source == "random":
        message = f"{variant} has RANDOM weights, it is UNTRAINED: its latency is true, its answers mean nothing"
        warnings.warn(message, UntrainedWarning, stacklevel=2)
    return replace(result, machine=machine.describe(), busy_percent=busy)


def _rows(backends: Sequence[str], precisions: Sequence[str], device: str | None) -> list[Row]:
    """What to compare; raises UsageError where nothing is left."""
    if device is not None:
        backends = [backend for backend in backends if device in backend_class(backend).DEVICES]
        if not backends:
            raise UsageError(f"none of these backends runs on {device!r}; choose among cpu, cuda, gpu and npu")
    rows = [Row(backend, precision) for backend in backends for precision in precisions_of(backend)
            if precision in precisions]  # fmt: skip
    if not rows:
        possible = "; ".join(f"{backend}: {', '.join(precisions_of(backend))}" for backend in backends)
        raise UsageError(f"none of these backends has one of these precisions; they have: {possible}")
    return rows


def _form(row: Row) -> tuple[str, str]:
    """The format and the precision of the artifact that a row runs."""
    return format_of(row.backend), artifact_precision(row.backend, row.precision)


def _give_artifact(row: Row, variant: str, weights: str, artifacts: Path, calibration: str) -> None:
    """Makes it now where it is missing, or gives the row the reason why it has none."""
    try:
        row.artifact = ensure_artifact(variant, weights, *_form(row), artifacts, calibration=calibration)
    except BackendUnavailable as error:
        row.reason = str(error)
    except SimpleNetError as error:
        row.reason = f"cannot be made: {error}"


def _pictures(
    artifact: Artifact, image: str | None, limit: int
) -> tuple[str, np.typing.NDArray[np.uint8], np.typing.NDArray[np.int64] | None]:
    """What to compare answers on: the user's, else those shipped with the weights, else synthetic ones."""
    manifest = artifact.manifest
    source = image or (manifest.weights.name if manifest.weights.source == "shipped" else image_sets.SYNTHETIC)
    count = 64 if source == image_sets.SYNTHETIC else limit
    found = image_sets.load(
        source, "evaluation", manifest.preprocessing, labels=manifest.labels, class_ids=manifest.class_ids, limit=count
    )
    inputs, labels = found.all()
    for reason in found.unreadable:
        warnings.warn(f"left out: {reason}", SimpleNetWarning, stacklevel=2)
    if labels is not None and labels.max() >= manifest.num_classes:
        raise DataError(
            f"{source} has more classes than the model's {manifest.num_classes}; name other pictures with --image"
        )
    return found.source, inputs, labels


def _frame(artifact: Artifact) -> np.typing.NDArray[np.uint8]:
    """A camera-sized frame, the same for every backend."""
    square = replace(artifact.manifest.preprocessing, resize_shorter_side=FRAME_WIDTH, crop_size=FRAME_WIDTH)
    return np.ascontiguousarray(image_sets.synthetic(1, square)[0][:FRAME_HEIGHT])


if __name__ == "__main__":
    cli.run(main)
