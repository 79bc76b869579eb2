"""What to compare SimpleNet with: the vendor's own call, and the architectures that SimpleNet claims to beat.

The architectures come from pytorchcv (pip install --no-deps pytorchcv), with random weights: latency does not depend on
their values. They are exported, quantized and measured like a SimpleNet.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

import runtimes
from demos.benchmark.comparison import Row
from demos.benchmark.workers import TimedModel
from demos.models import ModelRequest
from runtimes.loader import backend_class
from simplenet.errors import BackendUnavailable, SimpleNetError
from simplenet.preprocessing import IMAGENET_PREPROCESSING

if TYPE_CHECKING:
    from simplenet.weights import LoadedWeights

RAW = "raw"


@dataclass(frozen=True)
class Architecture:
    """A network of pytorchcv: its module and function, and its ImageNet top-1 in percent as pytorchcv publishes it."""

    module: str
    function: str
    published_top1: float


SOURCE = "pytorchcv 0.0.74, README: single 224x224 crop"
ARCHITECTURES = {
    "vgg16": Architecture("vgg", "vgg16", 73.02),
    "resnet18": Architecture("resnet", "resnet18", 73.06),
    "resnet34": Architecture("resnet", "resnet34", 75.16),
    "resnet50": Architecture("resnet", "resnet50", 77.72),
    "mobilenet": Architecture("mobilenet", "mobilenet_w1", 73.39),
    "mobilenetv2": Architecture("mobilenetv2", "mobilenetv2_w1", 73.03),
    "mobilenetv3_large": Architecture("mobilenetv3", "mobilenetv3_large_w1", 75.45),
    "squeezenet": Architecture("squeezenet", "squeezenet_v1_1", 60.69),
    "efficientnet_b0": Architecture("efficientnet", "efficientnet_b0", 75.23),
}
NAMES = (RAW, *ARCHITECTURES)


def rows_of(names: Sequence[str], rows: Sequence[Row], request: ModelRequest) -> list[Row]:
    """Return a row for each peer, backend and precision of `rows`, with its artifact or the reason why it has none."""
    found = []
    for name in names:
        for row in rows:
            if name == RAW and row.artifact is not None:
                found.append(replace(row, peer=RAW))
            elif name != RAW and row.precision in ("fp32", "int8") and row.backend in ("onnxruntime", "openvino"):
                peer = Row(row.backend, row.precision, peer=name)
                try:
                    peer.artifact = _export(name, row, request)
                except SimpleNetError as error:
                    peer.reason = f"cannot be exported: {error}"
                found.append(peer)
    return found


def published(name: str) -> str:
    """Return a note with the published accuracy of an architecture."""
    top1 = ARCHITECTURES[name].published_top1
    return f"random weights; its published ImageNet top-1 is {top1:.2f} % ({SOURCE})"


class RawModel(TimedModel):
    """Times the vendor's call as in its documentation, with the same file and settings."""

    def __init__(self, artifact: Path, options: dict[str, Any]) -> None:
        super().__init__(artifact, options)
        self._call = raw_call(self._runtime)

    def _infer_next(self) -> None:
        self._calls += 1
        self._call(self._batches[self._calls % len(self._batches)])


def raw_call(runtime: runtimes.Runtime) -> Callable[[npt.NDArray[Any]], object]:
    """Return the vendor's own call on a batch."""
    file = str(runtime.artifact.model_file)
    if runtime.device != "cpu":
        raise BackendUnavailable(f"the vendor's call is measured on the CPU only, not on {runtime.device}")
    if runtime.name == "onnxruntime":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = runtime.threads
        session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
        return lambda batch: session.run(None, {"image": batch})
    if runtime.name == "openvino":
        import openvino

        hint = "bf16" if runtime.precision == "bf16" else "f32"
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": runtime.threads,
        }
        request = openvino.Core().compile_model(file, "CPU", options).create_infer_request()
        return lambda batch: request.infer({0: batch}, share_inputs=True)
    if runtime.name == "torch" and runtime.precision == "fp32":
        import torch

        module = torch.export.load(file).module()

        def call(batch: npt.NDArray[Any]) -> object:
            with torch.inference_mode():
                return module(torch.from_numpy(batch)).numpy()

        return call
    raise BackendUnavailable(f"{runtime.name} {runtime.precision} has no call of the vendor's to compare with")


def _export(name: str, row: Row, request: ModelRequest) -> Any:
    """Return the peer's artifact for a row, exported if it is missing."""
    import export
    from simplenet import artifacts

    format = backend_class(row.backend).FORMATS[0]
    folder = artifacts.folder_for(request.artifacts_root, name, "random", format, row.precision)
    if (folder / "manifest.json").is_file():
        return artifacts.read(folder)
    return export.make(
        format, network=lambda: _network(name), precision=row.precision, artifacts=request.artifacts_root
    )


def _network(name: str) -> LoadedWeights:
    try:
        module = importlib.import_module(f"pytorchcv.models.{ARCHITECTURES[name].module}")
    except ImportError as error:
        raise BackendUnavailable("pytorchcv is not installed; type: pip install --no-deps pytorchcv==0.0.74") from error
    import torch

    from simplenet.manifest import WeightsOrigin
    from simplenet.model_card import ModelCard
    from simplenet.weights import LoadedWeights

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(module, ARCHITECTURES[name].function)().eval()
    digest = hashlib.sha256()
    for key, tensor in network.state_dict().items():
        digest.update(key.encode() + tensor.numpy().tobytes())
    card = ModelCard(name, 1000, IMAGENET_PREPROCESSING)
    return LoadedWeights(network, card, WeightsOrigin("random", "random", digest.hexdigest()), "random weights")
