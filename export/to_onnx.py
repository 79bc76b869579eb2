"""Export a SimpleNet to ONNX, for ONNX Runtime and everything else that reads ONNX.

    python export/to_onnx.py --variant 1.5m
    python export/to_onnx.py --variant cifar-310k --weights fashion-mnist --precision int8
    python export/to_onnx.py --variant 1.5m --weights my.safetensors --precision int8 --calibration ~/pictures
    python export/to_onnx.py --variant 5.7m --weights random --input float32 --batch dynamic --json

The artifact is checked against PyTorch on ONNX Runtime before it takes its place in artifacts/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from export import publish, quantize, request
from export.publish import BuildResult, ExportContext
from export.request import ExportOptions, ExportRequest
from runtimes.base import vendor_import
from simplenet import cli
from simplenet.artifacts import METADATA_KEY, Artifact

if TYPE_CHECKING:
    from typing_extensions import Unpack

PACKAGES = ("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime")


def export_onnx(**options: Unpack[ExportOptions]) -> Artifact:
    """Exports one artifact. Keyword arguments and their defaults are those of `export.request.ExportRequest`.

    Raises:
        UsageError, WeightsError, DataError, ExportError, AgreementError, ArtifactError, BackendUnavailable.
    """
    what = ExportRequest(**options)
    what.check("onnx")
    return publish.publish(what, "onnx", _build, PACKAGES)


def build_graph(context: ExportContext, model_file: Path) -> Any:
    """The float graph as an `onnx.ModelProto`, also written to `model_file`: fp32, or fp16 where that is asked for."""
    from export import onnx_graph

    onnx = vendor_import("onnx", "export")
    context.request.progress("exporting to ONNX")
    loaded, half = context.loaded, context.request.precision == "fp16"
    graph = onnx_graph.build(loaded.model, loaded.card.preprocessing, context.input, half)
    onnx.save(graph, model_file)
    return graph


def _build(context: ExportContext, model_file: Path) -> BuildResult:
    onnx = vendor_import("onnx", "export")
    int8 = context.request.precision == "int8"
    if int8:
        context.request.progress("reading calibration pictures")
        inputs = context.model_inputs(context.calibration)
    graph = build_graph(context, model_file)
    if int8:
        context.request.progress(f"calibrating with {len(inputs)} pictures")
        quantize.quantize_for_onnxruntime(model_file, model_file, inputs)
        graph = onnx.load(model_file)

    def save(embedded: str) -> None:
        onnx.helper.set_model_props(graph, {METADATA_KEY: embedded})
        onnx.save(graph, model_file)

    return BuildResult(save, quantize.ONNXRUNTIME_METHOD if int8 else None)


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    request.add_flags(parser, "onnx")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with request.shown_progress() as progress:
        artifact = export_onnx(**request.options_from(args), progress=progress)
    request.print_result(artifact, args.json)
    return 0


if __name__ == "__main__":
    cli.run(main)
