"""Compare latency and accuracy of one model over every backend and precision on this machine.

    python demos/compare.py                                   the shipped model, on its 2,000 shipped images
    python demos/compare.py --variant 1.5m                    another variant
    python demos/compare.py --image ~/images                  on your images; folders named as classes give accuracy
    python demos/compare.py --data ~/cifar10-jpeg             the weights shipped for its classes, on its test images
    python demos/compare.py --backend openvino,onnxruntime --precision fp32,int8
    python demos/compare.py --plot comparison.png             also plot accuracy against latency
    python demos/compare.py --report comparison.html          also write a report with charts and all numbers
    python demos/compare.py --against /other/venv/bin/python  compare with another environment's package versions
    python demos/compare.py --variant 1.5m --peer raw,resnet18,mobilenetv2
    python demos/compare.py --mode stream --fps 30            also throughput, cold and soak
    python demos/compare.py --recommend --max-p99-ms 5        name the best artifact for this machine
    python demos/compare.py --json > comparison.json          with every raw sample (or --save FILE.json)
    python demos/compare.py --baseline before.json --fail-above 5%  exit code 3 if a row is slower than then

Missing artifacts are exported first. Correctness is measured before latency. Every row has its own fresh process.
After a warm-up, the processes are timed one at a time, in many short rounds whose order rotates and reverses. The
fastest row is measured twice: differences as small as between these twins are not reported as differences.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from demos import console, models  # before NumPy: handles Ctrl-C during its import

# isort: split
import numpy as np

from demos.benchmark import baseline, machine, modes, peers, plot, recommendation, report, results, table
from demos.benchmark import rows as benchmark_rows
from demos.benchmark.comparison import Comparison, compare
from demos.benchmark.recommendation import Limits
from demos.benchmark.workers import TimedModel, check_python
from demos.default_models import SHIPPED_VARIANT, weights_for_classes
from demos.models import ModelRequest
from simplenet import cli, files, hardware, image_folders, image_sets, vendors
from simplenet.artifacts import Artifact
from simplenet.errors import (
    DataError,
    SimpleNetError,
    SimpleNetWarning,
    UsageError,
)
from simplenet.formats import PRECISIONS

FRAME_WIDTH, FRAME_HEIGHT = 640, 480
"""Size of the camera frame in the measurement of the end-to-end latency."""
_LATENCY_ONLY = (
    "against", "baseline", "data", "fail_above", "image", "no_twin", "peer", "plot", "recommend", "report", "save",
    "until", *Limits.__dataclass_fields__,
)  # fmt: skip
"""Flags that only a measurement of latency uses, by their names in the parsed arguments."""


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    cli.add_variant(parser, default=SHIPPED_VARIANT)
    cli.add_weights(parser)
    cli.add_overrides(parser)
    models.add_names(parser, "backend", models.backends())
    models.add_names(parser, "precision", PRECISIONS)
    source = parser.add_mutually_exclusive_group()
    image_help = "images, or folders of classes (default: the images shipped with the weights)"
    source.add_argument("--image", type=files.expand_home, metavar="DIR|NAME", help=image_help)
    data_help = "a dataset's folder with test/<class>/*; the default weights are then those shipped for its classes, "
    data_help += "and train/<class>/* calibrates int8"
    source.add_argument("--data", type=cli.path, metavar="DIR", help=data_help)
    html_file = cli.file_ending_in(".html")
    parser.add_argument(
        "--report", type=html_file, metavar="FILE.html", help="write a report with charts and all numbers"
    )
    cli.add_count(parser, "--limit", "at most N images", default=2000, highest=100_000)
    samples_help = "timed inferences per row; 662 or more give a p99"
    cli.add_count(parser, "--samples", samples_help, default=700, highest=100_000)
    cli.add_count(parser, "--rounds", "rounds per row; 6 or more give intervals", default=30, highest=1000)
    until_help = "add rounds until the 95 %% interval between the fastest two is at most this wide, for example 2%%"
    parser.add_argument("--until", type=_percent, metavar="PERCENT", help=until_help)
    against_help = "measure every row also under this interpreter, such as /other/venv/bin/python, in the same rounds"
    parser.add_argument("--against", type=files.expand_home, metavar="PYTHON", help=against_help)
    models.add_names(parser, "peer", peers.NAMES, default="none; raw is the vendor's own call")
    limit_help = "with --until, add no round after this time (default: 300)"
    parser.add_argument("--time-limit", type=cli.positive_number, default=300.0, metavar="SECONDS", help=limit_help)
    mode_help = "what to measure (default: latency); the other modes have a table of their own"
    parser.add_argument("--mode", choices=("latency", *modes.NAMES), default="latency", help=mode_help)
    seconds_help = "seconds of each row in the modes stream, throughput and soak (defaults: 10, 5, 120)"
    parser.add_argument("--seconds", type=cli.positive_number, metavar="N", help=seconds_help)
    cli.add_count(parser, "--fps", "frames per second in the mode stream", default=30, highest=1000)
    parser.add_argument("--no-twin", action="store_true", help="do not measure the fastest row twice")
    device_help = "cpu, cuda, gpu or npu; only backends that have it are compared (default: each backend's first)"
    parser.add_argument("--device", metavar="NAME", help=device_help)
    plot_file, plot_help = cli.file_ending_in(*plot.SUFFIXES), "plot accuracy against latency: .png or .svg"
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help=plot_help)
    json_file = cli.file_ending_in(".json")
    parser.add_argument("--save", type=json_file, metavar="FILE.json", help="save the results, with every raw sample")
    baseline_help = "also compare with the results that --save has written; exit code 4 if the conditions differ"
    parser.add_argument("--baseline", type=json_file, metavar="FILE.json", help=baseline_help)
    diff_help = "only compare two saved results; of two machines, without a ratio"
    parser.add_argument("--diff", type=json_file, nargs=2, metavar="FILE.json", help=diff_help)
    fail_help = "with --baseline, exit code 3 if a row is slower by more than this, for example 5%%"
    parser.add_argument("--fail-above", type=_percent, metavar="PERCENT", help=fail_help)
    recommend = parser.add_argument_group("recommendation")
    recommend.add_argument("--recommend", action="store_true", help="name the fastest row within these limits")
    drop_help = "at most this many points of top-1 below the best row, or of agreement below 100 %% (default: 0.5)"
    recommend.add_argument("--max-drop", type=cli.positive_number, metavar="POINTS", help=drop_help)
    for name, what in (("p99-ms", "p99 of the model latency"), ("memory-mb", "peak memory"), ("size-mb", "file size")):
        unit = name.rpartition("-")[2].upper()
        recommend.add_argument(f"--max-{name}", type=cli.positive_number, metavar=unit, help=f"highest {what}")
    cli.add_calibration(parser)
    cli.add_threads(parser)
    cli.add_artifacts(parser)
    cli.add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    _check_flags(arguments)
    if arguments.diff is not None:
        first, second = map(results.read, arguments.diff)
        if arguments.fail_above is not None:
            return _compare_with(first, second, arguments.diff[0], arguments)
        baseline.show_side_by_side(first, second, console.output(width=100))
        return 0
    if arguments.mode != "latency":
        return _measure_mode(arguments)
    if arguments.plot is not None or arguments.report is not None:
        with vendors.matplotlib_cache():
            import matplotlib.figure  # noqa: F401 - fail now if it is missing, not after the measurement
    given = {name: getattr(arguments, name) for name in Limits.__dataclass_fields__}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    if limits != Limits() and not arguments.recommend:
        raise UsageError("limits such as --max-p99-ms are those of a recommendation; add --recommend")
    before = results.read(arguments.baseline) if arguments.baseline else None
    for path in filter(None, (arguments.plot, arguments.report, arguments.save)):
        if not os.access(path.parent, os.W_OK):  # fail now, not after the measurement
            raise UsageError(f"cannot write {path}: no folder that you can write to; name another file")
    request, image = ModelRequest.from_flags(arguments), arguments.image
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
        until_percent=arguments.until,
        time_limit_s=arguments.time_limit,
        with_twin=not arguments.no_twin,
        against=arguments.against,
        peer_names=arguments.peer or (),
    )
    if result.reference is None:
        reasons = dict.fromkeys(row.reason for row in result.rows if row.reason)
        raise SimpleNetError(f"nothing could be measured: {'; '.join(reasons)}")
    after = result.to_json()
    if arguments.json:
        json.dump(after, sys.stdout)
        print()
    else:
        table.show(result, console.output(width=120 if arguments.against or arguments.peer else 100))
    if arguments.recommend:
        print(recommendation.recommend(result, limits), file=sys.stderr if arguments.json else sys.stdout)
    if arguments.plot is not None:
        plot.draw(result, arguments.plot)
    if arguments.report is not None:
        cli.log(f"report: {arguments.report}")
        report.write(result, arguments.report, [sys.executable, *sys.argv] if argv is None else ["compare.py", *argv])
    if arguments.save is not None:
        results.save(after, arguments.save)
    return 0 if before is None else _compare_with(before, after, arguments.baseline, arguments)


def _measure_mode(arguments: argparse.Namespace) -> int:
    """Measure another mode than latency, and print its table."""
    request = ModelRequest.from_flags(arguments)
    rows = benchmark_rows.choose(arguments.backend, arguments.precision, request.device)
    with console.progress_bar("preparing", len(rows)) as update:
        benchmark_rows.export_missing(rows, request, update)
    settings = modes.Settings(_random_frame(), arguments.fps, arguments.seconds, request.threads, request.device)
    result = modes.measure(arguments.mode, rows, settings, cli.log)
    if arguments.json:
        json.dump({**result, "machine": machine.describe()}, sys.stdout)
        print()
    else:
        modes.show(result, console.output(width=100))
    return 0


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raise UsageError for flags that would have no effect."""
    if arguments.fail_above is not None and arguments.baseline is None and arguments.diff is None:
        raise UsageError("--fail-above needs the results to compare with; add --baseline FILE.json")
    given = {name for name in _LATENCY_ONLY if getattr(arguments, name) not in (None, False)}
    kind = "--diff" if arguments.diff is not None else f"--mode {arguments.mode}"
    if arguments.diff is not None:
        given = (given - {"fail_above"}) | ({"json"} if arguments.json else set())
    elif arguments.mode == "latency":
        return
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in sorted(given))
        raise UsageError(f"{kind} does not use {flags}; leave it out")


