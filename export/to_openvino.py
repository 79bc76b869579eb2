"""Export a SimpleNet to OpenVINO's own format (.xml and .bin).

    python export/to_openvino.py --variant 1.5m
    python export/to_openvino.py --variant cifar-310k --weights fashion-mnist --precision int8
    python export/to_openvino.py --variant 1.5m --weights my.safetensors --precision int8 --calibration ~/images
    python export/to_openvino.py --variant 5.7m --weights random --precision fp16 --batch dynamic

fp16 stores the weights in 16 bits, which halves the file; CPUs still compute in float32. OpenVINO runs the model, and
its logits are compared with PyTorch's, before the artifact is written to artifacts/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from export import command_line, openvino_int8, publish
from export.publish import BuildResult, ExportContext
from export.request import ExportRequest
from simplenet import cli
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError, one_line
from simplenet.manifest import METADATA_KEY
from simplenet.vendors import vendor_import

PACKAGES = ("torch", "onnx", "onnxscript", "onnxslim", "openvino")


def export_openvino(**options: Any) -> Artifact:
    """Export one artifact; arguments and errors are those of `export.make`."""
    request = ExportRequest("openvino", **options)
    vendor_import("openvino", "openvino-export")
    if request.precision != "int8":
        return publish.publish(request, _build, PACKAGES)
    openvino_int8.import_nncf()
    return publish.publish(request, _build, (*PACKAGES, "nncf"))


def _build(context: ExportContext) -> BuildResult:
    import openvino

    precision = context.request.precision
    model = _convert(context.onnx_graph().SerializeToString())
    if precision == "int8":
        model = openvino_int8.quantize(model, context.calibration_inputs(), context)

    def save(model_file: Path, manifest_json: str) -> None:
        model.set_rt_info(manifest_json, METADATA_KEY)
        try:
            openvino.save_model(model, str(model_file), compress_to_fp16=precision == "fp16")
            openvino.Core().read_model(model_file)  # on a full disk, some writes fail without an exception
        except RuntimeError as error:
            raise ArtifactError(
                f"OpenVINO cannot write {context.request.artifacts} ({one_line(error)}); "
                "free some disk space; the old artifact is unchanged"
            ) from error

    return BuildResult(save, openvino_int8.METHOD if precision == "int8" else None)


def _convert(onnx_bytes: bytes) -> Any:
    """Convert to an openvino.Model, and fold the shape arithmetic that reading ONNX adds into constants.

    `openvino.convert_model` does the same, but also sends telemetry to Intel.
    """
    from openvino import Core, passes

    model = Core().read_model(onnx_bytes, b"")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    model.set_friendly_name("simplenet")
    return model


def build_parser() -> argparse.ArgumentParser:
    return command_line.build_parser(__doc__, "openvino")


def main(argv: list[str] | None = None) -> int:
    return command_line.run(build_parser(), export_openvino, argv)


if __name__ == "__main__":
    cli.run(main)
