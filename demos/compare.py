"""Compare latency and accuracy of one model over every backend and precision on this machine.

    python demos/compare.py                                   the shipped model, on its 2,000 shipped images
    python demos/compare.py --variant 1.5m                    another variant
    python demos/compare.py --image ~/pictures                on your images; folders named as classes give accuracy
    python demos/compare.py --data ~/cifar10-jpeg             the weights shipped for its classes, on its test images
    python demos/compare.py --backend openvino,onnxruntime --precision fp32,int8
    python demos/compare.py --plot comparison.png             also plot accuracy against latency
    python demos/compare.py --json > comparison.json          with every raw sample

Missing artifacts are exported first. Correctness is measured before latency. Every backend runs in a fresh process of
its own. The processes run one at a time, in rounds whose order rotates and reverses, after a warm-up until steady.
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

from demos import models
from demos.benchmark import machine, plot, table
from demos.benchmark.comparison import Comparison, Row, compare, steps
from demos.default_models import SHIPPED_VARIANT, weights_for_classes
from demos.models import ModelRequest
from runtimes.loader import backend_class
from simplenet import cli, files, hardware, image_sets, images
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

FRAME_WIDTH, FRAME_HEIGHT = 640, 480
"""Of the camera's frame whose end-to-end latency is measured."""


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_variant(parser, default=SHIPPED_VARIANT)
    cli.add_weights(parser)
    models.add_names(parser, "backend", models.backends())
    models.add_names(parser, "precision", PRECISIONS)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--image",
        type=files.expand_home,
        metavar="DIR|NAME",
        help="images, or folders of classes (default: the images shipped with the weights)",
    )
    source.add_argument(
        "--data",
        type=cli.path,
        metavar="DIR",
        help="a data set's folder with test/<class>/*; the default weights are then those shipped for its classes, "
        "and train/<class>/* calibrates int8",
    )
    parser.add_argument(
        "--limit", type=cli.integer_in(1, 100_000), default=2000, metavar="N", help="at most N images (default: 2000)"
    )
    parser.add_argument(
        "--samples", type=cli.integer_in(1, 1_000_000), default=700, metavar="N",
        help="timed inferences per row; 662 or more give a p99 (default: 700)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=cli.integer_in(1, 1000), default=10, metavar="N", help="rounds per row (default: 10)"
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="cpu, cuda, gpu or npu, for all; backends without it are left out (default: each backend's first)",
    )
    parser.add_argument(
        "--plot",
        type=cli.file_ending_in(*plot.SUFFIXES),
        metavar="FILE",
        help="plot accuracy against latency: .png or .svg",
    )
    cli.add_calibration(parser)
    cli.add_threads(parser)
    cli.add_artifacts(parser)
    cli.add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.plot is not None:
        import matplotlib  # noqa: F401 - fail now if it is missing, not after the measurement
    request = ModelRequest(
        variant=arguments.variant,
        weights=arguments.weights,
        device=arguments.device,
        threads=arguments.threads,
        calibration=arguments.calibration,
        artifacts_root=arguments.artifacts,
    )
    image = arguments.image
    if arguments.data is not None:
        request, image = _for_data_set(request, arguments.data)
    result = run(
        request,
        backends=arguments.backend,
        precisions=arguments.precision,
        image=image,
        limit=arguments.limit,
        samples=arguments.samples,
        rounds=arguments.rounds,
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
    if arguments.plot is not None:
        plot.draw([result], arguments.plot)
    return 0


def _for_data_set(request: ModelRequest, folder: Path) -> tuple[ModelRequest, str]:
    """Choose weights, calibration images and test images from a data set's folder."""
    test, train = images.evaluation_folder(folder, ("test", "val")), folder / "train"
    if request.weights == "auto":
        assert request.variant is not None
        request = replace(request, weights=weights_for_classes(test, request.variant))
    if request.calibration == "auto" and train.is_dir():
        request = replace(request, calibration=str(train))
    return request, str(test)


def run(
    request: ModelRequest,
    *,
    backends: Sequence[str],
    precisions: Sequence[str],
    image: str | None = None,
    limit: int = 2000,
    samples: int = 700,
    rounds: int = 10,
) -> Comparison:
    """Export missing artifacts, then compare; progress goes to stderr.

    Args:
        request: the model; its backend and precision are not used.
        image: a folder or the name of a shipped set; by default the images shipped with the weights.
        limit: at most this many images.

    Raises:
        UsageError: no backend has one of the precisions, or the device. DataError: no images.
        SimpleNetError: no artifact could be exported.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    rows = _rows(backends, precisions, request.device)
    if image is not None:
        image_sets.check_source(image)
    requests = models.with_named_model([replace(request, backend=row.backend, precision=row.precision) for row in rows])
    console = cli.console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("preparing", total=len(rows))
        for row, row_request in zip(rows, requests, strict=True):
            progress.update(task, description=f"preparing {row.name}")
            _set_artifact(row, row_request)
            progress.advance(task)
        made = [row.artifact for row in rows if row.artifact]
        if not made:
            raise SimpleNetError(f"no artifact could be exported; the first reason: {rows[0].reason}")
        if len({artifact.manifest.weights.sha256 for artifact in made}) > 1:
            raise SimpleNetError(
                f"artifacts of {request.variant} in {request.artifacts_root} were made from different weights; "
                "remove the old ones"
            )
        name, inputs, labels = _load_images(made[0], image, limit)
        # Noise: the latency does not depend on what a frame shows.
        frame = np.random.default_rng(0).integers(0, 256, (FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
        busy = machine.busy_percent()
        progress.reset(task, total=steps(rows, rounds), description="loading")
        result = compare(
            rows,
            inputs,
            labels,
            images_name=name,
            frame=frame,
            threads=request.threads or hardware.physical_cores(),
            samples=samples,
            rounds=rounds,
            device=request.device,
            on_progress=lambda step, done: progress.update(task, description=step, advance=done),
            log=(lambda line: None) if console.is_terminal else cli.log,
        )
        busy = max(busy, machine.busy_percent())
    if made[0].manifest.weights.source == "random":
        message = f"{request.variant} is UNTRAINED: its latencies are real, its predictions are meaningless"
        warnings.warn(message, UntrainedWarning, stacklevel=2)
    return replace(result, machine=machine.describe(), busy_percent=busy)


def _rows(backends: Sequence[str], precisions: Sequence[str], device: str | None) -> list[Row]:
    """One row for each backend and precision; raises UsageError if there is none."""
    if device is not None:
        backends = [backend for backend in backends if device in backend_class(backend).DEVICES]
        if not backends:
            raise UsageError(f"none of these backends runs on {device!r}; choose among cpu, cuda, gpu and npu")
    rows = [Row(backend, precision) for backend in backends for precision in models.precisions_of(backend)
            if precision in precisions]  # fmt: skip
    if not rows:
        possible = "; ".join(f"{backend}: {', '.join(models.precisions_of(backend))}" for backend in backends)
        raise UsageError(f"none of these backends has one of these precisions; they have: {possible}")
    return rows


def _set_artifact(row: Row, request: ModelRequest) -> None:
    """Set the row's artifact, exported if it is missing, or the reason why it has none."""
    try:
        row.artifact = request.resolve()
    except BackendUnavailable as error:
        row.reason = str(error)
    except SimpleNetError as error:
        row.reason = f"cannot be exported: {error}"


def _load_images(
    artifact: Artifact, image: str | None, limit: int
) -> tuple[str, np.typing.NDArray[np.uint8], np.typing.NDArray[np.int64] | None]:
    """Load the user's images, else those shipped with the weights, else synthetic ones, as model inputs."""
    manifest = artifact.manifest
    source = image or (manifest.weights.name if manifest.weights.source == "shipped" else image_sets.SYNTHETIC)
    count = 64 if source == image_sets.SYNTHETIC else limit
    image_set = image_sets.load(
        source, "evaluation", manifest.preprocessing, labels=manifest.labels, class_ids=manifest.class_ids, limit=count
    )
    inputs, labels = image_set.all()
    for reason in image_set.unreadable:
        warnings.warn(f"skipped: {reason}", SimpleNetWarning, stacklevel=2)
    if labels is not None and labels.max() >= manifest.num_classes:
        raise DataError(
            f"{source} has more classes than the model's {manifest.num_classes}; name other images with --image"
        )
    return image_set.source, inputs, labels


if __name__ == "__main__":
    cli.run(main)
