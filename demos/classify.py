"""Says what is in pictures.

    python demos/classify.py cat.jpg
    python demos/classify.py ~/pictures --backend openvino --precision int8 --calibration ~/pictures --top 3
    python demos/classify.py a.png b.png --artifact artifacts/1.5m/onnx-int8 --json
    python demos/classify.py ~/pictures | cut -f 1,3          piped, it is tab-separated lines under a heading

Folders are searched one level down. A picture that cannot be read is named on stderr, the others are classified,
and the exit code is 1.
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
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from demos import model_flags
from demos.model_flags import is_untrained
from runtimes import Prediction, Runtime, top_k
from simplenet import cli, images
from simplenet.errors import DataError, ImageError, one_line, printable

_HEADINGS = ("image", "rank", "label", "probability", "preprocess_ms", "infer_ms")
_WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Classified:
    """A picture's best answers and what they cost, reading the file not counted; or the reason why there are none."""

    path: Path
    predictions: list[Prediction]
    preprocess_ms: float | None = None
    infer_ms: float | None = None
    error: str | None = None


def classify(model: Runtime, paths: Iterable[Path], top: int = 5) -> Iterator[Classified]:
    """Classifies one picture file after another, in order; an unreadable one is reported and left behind.

    Raises:
        BackendError: the model failed.
    """
    for _ in range(_WARM_UP_CALLS):  # the first calls allocate, which is not what a picture costs
        model.classify([np.zeros((480, 640, 3), np.uint8)], k=top)
    for path in paths:
        try:
            picture = images.read_rgb(path)
            start_s = time.perf_counter()
            batch = model.preprocess([picture])
        except ImageError as error:
            yield Classified(path, [], error=one_line(error))
            continue
        prepared_s = time.perf_counter()
        logits = model.infer_any(batch)
        done_s = time.perf_counter()
        (predictions,) = top_k(logits, top, model.manifest.labels)
        yield Classified(path, predictions, (prepared_s - start_s) * 1e3, (done_s - prepared_s) * 1e3)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("images", nargs="+", type=cli.path, metavar="IMAGE", help="a picture, or a folder of pictures")
    parser.add_argument(
        "--top", type=cli.integer_in(1, 1000), default=5, metavar="N", help="answers a picture (default: 5)"
    )
    model_flags.add_model(parser)
    cli.add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    paths, failures = _found(arguments.images)
    if not paths:
        return 1
    as_lines = not arguments.json and not cli.is_terminal(sys.stdout)
    results: list[Classified] = []
    with model_flags.load(arguments) as model:
        if as_lines:
            print("\t".join(_HEADINGS))
        for result in _with_progress(classify(model, paths, arguments.top), len(paths)):
            if result.error is not None:
                cli.log(f"error: {result.error}")
                failures += 1
            elif as_lines:
                _print_lines(result)
            results.append(result)
        if arguments.json:
            print(json.dumps(_to_json(results, model)))
        elif not as_lines:
            _print_table(results, model)
    return 1 if failures else 0


def _found(given: Sequence[Path]) -> tuple[list[Path], int]:
    """The picture files that are meant, and how many of the arguments meant none, each said in one line."""
    paths: list[Path] = []
    failures = 0
    for path in given:
        try:
            paths += images.find_images(path) if path.is_dir() else [path]
        except OSError:  # not even looked at: to read it tells why
            paths.append(path)
        except DataError as error:
            cli.log(f"error: {error}")
            failures += 1
    return paths, failures


def _with_progress(results: Iterator[Classified], count: int) -> Iterable[Classified]:
    """A bar on stderr while many pictures are classified; none where stderr is not a terminal."""
    from rich.progress import track

    console = cli.console()
    few = count < 10 or not console.is_terminal
    return results if few else track(results, "classifying", count, console=console, transient=True)


def _print_lines(result: Classified) -> None:
    for rank, answer in enumerate(result.predictions, start=1):
        times = (f"{result.preprocess_ms:.3f}", f"{result.infer_ms:.3f}")
        path, label = printable(str(result.path)), printable(answer.label)
        print(path, rank, label, f"{answer.probability:.6f}", *times, sep="\t", flush=True)


def _to_json(results: list[Classified], model: Runtime) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "variant": model.manifest.variant,
        "weights": dataclasses.asdict(model.manifest.weights),
        "untrained": is_untrained(model),
        "runtime": dataclasses.asdict(model.describe()),
        "images": [{**dataclasses.asdict(result), "path": str(result.path)} for result in results],
    }


def _print_table(results: list[Classified], model: Runtime) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    what = model.describe()
    title = f"{model.manifest.variant} with {what.backend} {what.precision} on {what.device}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("image", "label"):
        table.add_column(heading)
    for heading in ("probability", "preprocess ms", "infer ms"):
        table.add_column(heading, justify="right")
    for result in results:
        for rank, answer in enumerate(result.predictions):
            label, chance = Text(one_line(answer.label)), f"{100 * answer.probability:.1f} %"
            if rank == 0:
                name = Text(one_line(str(result.path)))
                table.add_row(name, label, chance, f"{result.preprocess_ms:.2f}", f"{result.infer_ms:.2f}")
            else:
                table.add_row("", label, chance)
        table.add_section()
    console = Console()
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(table)
    if is_untrained(model):
        console.print("U N T R A I N E D : random weights, the answers mean nothing", style="bold white on red")


if __name__ == "__main__":
    cli.run(main)
