"""Export a SimpleNet to a TensorRT engine, on a machine with or without an NVIDIA GPU.

    python export/to_tensorrt.py --variant 1.5m
    python export/to_tensorrt.py --variant 1.5m --precision fp16 --target sm86,sm89
    python export/to_tensorrt.py --variant cifar-310k --weights fashion-mnist --precision int8
    python export/to_tensorrt.py --variant 5.7m --weights random --builder tensorrt --batch dynamic

The full TensorRT (10 or 11) builds for the GPU that it runs on: use it on the target device (Jetson, data center).
TensorRT-RTX builds without a GPU, for GPUs of compute capability 8.0, 8.6, 8.9, 12.0 and 12.1, and with --target sm75
for 7.5 (fp16 only), but not for Orin (8.7) or Hopper (9.0). An engine runs only on the TensorRT release that built it.

Logits are compared with PyTorch's before the artifact is written. They come from the engine if this machine has a GPU
that it supports, else from its ONNX graph on the CPU. The manifest records which of the two was checked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import numpy.typing as npt

from export import calibration, command_line, publish, quantize, tensorrt_engine
from export.publish import BuildResult, ExportContext
from export.request import ExportRequest
from runtimes import gpu
from simplenet import cli
from simplenet.artifacts import Artifact
from simplenet.errors import BackendUnavailable, one_line

PACKAGES = ("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime")

_CHECK_BATCH = 16


def export_tensorrt(*, builder: str = "auto", targets: Sequence[str] = (), **options: Any) -> Artifact:
    """Export one engine; other arguments and errors are those of `export.make`.

    Args:
        builder: 'tensorrt', 'tensorrt-rtx', or 'auto': the full TensorRT if it is installed and has a GPU.
        targets: GPUs to build for with TensorRT-RTX, such as 'sm86'; by default all from Ampere (sm80) on.
    """
    request = ExportRequest("tensorrt", **options)
    builder = tensorrt_engine.choose_builder(builder)
    targets = tensorrt_engine.choose_targets(builder, targets)
    return publish.publish(request, lambda context: _build(context, builder, targets), PACKAGES)


def _build(context: ExportContext, builder: str, targets: Sequence[str]) -> BuildResult:
    graph = context.onnx_graph(half=context.request.precision == "fp16")
    method = None
    if context.request.precision == "int8":
        graph = quantize.for_tensorrt(graph, context.calibration_inputs())
        method = quantize.TENSORRT_METHOD
    context.request.progress(f"building the engine with {builder}")
    engine = tensorrt_engine.build(graph, builder, targets)

    def save(model_file: Path, manifest_json: str) -> None:
        # Without the manifest: an engine has no metadata, and trtexec cannot read a file with a header before it.
        model_file.write_bytes(engine.plan)

    def check(artifact: Artifact) -> dict[str, Any]:
        reason = _why_not_runnable(engine.target["compute_capabilities"])
        if reason is None:
            measured = publish.run_and_compare(artifact, context)
            return measured | {"checked": "the engine", "engine": "run on this GPU"}
        logits = _run_on_cpu(graph, context.check_inputs(), context.input.batch)
        return context.compare_with_pytorch(logits) | {
            "checked": "the engine's ONNX graph, run by ONNX Runtime on the CPU",
            "engine": f"built, not run: {reason}",
        }

    return BuildResult(save, method, engine.target, check)


def _why_not_runnable(targets: Sequence[str]) -> str | None:
    """Why an engine for `targets` cannot run on this machine; None if it can."""
    try:
        found = gpu.first_gpu("this engine").compute_capability
    except BackendUnavailable as error:
        return one_line(error)
    return None if found in targets else f"this machine's GPU is {found}, the engine is for {', '.join(targets)}"


def _run_on_cpu(graph: Any, inputs: npt.NDArray[Any], batch: int | None) -> npt.NDArray[np.float32]:
    """Run an `onnx.ModelProto` on N inputs, and return logits, float32 [N, num_classes]."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # This level uses no integer kernels, which saturate on CPUs without VNNI: it quantizes, dequantizes and computes in
    # float, as TensorRT does.
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(graph.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    size, name = batch or _CHECK_BATCH, session.get_inputs()[0].name
    parts = [session.run(None, {name: part})[0] for part in calibration.in_batches(inputs, size)]
    logits: npt.NDArray[np.float32] = np.concatenate(parts)[: len(inputs)]  # without the last batch's padding
    return logits


def _targets(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(","))


def build_parser() -> argparse.ArgumentParser:
    parser = command_line.build_parser(__doc__, "tensorrt")
    builder, names = cli.choice("builder", tensorrt_engine.BUILDERS), "|".join(tensorrt_engine.BUILDERS)
    builder_help = "auto: the full TensorRT if it is installed and has a GPU, else TensorRT-RTX (default: auto)"
    parser.add_argument("--builder", type=builder, default="auto", metavar=names, help=builder_help)
    target_help = "TensorRT-RTX: the GPUs to build for, such as sm86,sm89 (default: all supported ones from sm80 on)"
    parser.add_argument("--target", dest="targets", type=_targets, default=(), metavar="SM,...", help=target_help)
    return parser


def engine_summary(artifact: Artifact) -> str:
    """Describe in one line which GPUs and TensorRT version the engine is for, and what was checked."""
    target, measured = artifact.manifest.target or {}, artifact.manifest.measured
    gpus, builder = ", ".join(target["compute_capabilities"]), f"{target['builder']} {target['version']}"
    line = f"only for {gpus} with {builder}; checked: {measured['checked']}; the engine: {measured['engine']}"
    if target["builder"] == "tensorrt-rtx":
        line += "; Orin (sm87) and Hopper (sm90) need the full TensorRT, on the target device"
    return line


def main(argv: list[str] | None = None) -> int:
    return command_line.run(build_parser(), export_tensorrt, argv, engine_summary)


if __name__ == "__main__":
    cli.run(main)
