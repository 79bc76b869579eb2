"""Print the time of each type of operation in an ONNX or OpenVINO artifact's optimized graph.

    python export/profile_graph.py artifacts/cifar-310k-fashion-mnist/onnx-int8
    python export/profile_graph.py artifacts/1.5m/onnx-int8 artifacts/1.5m/openvino-int8 --threads 1 --json profile.json
    python export/profile_graph.py artifacts/1.5m/openvino-fp32 --precision bf16

The graph runs on the CPU, in ten rounds; the times are means over the fastest round, because other processes disturb
some. The types are the runtime's own, after fusion: a convolution includes its ReLU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import numpy.typing as npt

import runtimes
from runtimes import Runtime, loader
from simplenet import cli, files
from simplenet.errors import UsageError
from simplenet.formats import PRECISIONS
from simplenet.vendors import vendor_import

_ROUNDS, _WARM_UP = 10, 10
_MAX_INFERENCES = 10_000  # ONNX Runtime records at most a million events

OperationTimes = list[tuple[str, float]]
"""For each operation, its type and its mean time in one round in microseconds."""


@dataclass(frozen=True)
class OperationType:
    """All operations of one type: their number, milliseconds per inference, and share of the graph's time."""

    type: str
    count: int
    ms: float
    share: float


@dataclass(frozen=True)
class GraphProfile:
    """Operation types of an artifact, slowest first, and the share of all that are `not_convolution`."""

    artifact: str
    backend: str
    precision: str
    threads: int
    ms: float
    not_convolution: float
    operations: list[OperationType]


def profile(
    artifact: str | Path, precision: str | None = None, threads: int | None = None, inferences: int = 50
) -> GraphProfile:
    """Run an artifact on the CPU, with its default backend, and measure its operations.

    Other arguments and errors are those of `runtimes.load`; another format than onnx and openvino is a UsageError.

    Args:
        inferences: number per round, after a warm-up.
    """
    found = loader.read_artifact(artifact)
    if found.manifest.format not in _PROFILERS:
        raise UsageError(f"{found.folder} is a {found.manifest.format} artifact; name one of onnx or openvino")
    with runtimes.load(found, precision=precision, threads=threads) as model:  # checks the options; it does not run
        shape = [size or 1 for size in model.manifest.input.shape]
        batch = np.random.default_rng(0).integers(0, 256, shape).astype(model.manifest.input.dtype)
        rounds = [_PROFILERS[found.manifest.format](model, batch, inferences) for _ in range(_ROUNDS)]
    fastest = min(rounds, key=lambda times: sum(time for _, time in times))
    times, counts = defaultdict[str, float](float), Counter(type for type, _ in fastest)
    for type, time in fastest:
        times[type] += time / 1000
    total = sum(times.values())
    slowest_first = sorted(times.items(), key=lambda item: -item[1])
    operations = [OperationType(type, counts[type], ms, ms / total) for type, ms in slowest_first]
    rest = sum(each.share for each in operations if not re.search(r"Conv(olution)?$", each.type))
    return GraphProfile(str(found.folder), model.name, model.precision, model.threads, total, rest, operations)


def _onnxruntime(model: Runtime, batch: npt.NDArray[Any], inferences: int) -> OperationTimes:
    ort = vendor_import("onnxruntime", "onnxruntime")
    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level, settings.enable_profiling = model.threads, 3, True
    with tempfile.TemporaryDirectory() as folder:
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(model.artifact.model_file, settings, providers=["CPUExecutionProvider"])
        for _ in range(_WARM_UP + inferences):
            session.run(None, {model.manifest.input.name: batch})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    operations = len(kernels) // (_WARM_UP + inferences)  # per inference, always in the same order
    warm = np.reshape([kernel["dur"] for kernel in kernels], (-1, operations))[_WARM_UP:]
    types = [kernel["args"]["op_name"] for kernel in kernels[:operations]]
    return list(zip(types, warm.mean(axis=0).tolist(), strict=True))


def _openvino(model: Runtime, batch: npt.NDArray[Any], inferences: int) -> OperationTimes:
    core, precision = vendor_import("openvino", "openvino").Core(), "bf16" if model.precision == "bf16" else "f32"
    settings = {"PERF_COUNT": True, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    settings |= {"INFERENCE_NUM_THREADS": model.threads, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(model.artifact.model_file), "CPU", settings).create_infer_request()
    totals_us = []
    for inference in range(1, _WARM_UP + inferences + 1):
        request.infer([batch])
        if inference in (_WARM_UP, _WARM_UP + inferences):
            # OpenVINO reports the mean of all inferences so far; the slow first ones are subtracted below.
            totals_us.append([info.real_time.total_seconds() * 1e6 * inference for info in request.profiling_info])
    types = (info.node_type for info in request.profiling_info)
    # Operations that were fused or optimized away take no time.
    return [(type, max(0, end - start) / inferences) for type, start, end in zip(types, *totals_us, strict=True) if end]


_PROFILERS = {"onnx": _onnxruntime, "openvino": _openvino}


def build_parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("artifacts", nargs="+", type=cli.path, metavar="ARTIFACT", help="folder or model file")
    precision, help = cli.choice("precision", PRECISIONS), "bf16: run an fp32 OpenVINO artifact in bfloat16"
    parser.add_argument("--precision", type=precision, metavar="NAME", help=f"{help} (default: the artifact's)")
    cli.add_threads(parser)
    cli.add_count(parser, "--samples", "inferences per round", default=50, highest=_MAX_INFERENCES)
    json_help = "also write the profiles as a JSON list"
    parser.add_argument("--json", type=cli.file_ending_in(".json"), metavar="FILE", help=json_help)
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    profiles = []
    for artifact in arguments.artifacts:
        found = profile(artifact, arguments.precision, arguments.threads, arguments.samples)
        print(f"{found.artifact}: {found.backend}, {found.precision}, threads: {found.threads}")
        for each in found.operations:
            print(f"  {each.type:30} {each.count:3} x {each.ms:9.3f} ms {each.share:6.1%}")
        print(f"  {'total':36} {found.ms:9.3f} ms, of which {found.not_convolution:.1%} is not convolution")
        profiles.append(dataclasses.asdict(found))
    if arguments.json:
        with files.replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps(profiles, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    cli.run(main)
