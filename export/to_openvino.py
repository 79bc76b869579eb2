"""Export a SimpleNet to OpenVINO's own format (.xml and .bin).

    python export/to_openvino.py --variant 1.5m
    python export/to_openvino.py --variant cifar-310k --weights fashion-mnist --precision int8
    python export/to_openvino.py --variant 1.5m --weights my.safetensors --precision int8 --calibration ~/pictures
    python export/to_openvino.py --variant 5.7m --weights random --precision fp16 --batch dynamic

fp16 halves the file; processors still compute it in float32. The artifact is checked against PyTorch on OpenVINO before
it takes its place in artifacts/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from export import openvino_int8, publish, request
from export.publish import BuildResult, ExportContext
from export.request import ExportOptions, ExportRequest
from runtimes.base import vendor_import
from simplenet import cli
from simplenet.artifacts import METADATA_KEY, Artifact
from simplenet.errors import ArtifactError, one_line

if TYPE_CHECKING:
    from typing_extensions import Unpack

PACKAGES = ("torch", "onnx", "onnxscript", "onnxslim", "openvino")


def export_openvino(**options: Unpack[ExportOptions]) -> Artifact:
    """Exports one artifact. Keyword arguments and their defaults are those of `export.request.ExportRequest`.

    Raises:
        UsageError, WeightsError, DataError, ExportError, AgreementError, ArtifactError, BackendUnavailable.
    """
    what = ExportRequest(**options)
    what.check("openvino")
    vendor_import("openvino", "openvino-export")
    if what.precision != "int8":
        return publish.publish(what, "openvino", _build, PACKAGES)
    openvino_int8.import_nncf()
    return publish.publish(what, "openvino", _build, (*PACKAGES, "nncf"))


def _build(context: ExportContext, model_file: Path) -> BuildResult:
    from export import onnx_graph

    openvino = vendor_import("openvino", "openvino-export")
    precision, progress = context.request.precision, context.request.progress
    if precision == "int8":
        progress("reading calibration pictures")
        inputs = context.model_inputs(context.calibration)
    progress("exporting to ONNX")
    loaded = context.loaded
    graph = onnx_graph.build(loaded.model, loaded.card.preprocessing, context.input)
    progress("converting to OpenVINO")
    model = _converted(openvino, graph.SerializeToString())
    if precision == "int8":
        progress(f"calibrating with {len(inputs)} pictures")
        model = openvino_int8.quantize(model, inputs, context)

    def save(embedded: str) -> None:
        model.set_rt_info(embedded, METADATA_KEY)
        try:
            openvino.save_model(model, str(model_file), compress_to_fp16=precision == "fp16")
            openvino.Core().read_model(model_file)  # where the disk is full, not every kind of write raises
        except RuntimeError as error:
            raise ArtifactError(
                f"OpenVINO cannot write {context.request.artifacts} ({one_line(error)}); is the disk full? "
                "What was there is untouched"
            ) from error

    return BuildResult(save, openvino_int8.METHOD if precision == "int8" else None)


def _converted(openvino: Any, onnx_bytes: bytes) -> Any:
    """An openvino.Model without the shape arithmetic that reading ONNX leaves.

    `openvino.convert_model` would do the same, and report to Intel that it was called.
    """
    passes = vendor_import("openvino.passes", "openvino-export")
    model = openvino.Core().read_model(onnx_bytes, b"")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    model.set_friendly_name("simplenet")
    return model


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    request.add_flags(parser, "openvino")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with request.shown_progress() as progress:
        artifact = export_openvino(**request.options_from(args), progress=progress)
    request.print_result(artifact, args.json)
    return 0


if __name__ == "__main__":
    cli.run(main)
