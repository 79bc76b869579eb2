"""One ONNX graph for every runtime: opset 18, input `image`, output `logits`, batch norms folded.

Opset 18 is what TensorRT 10 and later, TensorRT-RTX, ONNX Runtime 1.20 and later and OpenVINO all read.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from export.export_model import ExportModel
from runtimes.base import vendor_import
from simplenet.artifacts import InputSpec
from simplenet.errors import ExportError, one_line
from simplenet.model import SimpleNet
from simplenet.preprocessing import Preprocessing

OPSET = 18


def build(model: SimpleNet, preprocessing: Preprocessing, spec: InputSpec, half: bool = False) -> Any:
    """The network as an `onnx.ModelProto`; the same weights and settings give the same bytes.

    Args:
        spec: the input; uint8 NHWC pictures are normalized in the graph, float32 NCHW ones come normalized.
        half: convolutions and the linear layer in float16; the normalization and the logits stay float32.

    Raises:
        BackendUnavailable: a package is missing. ExportError: the exporter failed.
    """
    onnx = vendor_import("onnx", "export")
    vendor_import("onnxscript", "export")
    onnxslim = vendor_import("onnxslim", "export")
    deployable = ExportModel(model, preprocessing if spec.dtype == "uint8" else None, half)
    with _quiet():
        try:
            program = torch.onnx.export(
                deployable,
                (deployable.example(spec.batch or 2, spec.height),),
                input_names=[spec.name],
                output_names=["logits"],
                dynamic_shapes=None if spec.batch else {"image": {0: torch.export.Dim("batch")}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError) as error:
            if _was_interrupted(error):
                raise KeyboardInterrupt from error
            raise ExportError(f"PyTorch cannot export this network to ONNX: {one_line(error)}") from error
        assert program is not None
        graph = onnxslim.slim(program.model_proto)
    del graph.metadata_props[:]
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: the exporter wraps it as if it were its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on packages that SimpleNet does not need and on its own deprecations."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # else: torchvision is not installed, four times
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
            yield
    finally:
        registration.setLevel(level)
