"""The command line that the four export scripts share: flags, progress, and the printed result."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import runtimes
from export.calibration import SYNTHETIC_NOTE
from export.request import INPUTS
from simplenet import cli
from simplenet.artifacts import Artifact
from simplenet.errors import one_line
from simplenet.formats import FORMATS
from simplenet.manifest import MAX_BATCH


def build_parser(docstring: str | None, format: str) -> argparse.ArgumentParser:
    """Return a parser of `export.request.ExportRequest` and --json, with `docstring` as its --help text."""
    parser = cli.parser(docstring)
    cli.add_variant(parser)
    cli.add_weights(parser)
    cli.add_overrides(parser)
    cli.add_precision(parser, FORMATS[format].precisions)
    input_help = "uint8: NHWC RGB images, normalized by the model; float32: normalized NCHW (default: uint8)"
    input_type = cli.choice("input", INPUTS)
    parser.add_argument("--input", type=input_type, default="uint8", metavar="uint8|float32", help=input_help)
    batch_help = "images per inference, or dynamic for any number (default: 1)"
    parser.add_argument("--batch", type=_batch, default=1, metavar="N|dynamic", help=batch_help)
    cli.add_calibration(parser)
    drop_help = "points of top-1 that int8 may lose on labeled images; a larger drop fails the export (default: 1)"
    parser.add_argument("--max-drop", type=float, default=1.0, metavar="POINTS", help=drop_help)
    poor_help = "warn, instead of failing, if the calibration images hardly vary or do not fit other images"
    parser.add_argument("--allow-poor-calibration", action="store_true", help=poor_help)
    cli.add_artifacts(parser)
    cli.add_json(parser)
    return parser


def run(
    parser: argparse.ArgumentParser,
    export: Callable[..., Artifact],
    argv: list[str] | None,
    details: Callable[[Artifact], str] | None = None,
) -> int:
    """Parse the flags, export with them, and print the result on stdout.

    Args:
        export: called with the flags as keyword arguments, and with `progress`, a status line on stderr.
        details: returns a second line to print, about the format; not called with --json.

    Returns:
        The exit code, 0.
    """
    options = vars(parser.parse_args(argv))
    # On a busy machine with 2 cores, the check of an int8 export takes 24 seconds with spinning threads, 5 without.
    runtimes.disable_spinning()
    as_json = options.pop("json")
    status = cli.console().status("")

    def show(step: str) -> None:
        status.update(step)
        status.start()  # only with the first step: before it, a download of weights draws a progress bar

    try:
        artifact = export(**options, progress=show)
    finally:
        status.stop()
    if as_json:
        manifest = json.loads(artifact.manifest.to_json())
        print(json.dumps({"folder": str(artifact.folder), "size_bytes": artifact.size_bytes, "manifest": manifest}))
    else:
        print(summary(artifact))
        if details:
            print(details(artifact))
    return 0


def summary(artifact: Artifact) -> str:
    """One line: 'artifacts/1.5m/onnx-fp32: 6.05 MB, top-1 agrees with PyTorch on 100.0% of 16 images ...'."""
    measured: dict[str, Any] = artifact.manifest.measured
    parts = [f"{artifact.folder}: {artifact.size_bytes / 1e6:.2f} MB"]
    if artifact.manifest.weights.source == "random":
        parts.append("UNTRAINED (random weights)")
    if (artifact.manifest.calibration or {}).get("source") == SYNTHETIC_NOTE:
        parts.append("calibrated with synthetic images, for latency only")
    if doubt := artifact.manifest.preprocessing_doubt:
        parts.append(doubt)
    if agreement := measured.get("agreement"):
        parts.append(
            f"top-1 agrees with PyTorch on {agreement['top1_agreement']:.1%} of {agreement['images']} images "
            f"({agreement['source']}), cosine at least {agreement['cosine_min']:.6f}, "
            f"relative error at most {agreement['max_relative_error']:.1e}"
        )
    if varied := measured.get("varied"):
        parts.append(
            f"logits differ by {varied['relative_error']:.1%} on {varied['images']} images that int8 was not "
            f"calibrated with ({varied['source']})"
        )
    if accuracy := measured.get("accuracy"):
        parts.append(f"top-1 {accuracy['top1']:.2f} % (PyTorch {accuracy['top1_pytorch']:.2f} %)")
    return one_line(", ".join(parts), limit=2000)


def _batch(text: str) -> int | None:
    return None if text == "dynamic" else cli.integer_in(1, MAX_BATCH)(text)
