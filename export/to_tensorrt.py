"""Export a SimpleNet to a TensorRT engine, on a machine with or without an NVIDIA GPU.

    python export/to_tensorrt.py --variant 1.5m
    python export/to_tensorrt.py --variant 1.5m --precision fp16 --target sm86,sm89
    python export/to_tensorrt.py --variant cifar-310k --weights fashion-mnist --precision int8
    python export/to_tensorrt.py --variant 5.7m --weights random --builder tensorrt --batch dynamic

The full TensorRT (10 or 11) builds for the very GPU it runs on: use it on the device itself, Jetson or data center.
TensorRT-RTX builds without a GPU, for RTX and other GPUs of compute capability 8.0, 8.6, 8.9, 12.0 and 12.1 (7.5 when
asked for by --target sm75, fp16 only), but not for Orin (8.7) or Hopper (9.0). An engine runs only on the TensorRT
release that built it.

The ONNX graph that the engine is built from is checked against PyTorch on this machine's processor. The engine itself
is checked where there is a GPU that it is for; elsewhere it is built and not run, and its manifest says so.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import numpy.typing as npt

from export import agreement, calibration, publish, quantize, request, tensorrt_engine
from export.publish import BuildResult, ExportContext
from export.request import ExportOptions, ExportRequest
from runtimes import gpu
from runtimes.base import vendor_import
from simplenet import cli
from simplenet.artifacts import Artifact
from simplenet.errors import BackendUnavailable, one_line

if TYPE_CHECKING:
    from typing_extensions import Unpack

PACKAGES = ("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime")

_CHECKED_AT_ONCE = 16


def export_tensorrt(
    *, builder: str = "auto", targets: Sequence[str] = (), **options: Unpack[ExportOptions]
) -> Artifact:
    """Exports one engine. The other keyword arguments and their defaults are those of `export.request.ExportRequest`.

    Args:
        builder: 'tensorrt', 'tensorrt-rtx', or 'auto': the full TensorRT where it is installed and has a GPU.
        targets: for TensorRT-RTX, the GPUs to build for, as in 'sm86'; by default all from Ampere on.

    Raises:
        UsageError, WeightsError, DataError, ExportError, AgreementError, ArtifactError, BackendUnavailable.
    """
    what = ExportRequest(**options)
    what.check("tensorrt")
    chosen = tensorrt_engine.choose_builder(builder)
    engineer = _EngineBuilder(chosen, tensorrt_engine.choose_targets(chosen, targets))
    return publish.publish(what, "tensorrt", engineer.build, PACKAGES, engineer.check)


@dataclass
class _EngineBuilder:
    """Builds one engine, then checks what can be checked here."""

    builder: str
    targets: tuple[str, ...]
    graph: Any = field(default=None, init=False)
    """The onnx.ModelProto that the engine was built from."""

    def build(self, context: ExportContext, model_file: Path) -> BuildResult:
        int8 = context.request.precision == "int8"
        inputs = context.model_inputs(context.calibration) if int8 else None
        self.graph = tensorrt_engine.prepared(_onnx_graph(context, inputs))
        context.request.progress(f"building the engine with {self.builder}")
        engine = tensorrt_engine.build(self.graph, self.builder, self.targets)

        def save(embedded: str) -> None:  # a plan has no place for a manifest; a header would hide it from trtexec
            model_file.write_bytes(engine.plan)

        return BuildResult(save, quantize.TENSORRT_METHOD if int8 else None, engine.target)

    def check(self, artifact: Artifact, context: ExportContext) -> dict[str, Any]:
        """The engine against PyTorch where it can run here, else the graph that it was built from."""
        not_run = _why_it_cannot_run(artifact)
        if not_run is None:
            return publish.against_pytorch(artifact, context) | {"checked": "the engine", "engine": "run on this GPU"}
        logits = _run_on_processor(self.graph, context.model_inputs(context.checking), context.input.batch)
        measured = agreement.compare_outputs(
            logits,
            agreement.reference_logits(context.loaded, context.checking),
            context.checking,
            context.request.precision,
            context.loaded.origin.source == "random",
            context.request.max_drop,
        )
        return measured | {
            "checked": "the ONNX graph that the engine was built from, run by ONNX Runtime on the processor",
            "engine": f"built, not run: {not_run}",
        }


def _onnx_graph(context: ExportContext, calibration_inputs: npt.NDArray[Any] | None) -> Any:
    """The `onnx.ModelProto` in the precision asked for; with calibration inputs, in int8."""
    from export import onnx_graph

    onnx = vendor_import("onnx", "export")
    context.request.progress("exporting to ONNX")
    loaded, half = context.loaded, context.request.precision == "fp16"
    graph = onnx_graph.build(loaded.model, loaded.card.preprocessing, context.input, half)
    if calibration_inputs is None:
        return graph
    context.request.progress(f"calibrating with {len(calibration_inputs)} pictures")
    with tempfile.TemporaryDirectory() as folder:
        fp32_onnx, int8_onnx = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, fp32_onnx)
        quantize.quantize_for_tensorrt(fp32_onnx, int8_onnx, calibration_inputs)
        return onnx.load(int8_onnx)


def _why_it_cannot_run(artifact: Artifact) -> str | None:
    """None where the GPU here is one that the engine was built for."""
    try:
        here = gpu.first_gpu("this engine")
    except BackendUnavailable as error:
        return one_line(error)
    built_for = (artifact.manifest.target or {})["compute_capabilities"]
    if here.compute_capability in built_for:
        return None
    return f"the GPU here is {here.compute_capability}, the engine is for {', '.join(built_for)}"


def _run_on_processor(graph: Any, inputs: npt.NDArray[Any], batch: int | None) -> npt.NDArray[np.float32]:
    """float32 logits [N, classes] of any number of inputs."""
    ort = vendor_import("onnxruntime", "export")
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Int8 as it is written, rounding and then float arithmetic, which is what TensorRT computes. The integer kernels
    # that more optimization would bring saturate on processors without VNNI: an error no GPU makes.
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(graph.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    size, name = batch or _CHECKED_AT_ONCE, session.get_inputs()[0].name
    parts = [session.run(None, {name: batch})[0] for batch in calibration.in_batches(inputs, size)]
    logits: npt.NDArray[np.float32] = np.concatenate(parts)[: len(inputs)]  # the last part was filled up
    return logits


def _targets(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(","))
    wrong = [name for name in names if not re.fullmatch(r"sm\d{2,3}", name)]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is no GPU target; write them as in sm86,sm89")
    return names


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    request.add_flags(parser, "tensorrt")
    parser.add_argument(
        "--builder",
        type=cli.choice("builder", tensorrt_engine.BUILDERS),
        default="auto",
        metavar="auto|tensorrt|tensorrt-rtx",
        help="auto: the full TensorRT where it is installed and has a GPU, else TensorRT-RTX (default: auto)",
    )
    parser.add_argument(
        "--target",
        type=_targets,
        default=(),
        metavar="SM,...",
        help="TensorRT-RTX: the GPUs to build for, as in sm86,sm89 (default: all that it knows from sm80 on)",
    )
    return parser


def closing_line(artifact: Artifact) -> str:
    """Which GPUs the engine is for, and what was not checked."""
    target, measured = artifact.manifest.target or {}, artifact.manifest.measured
    gpus, builder = ", ".join(target["compute_capabilities"]), f"{target['builder']} {target['version']}"
    line = f"for {gpus} with {builder} only; checked: {measured['checked']}; the engine: {measured['engine']}"
    if target["builder"] == "tensorrt-rtx":
        line += "; Orin (sm87) and Hopper (sm90) need the full TensorRT, on the device itself"
    return line


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    with request.shown_progress() as progress:
        flags = request.options_from(args)
        artifact = export_tensorrt(builder=args.builder, targets=args.target, **flags, progress=progress)
    request.print_result(artifact, args.json)
    if not args.json:
        print(closing_line(artifact))
    return 0


if __name__ == "__main__":
    cli.run(main)
