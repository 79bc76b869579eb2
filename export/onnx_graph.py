"""Convert a network to an ONNX graph: input `image`, output `logits`, batch norms folded.

All runtimes read opsets 17 and 18: TensorRT from 10, TensorRT-RTX, ONNX Runtime from 1.20, OpenVINO.
"""

from __future__ import annotations

import logging
import warnings

import onnx
import onnx.version_converter
import onnxslim
import torch
from torch import nn

from export.export_model import ExportModel
from simplenet.errors import ExportError, one_line
from simplenet.manifest import InputSpec
from simplenet.preprocessing import Preprocessing
from simplenet.vendors import telemetry_off

OPSET = 18
# 8 to 13 % faster than opset 18, in which ONNX Runtime replaces a float16 Relu with Max, and cannot fuse that.
_HALF_OPSET = 17


@telemetry_off()  # onnxslim imports ONNX Runtime
def build(model: nn.Module, preprocessing: Preprocessing, spec: InputSpec, half: bool = False) -> onnx.ModelProto:
    """Convert to an `onnx.ModelProto`; equal weights and settings give equal bytes.

    Args:
        spec: the graph's input: uint8 NHWC images, which the graph normalizes, or normalized float32 NCHW.
        half: as in `ExportModel`.

    Raises:
        ExportError: PyTorch's exporter failed.
    """
    module = ExportModel(model, preprocessing if spec.dtype == "uint8" else None, half)
    # Without this, "torchvision is not installed" is logged four times.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
        try:
            program = torch.onnx.export(
                module,
                (module.example(spec.batch or 2, spec.height),),
                input_names=[spec.name],
                output_names=["logits"],
                dynamic_shapes=None if spec.batch else {"image": {0: torch.export.Dim("batch")}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError) as error:
            if _is_interrupt(error):
                raise KeyboardInterrupt from error
            raise ExportError(f"PyTorch cannot export this network to ONNX: {one_line(error)}") from error
        assert program is not None
        graph = onnxslim.slim(program.model_proto)
    if half:
        graph = onnx.version_converter.convert_version(graph, _HALF_OPSET)
    del graph.metadata_props[:]
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused `error`: the exporter wraps KeyboardInterrupt in its own errors."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
