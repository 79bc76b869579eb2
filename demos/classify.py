"""Classify image files.

    python demos/classify.py cat.jpg
    python demos/classify.py ~/images --backend openvino --precision int8 --calibration ~/images --top 3
    python demos/classify.py a.png b.png --artifact artifacts/1.5m/onnx-int8 --json
    python demos/classify.py ~/images | cut -f 1,3          piped: tab-separated lines under a heading

Images in a folder and in its direct subfolders are classified. Unreadable ones are reported on stderr, and the exit
code is then 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from demos import console, models  # before NumPy: handles Ctrl-C during its import

# isort: split
import numpy as np

from demos.models import ModelRequest, is_untrained
from runtimes import Prediction, Runtime
from simplenet import cli, files, image_folders, images
from simplenet.errors import DataError, ImageError, one_line, printable

_HEADINGS = ("image", "rank", "label", "probability", "preprocess_ms", "infer_ms")
_WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Classified:
    """The predictions for one image and their latencies, file access excluded; or the error."""

    path: Path
    predictions: list[Prediction]
    preprocess_ms: float | None = None
    infer_ms: float | None = None
    error: str | None = None


def classify(model: Runtime, paths: Iterable[Path], top: int = 5) -> Iterator[Classified]:
    """Classify image files in order, `top` predictions for each; an unreadable file gives a result with `error`.

    Raises:
        BackendError: the model failed.

    >>> with runtimes.load("artifacts/1.5m/onnx-int8") as model:
    ...     for result in classify(model, [Path("cat.jpg")]):
    ...         print(result.predictions[0].label)
    """
    for _ in range(_WARM_UP_CALLS):  # the first inferences allocate memory
        model.classify([np.zeros((480, 640, 3), np.uint8)], k=top)
    for path in paths:
        try:
            image = images.read_rgb(path)
            start_s = time.perf_counter()
            batch = model.preprocess([image])
        except ImageError as error:
            yield Classified(path, [], error=one_line(error))
            continue
        prepared_s = time.perf_counter()
        logits = model.infer_any(batch)
        done_s = time.perf_counter()
        (predictions,) = model.rank(logits, top)
        yield Classified(path, predictions, (prepared_s - start_s) * 1e3, (done_s - prepared_s) * 1e3)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("images", nargs="+", type=cli.path, metavar="IMAGE", help="an image, or a folder of images")
    cli.add_count(parser, "--top", "predictions for each image", default=5, highest=1000)
    models.add_flags(parser)
    cli.add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    paths, failures = _find_images(arguments.images)
    if not paths:
        return 1
    as_lines = not arguments.json and not sys.stdout.isatty()
    results: list[Classified] = []
    with ModelRequest.from_flags(arguments).open() as model:
        if as_lines:
            print("\t".join(_HEADINGS))
        with console.progress_bar("classifying", len(paths)) as update:
            for result in classify(model, paths, arguments.top):
                update(advance=1)
                if result.error is not None:
                    cli.log(f"error: {result.error}")
                    failures += 1
                elif as_lines:
                    _print_lines(result)
                results.append(result)
        if arguments.json:
            found = [{**dataclasses.asdict(result), "path": str(result.path)} for result in results]
            print(json.dumps({**models.to_json(model), "images": found}))
        elif not as_lines:
            _print_table(results, model)
    return 1 if failures else 0


def _find_images(arguments: Sequence[Path]) -> tuple[list[Path], int]:
    """Return all image files, and the number of folders without any, which are logged."""
    paths: list[Path] = []
    failures = 0
    for path in arguments:
        try:
            paths += image_folders.find_images(path) if files.is_folder(path) else [path]
        except DataError as error:
            cli.log(f"error: {error}")
            failures += 1
    return paths, failures


def _print_lines(result: Classified) -> None:
    for rank, prediction in enumerate(result.predictions, start=1):
        times = (f"{result.preprocess_ms:.3f}", f"{result.infer_ms:.3f}")
        path, label = printable(str(result.path)), printable(prediction.label)
        print(path, rank, label, f"{prediction.probability:.6f}", *times, sep="\t", flush=True)


def _print_table(results: list[Classified], model: Runtime) -> None:
    from rich.text import Text

    description = model.describe()
    title = f"{model.manifest.variant} with {description.backend} {description.precision} on {description.device}"
    table = console.table("image", "label", "probability", "preprocess ms", "infer ms")
    for result in results:
        for rank, prediction in enumerate(result.predictions):
            label, probability = Text(one_line(prediction.label)), f"{100 * prediction.probability:.1f} %"
            times = (f"{result.preprocess_ms:.2f}", f"{result.infer_ms:.2f}") if rank == 0 else ()
            table.add_row(Text(one_line(str(result.path)) if rank == 0 else ""), label, probability, *times)
        table.add_section()
    out = console.output(width=120)
    out.print(Text(title, style="bold"), soft_wrap=True)
    out.print(table)
    if doubt := model.manifest.preprocessing_doubt:
        out.print(Text(doubt, style="bold red"), soft_wrap=True)
    if is_untrained(model):
        out.print("UNTRAINED: random weights, the predictions are meaningless", style="bold white on red")


if __name__ == "__main__":
    cli.run(main)
