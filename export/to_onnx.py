"""Export a SimpleNet to ONNX, for ONNX Runtime and other runtimes that read ONNX.

    python export/to_onnx.py --variant 1.5m
    python export/to_onnx.py --variant cifar-310k --weights fashion-mnist --precision int8
    python export/to_onnx.py --variant 1.5m --weights my.safetensors --precision int8 --calibration ~/images
    python export/to_onnx.py --variant 5.7m --weights random --input float32 --batch dynamic --json

ONNX Runtime runs the model, and its logits are compared with PyTorch's, before the artifact is written to artifacts/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from export import command_line, publish, quantize
from export.publish import BuildResult, ExportContext
from export.request import ExportRequest
from simplenet import cli
from simplenet.artifacts import Artifact
from simplenet.manifest import METADATA_KEY

PACKAGES = ("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime")


def export_onnx(**options: Any) -> Artifact:
    """Export one artifact; arguments and errors are those of `export.make`."""
    return publish.publish(ExportRequest("onnx", **options), _build, PACKAGES)


def _build(context: ExportContext) -> BuildResult:
    import onnx

    graph = context.onnx_graph(half=context.request.precision == "fp16")
    method = None
    if context.request.precision == "int8":
        graph = quantize.for_onnxruntime(graph, context.calibration_inputs())
        method = quantize.ONNXRUNTIME_METHOD

    def save(model_file: Path, manifest_json: str) -> None:
        onnx.helper.set_model_props(graph, {METADATA_KEY: manifest_json})
        onnx.save(graph, model_file)

    return BuildResult(save, method)


def build_parser() -> argparse.ArgumentParser:
    return command_line.build_parser(__doc__, "onnx")


def main(argv: list[str] | None = None) -> int:
    return command_line.run(build_parser(), export_onnx, argv)


if __name__ == "__main__":
    cli.run(main)
