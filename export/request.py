"""What to export: one request, the same flags and the same closing line for every format."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from export.calibration import SYNTHETIC_NOTE
from simplenet import cli, variants
from simplenet.artifacts import Artifact, InputSpec
from simplenet.errors import UsageError, one_line
from simplenet.formats import FORMATS
from simplenet.manifest import LARGEST_BATCH

INPUTS = ("uint8", "float32")

Progress = Callable[[str], None]
"""Told the name of each step as it begins."""


def silent(step: str) -> None:
    """The progress of a caller that shows none."""


class Flags(TypedDict, total=False):
    """What the flags of every export script say."""

    variant: str
    weights: str | Path
    precision: str
    input: str
    batch: int | None
    calibration: str | Path
    max_drop: float
    artifacts: str | Path


class ExportOptions(Flags, total=False):
    """The keyword arguments of every `export_<format>`; those of `ExportRequest`, which has their defaults."""

    progress: Progress


@dataclass(frozen=True)
class ExportRequest:
    """`batch` None is a dynamic batch; `calibration` is 'auto', 'synthetic', a shipped set's name or a folder.

    `max_drop` is how many points of top-1 an int8 model may lose before its export is refused.
    """

    variant: str = "1.5m"
    weights: str | Path = "auto"
    precision: str = "fp32"
    input: str = "uint8"
    batch: int | None = 1
    calibration: str | Path = "auto"
    max_drop: float = 1.0
    artifacts: str | Path = cli.DEFAULT_ARTIFACTS
    progress: Progress = silent

    def check(self, format: str) -> None:
        """Raises UsageError for what cannot be exported; unknown variants and weights are found on loading."""
        for kind, value, choices in (
            ("precision", self.precision, FORMATS[format].precisions),
            ("input", self.input, INPUTS),
        ):
            if value not in choices:
                near = variants.nearest(value, choices)
                bf16 = "; bf16 is a way to run an fp32 artifact" if value == "bf16" else ""
                raise UsageError(
                    f"unknown {kind} {value!r} for {format}{near}; choose from: {', '.join(choices)}{bf16}"
                )
        if self.batch is not None and not 1 <= self.batch <= LARGEST_BATCH:
            raise UsageError(f"batch must be 1 to {LARGEST_BATCH}, or None for a dynamic one, not {self.batch}")
        if not 0 <= self.max_drop <= 100:
            raise UsageError(f"max_drop must be 0 to 100 points of top-1, not {self.max_drop}")

    def input_spec(self, size: int) -> InputSpec:
        """The model's input for pictures of `size` x `size` pixels."""
        layout = "NHWC" if self.input == "uint8" else "NCHW"
        return InputSpec("image", self.input, layout, size, size, self.batch)


def add_flags(to: argparse.ArgumentParser, format: str) -> None:
    """The flags of every export script."""
    cli.add_variant(to)
    cli.add_weights(to)
    cli.add_precision(to, FORMATS[format].precisions)
    to.add_argument(
        "--input",
        type=cli.choice("input", INPUTS),
        default="uint8",
        metavar="uint8|float32",
        help="uint8: NHWC RGB pictures, normalized by the model itself; float32: normalized NCHW (default: uint8)",
    )
    to.add_argument(
        "--batch",
        type=_batch,
        default=1,
        metavar="N|dynamic",
        help="pictures per inference, or dynamic for any number (default: 1)",
    )
    cli.add_calibration(to)
    to.add_argument(
        "--max-drop",
        type=_points,
        default=1.0,
        metavar="POINTS",
        help="points of top-1 that int8 may lose on labeled pictures before the export is refused (default: 1)",
    )
    cli.add_artifacts(to)
    cli.add_json(to)


def options_from(args: argparse.Namespace) -> Flags:
    """The parsed flags as keyword arguments."""
    return Flags(
        variant=args.variant,
        weights=args.weights,
        precision=args.precision,
        input=args.input,
        batch=args.batch,
        calibration=args.calibration,
        max_drop=args.max_drop,
        artifacts=args.artifacts,
    )


@contextlib.contextmanager
def shown_progress() -> Iterator[Progress]:
    """A rich status line on stderr while the block runs; nothing where stderr is no terminal."""
    status = cli.console().status("")

    def show(step: str) -> None:
        status.update(step)
        status.start()  # not before the first step: a download of weights draws its own bar

    try:
        yield show
    finally:
        status.stop()


def print_result(artifact: Artifact, as_json: bool) -> None:
    """The closing line of an export script, or everything as JSON."""
    if as_json:
        manifest = json.loads(artifact.manifest.to_json())
        print(json.dumps({"folder": str(artifact.folder), "size_bytes": artifact.size_bytes, "manifest": manifest}))
    else:
        print(one_line(summary(artifact), limit=2000))


def summary(artifact: Artifact) -> str:
    """'artifacts/1.5m/onnx-fp32: 6.05 MB, top-1 agrees with PyTorch on 100.0% of 16 pictures (synthetic), ...'."""
    measured: dict[str, Any] = artifact.manifest.measured
    parts = [f"{artifact.folder}: {artifact.size_bytes / 1e6:.2f} MB"]
    if artifact.manifest.weights.source == "random":
        parts.append("UNTRAINED (random weights)")
    if (artifact.manifest.calibration or {}).get("source") == SYNTHETIC_NOTE:
        parts.append("calibrated with synthetic pictures, for latency only")
    if agreement := measured.get("agreement"):
        parts.append(
            f"top-1 agrees with PyTorch on {agreement['top1_agreement']:.1%} of {agreement['pictures']} pictures "
            f"({agreement['source']}), cosine at least {agreement['cosine_min']:.6f}, "
            f"relative error at most {agreement['max_relative_error']:.1e}"
        )
    if accuracy := measured.get("accuracy"):
        parts.append(f"top-1 {accuracy['top1']:.2f} % (PyTorch {accuracy['top1_pytorch']:.2f} %)")
    return ", ".join(parts)


def _batch(text: str) -> int | None:
    return None if text == "dynamic" else cli.integer_in(1, LARGEST_BATCH)(text)


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of points from 0 to 100")
    return points