def _compare_with(before: dict[str, Any], after: dict[str, Any], name: Path, arguments: argparse.Namespace) -> int:
    """Compare with the baseline in the file `name`; return the exit code."""
    if reasons := baseline.not_comparable(before, after):
        cli.log(f"not comparable with {name}: {'; '.join(reasons)}; save a baseline under equal conditions")
        return baseline.EXIT_NOT_COMPARABLE
    if not arguments.json:
        baseline.show(before, after, console.output(width=120 if arguments.against or arguments.peer else 100))
    if arguments.fail_above is not None:
        slower = [one for one in baseline.changes(before, after) if one.is_slower_than(arguments.fail_above)]
        for change in slower:
            cli.log(
                f"{change.name} is slower than the baseline by more than {arguments.fail_above:g} %: {change.ratio}"
            )
        return baseline.EXIT_SLOWER if slower else 0
    return 0


def _percent(text: str) -> float:
    """argparse type: '2%' or '2'."""
    return cli.positive_number(text.removesuffix("%"))


def _for_data_set(request: ModelRequest, folder: Path) -> tuple[ModelRequest, str]:
    """Choose weights, calibration images and test images from a dataset's folder."""
    test, train = image_folders.evaluation_folder(folder), image_folders.dataset_folders(folder)[1].get("train")
    if request.weights == "auto":
        assert request.variant is not None
        request = replace(request, weights=weights_for_classes(test, request.variant))
    if request.calibration == "auto" and train is not None:
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
    rounds: int = 30,
    until_percent: float | None = None,
    time_limit_s: float = 300.0,
    with_twin: bool = True,
    against: str | None = None,
    peer_names: Sequence[str] = (),
) -> Comparison:
    """Export missing artifacts, then compare; progress goes to stderr. Other arguments are those of `compare`.

    Args:
        request: the model; its backend and precision are not used.
        image: a folder or the name of a shipped set; by default the images shipped with the weights.
        limit: at most this many images.
        against: another Python interpreter, which also runs every row.
        peer_names: of `peers.NAMES`; each is measured on every backend and precision that it has.

    Raises:
        UsageError: no backend has one of the precisions, or the device. DataError: no images.
        SimpleNetError: no artifact could be exported.
    """
    if against is not None:
        check_python(against)
    rows = benchmark_rows.choose(backends, precisions, request.device)
    if image is not None:
        image_sets.check_source(image)
    with console.progress_bar("preparing", len(rows)) as update:
        made = benchmark_rows.export_missing(rows, request, update)
        if peer_names:
            update(description="preparing peers")
            rows = [*rows, *peers.rows_of(peer_names, rows, request)]
        if against is not None:
            rows = [one for row in rows for one in (row, replace(row, python=against))]
        name, inputs, labels = _load_images(made[0], image, limit)
        busy = machine.busy_percent()
        update(total=sum(row.artifact is not None for row in rows) + with_twin + rounds, completed=0)
        log = (lambda step: None) if sys.stderr.isatty() else functools.cache(cli.log)

        def report(step: str) -> None:
            update(description=step, advance=1)
            log(step.partition(", round ")[0])

        result = compare(
            rows,
            inputs,
            labels,
            images_name=name,
            frame=_random_frame(),
            threads=request.threads or hardware.physical_cores(),
            samples=samples,
            rounds=rounds,
            until_percent=until_percent,
            time_limit_s=time_limit_s,
            with_twin=with_twin,
            device=request.device,
            model_class_of=lambda row: peers.RawModel if row.peer == peers.RAW else TimedModel,
            on_step=report,
        )
        busy = max(busy, machine.busy_percent())
    return replace(result, machine=machine.describe(), busy_percent=busy)


def _random_frame() -> np.typing.NDArray[np.uint8]:
    """Random pixels suffice: the latency does not depend on a frame's content."""
    return np.random.default_rng(0).integers(0, 256, (FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)


def _load_images(
    artifact: Artifact, image: str | None, limit: int
) -> tuple[str, np.typing.NDArray[np.uint8], np.typing.NDArray[np.int64] | None]:
    """Load the user's images, else those shipped with the weights, else synthetic ones, as model inputs."""
    manifest = artifact.manifest
    source = image or (manifest.weights.name if manifest.weights.source == "shipped" else image_sets.SYNTHETIC)
    count = 64 if source == image_sets.SYNTHETIC else limit
    image_set = models.evaluation_images(manifest, source, count)
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
